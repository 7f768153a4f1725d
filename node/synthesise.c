/*
 * synthesise.c - see synthesise.h
 *
 * The whole series is held in memory, source and result: the percentiles of the normalisation and
 * the window of the result are those of all slices together. What is not the model's work is done
 * for several slices at once, and the pixels are read while the model is.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/pool.h"
#include "node/base/slices.h"

#include "dicom/recognise.h"
#include "dicom/series.h"
#include "model/engine.h"
#include "model/package.h"
#include "model/percentile.h"
#include "model/prepare.h"
#include "node/config.h"
#include "node/engines.h"
#include "node/crosscheck.h"
#include "node/gate.h"
#include "node/synthesise.h"
#include "node/synthesiser.h"

/* Threads that write files: each waits for the disk most of its time. */
#define WRITERS 16

/* ---- one job ---- */

struct job {
    struct synthesiser *s;
    const struct synthesis *what;
    struct synthesis_result *result;
    struct err *e;
    struct pool *pool; /* NULL: the caller's thread alone */
    struct reader {
        pthread_t thread;
        bool started;
        atomic_bool stop; /* nobody wants the pixels any more */
        int rc;
        struct err e;
    } reader;
    struct kept *model;
    struct prepare *prepare;
    struct gate gate;  /* the same, for the gate */
    int rows, columns; /* of the source as the model takes it: package_grid() */
    float *volume;     /* slices × rows × columns of that; prepare() normalises it */
    uint16_t *stored;  /* slices × rows × columns of the result */
    uint16_t *second;  /* one more result, for the gate; NULL: not wanted */
    uint16_t *maps;    /* as many as stored; NULL: not wanted */
    unsigned maps_written;
    unsigned steps; /* done; two for each slice: computed, written */
};

static int step_done(struct job *j)
{
    j->steps++;
    if (j->what->progress == NULL ||
        j->what->progress(j->what->closure, j->steps, 2 * j->what->series->slices) == 0)
        return 0;
    return err_set(j->e, ERR_CANCELLED, "cancelled after %u of %u steps", j->steps,
                   2 * j->what->series->slices);
}

/* The package is the caller's, also when the series does not fit it. */
static int open_model(struct job *j, const char *digest, struct package **out)
{
    const struct synthesis *w = j->what;
    *out = synthesiser_take_opened(j->s, w->model_path, digest);
    if (*out != NULL)
        return synthesise_fits(*out, w->series, w->contrast, j->e);
    int rc = package_open(w->model_path, NULL, out, j->e);
    if (rc == 0)
        rc = synthesise_fits(*out, w->series, w->contrast, j->e);
    char found[DIGEST_HEX];
    if (rc == 0)
        rc = digest_file(w->model_path, found, j->e);
    if (rc == 0 && strcmp(found, digest) != 0)
        rc = err_set(j->e, ERR_REFUSED,
                     "%s is not the model that the job was made for: its SHA-256 is %s",
                     w->model_path, found);
    return rc;
}

static void plan_drop(struct kept *k)
{
    engine_workspace_free(k->workspace);
    engine_plan_free(k->plan);
    k->workspace = NULL;
    k->plan = NULL;
}

/* By one engine, for at most `batch` images at once. The batch, or ERR_*. */
static int compile_by(struct job *j, const struct package *p, struct kept *k,
                      const struct engine *engine, int batch)
{
    struct synthesiser *s = j->s;
    struct shape shape;
    struct engine_options options = s->options;
    struct engine_cost cost = {0};
    plan_drop(k);
    k->checked = false;
    options.model_digest = k->digest;
    options.stream = true;
    if (strcmp(engine->name, "cuda") != 0) {
        options.precision = ENGINE_F32;
        batch = 1;
    }
    /* A network that was exported for so many images takes no others. */
    int64_t fixed = p->graph->value[p->graph->input[0]].shape.dim[0];
    if (fixed > 0)
        batch = (int)fixed;
    int rc = package_input_shape(p, k->rows, k->columns, batch, &shape, j->e);
    if (rc != 0)
        return rc;
    int made = engine_compile_batch(engine, p->graph, &shape, batch, &options, &k->plan,
                                    &k->workspace, j->e);
    if (made < 0)
        return made;
    shape.dim[0] = made;
    rc = engine_estimate(engine, p->graph, &shape, &options, &cost, j->e);
    k->plan_bytes = cost.plan_bytes;
    k->work_bytes = cost.workspace_bytes;
    k->ran = engine;
    k->batch = made;
    return rc != 0 ? rc : made;
}

static int compile(struct job *j, const struct package *p, struct kept *k, int batch)
{
    struct synthesiser *s = j->s;
    int rc = compile_by(j, p, k, k->engine, batch);
    /* Memory that other models hold is better used than a small batch. */
    if (batch > 1 && (rc == ERR_NOMEM || (rc > 0 && rc < batch)) && kept_free_others(s, k) > 0)
        rc = compile_by(j, p, k, k->engine, batch);
    if (k->engine == s->engine)
        snprintf(k->fallback_reason, sizeof k->fallback_reason, "%s", s->fallback_reason);
    if (s->fallback != NULL && k->engine != s->fallback &&
        (rc == ERR_DEVICE || rc == ERR_UNSUPPORTED || rc == ERR_NOMEM)) {
        snprintf(k->fallback_reason, sizeof k->fallback_reason, "%s", j->e->text);
        rc = compile_by(j, p, k, s->fallback, batch);
    }
    return rc < 0 ? err_context(j->e, "preparing %s", j->what->model_path) : 0;
}

static void tell_engine(struct job *j)
{
    const struct kept *k = j->model;
    struct synthesis_result *r = j->result;
    snprintf(r->engine, sizeof r->engine, "%s", engine_plan_text(k->plan));
    r->engine_name = k->ran->name;
    r->batch = (unsigned)k->batch;
    r->fell_back = k->ran != j->s->engine || j->s->fallback_reason[0] != '\0';
    memcpy(r->fallback_reason, k->fallback_reason, sizeof r->fallback_reason);
}

/* The model for this series: one that is kept, or read and compiled now. */
static int get_model(struct job *j)
{
    const struct synthesis *w = j->what;
    struct synthesis_result *r = j->result;
    double start = clock_exact_ms();
    struct synthesiser *s = j->s;
    struct kept new = {.engine = w->by_fallback && s->fallback != NULL ? s->fallback : s->engine};
    int rc = 0;
    if (w->model_digest != NULL)
        snprintf(new.digest, sizeof new.digest, "%s", w->model_digest);
    else
        rc = digest_file(w->model_path, new.digest, j->e);
    if (rc != 0)
        return rc;
    struct kept *k = kept_find(j->s, new.digest, w->series, new.engine);
    if (k != NULL) {
        r->was_compiled = true;
        rc = synthesise_fits(k->package, w->series, w->contrast, j->e);
        if (rc == 0)
            rc = kept_wake(s, k, j->e);
    } else {
        rc = open_model(j, new.digest, &new.package);
        if (rc == 0)
            rc = synthesiser_grid(new.package, w->series, &new.rows, &new.columns, j->e);
        double loaded = clock_exact_ms();
        r->load_ms = loaded - start;
        if (rc == 0)
            rc = compile(j, new.package, &new, s->batch);
        r->compile_ms = clock_exact_ms() - loaded;
        if (rc != 0) {
            kept_fini(&new);
            return rc;
        }
        k = kept_make_room(j->s, &new);
        *k = new;
        r->tuned = engine_plan_tuned(k->plan);
    }
    if (rc != 0)
        return rc;
    k->used = ++j->s->uses;
    j->model = k;
    j->rows = k->rows;
    j->columns = k->columns;
    memcpy(r->model_digest, k->digest, sizeof r->model_digest);
    tell_engine(j);
    return 0;
}

/* ---- pixels ---- */

static int read_slice(void *arg, unsigned i, struct err *e)
{
    struct job *j = arg;
    const struct series *s = j->what->series;
    size_t plane = (size_t)s->rows * s->columns;
    if (atomic_load(&j->reader.stop))
        return 0;
    return series_pixels(s, i, j->volume + i * plane, plane, e);
}

static void *read_all(void *arg)
{
    struct job *j = arg;
    double start = clock_exact_ms();
    j->reader.rc = slices_run(j->pool, 0, j->what->series->slices, read_slice, j, &j->reader.e);
    j->result->read_ms = clock_exact_ms() - start;
    return NULL;
}

/* From here on the pixels are read, by threads of their own if there can be some. */
static int reading_begin(struct job *j)
{
    const struct series *s = j->what->series;
    size_t total = (size_t)s->rows * s->columns * s->slices;
    if (total > (size_t)SYNTHESISE_VALUES_MAX)
        return err_set(j->e, ERR_LIMIT, "%u images of %u x %u are more than the node takes at once",
                       s->slices, s->rows, s->columns);
    /* Here and for the results no large pages: where one is new to a virtual machine, all threads
     * wait until its host has given it. */
    j->volume = malloc(total * sizeof *j->volume);
    if (j->volume == NULL)
        return err_set(j->e, ERR_NOMEM, "reading %u images: no memory", s->slices);
    j->reader.started = pthread_create(&j->reader.thread, NULL, read_all, j) == 0;
    return 0;
}

/* wanted: else what is still to be read is left. */
static int reading_end(struct job *j, bool wanted)
{
    if (!wanted)
        atomic_store(&j->reader.stop, true);
    if (j->reader.started)
        pthread_join(j->reader.thread, NULL);
    else if (wanted)
        read_all(j);
    j->reader.started = false;
    return wanted && j->reader.rc != 0 ? err_set(j->e, j->reader.rc, "%s", j->reader.e.text) : 0;
}

struct to_grid {
    const struct job *j;
    float *volume;
};

static int slice_to_grid(void *arg, unsigned i, struct err *e)
{
    const struct to_grid *t = arg;
    const struct job *j = t->j;
    const struct series *s = j->what->series;
    size_t from = (size_t)s->rows * s->columns, to = (size_t)j->rows * (size_t)j->columns;
    return prepare_resample(j->volume + i * from, (int)s->rows, (int)s->columns, t->volume + i * to,
                            j->rows, j->columns, e);
}

/* The volume on the grid that the model takes, where that is not the source's own. */
static int to_grid(struct job *j)
{
    const struct series *s = j->what->series;
    if (j->model->package->pixel_mm <= 0)
        return 0;
    double start = clock_exact_ms();
    size_t to = (size_t)j->rows * (size_t)j->columns;
    float *volume = to * s->slices <= (size_t)SYNTHESISE_VALUES_MAX
                        ? malloc(to * s->slices * sizeof *volume)
                        : NULL;
    if (volume == NULL)
        return err_set(j->e, ERR_NOMEM, "resampling %u images to %d x %d: no memory", s->slices,
                       j->rows, j->columns);
    struct to_grid work = {j, volume};
    int rc = slices_run(j->pool, 0, s->slices, slice_to_grid, &work, j->e);
    if (rc != 0) {
        free(volume);
        return rc;
    }
    free(j->volume);
    j->volume = volume;
    j->result->read_ms += clock_exact_ms() - start;
    return 0;
}

/* Does the gate want the model's second opinion on a slice? It is one more image of the stack. */
static bool asks_again(const struct job *j)
{
    return j->what->quality != NULL && j->model->package->gate != NULL;
}

static int prepare(struct job *j)
{
    const struct series *s = j->what->series;
    const struct package *p = j->model->package;
    size_t total = (size_t)j->rows * (size_t)j->columns * s->slices;
    double start = clock_exact_ms();
    const double at[2] = {p->percentile_low, p->percentile_high};
    double value[2];
    int rc = percentiles(j->volume, total, at, 2, value, j->pool, j->e);
    if (rc == 0)
        rc = prepare_new(p, j->rows, j->columns, value[0], value[1], &j->prepare, j->e);
    if (rc == 0)
        prepare_normalise(j->prepare, j->volume, total, j->pool);
    j->result->read_ms += clock_exact_ms() - start;
    if (rc != 0)
        return rc;
    struct shape one = *engine_plan_output_shape(j->model->plan, 0);
    if (one.rank > 0 && one.dim[0] == j->model->batch)
        one.dim[0] = 1;
    if (!shape_equal(&one, prepare_output_shape(j->prepare))) {
        char text[96];
        return err_set(j->e, ERR_REFUSED, "%s gives %s, which is not what its scale says",
                       j->what->model_path, shape_text(&one, text, sizeof text));
    }
    total *= (size_t)p->scale * (size_t)p->scale;
    if (total > (size_t)SYNTHESISE_VALUES_MAX)
        return err_set(j->e, ERR_LIMIT, "%u images of %d x %d are more than the node makes at once",
                       s->slices, prepare_rows(j->prepare), prepare_columns(j->prepare));
    j->stored = malloc(total * sizeof *j->stored);
    if (asks_again(j))
        j->second = malloc(total / s->slices * sizeof *j->second);
    if (j->what->maps != NULL)
        j->maps = malloc(total * sizeof *j->maps);
    if (j->stored == NULL || (asks_again(j) && j->second == NULL) ||
        (j->what->maps != NULL && j->maps == NULL))
        return err_set(j->e, ERR_NOMEM, "making the images: no memory");
    j->gate = (struct gate){
        .package = p,
        .prepare = j->prepare,
        .volume = j->volume,
        .slices = (int)s->slices,
        .rows = j->rows,
        .columns = j->columns,
        .low = value[0],
        .high = value[1],
        .pool = j->pool,
    };
    return 0;
}

/* ---- the gate ---- */

static int gate_look_at_input(struct job *j)
{
    const struct config_gate *may = j->what->quality;
    struct synthesis_result *r = j->result;
    double start = clock_exact_ms();
    char towards[3];
    if (may == NULL)
        return 0;
    const struct quality_view view = gate_view(j->what->series, towards);
    int rc = gate_input(&j->gate, &view, &r->input, NULL, NULL, j->e);
    if (rc == 0)
        rc = gate_act(&r->input, may->input, &r->outcome, r->doubt, j->e);
    if (rc == 0 && !r->input.calibrated)
        rc = gate_act(&gate_uncalibrated, may->uncalibrated, &r->outcome, r->doubt, j->e);
    r->gate_ms = clock_exact_ms() - start;
    return rc;
}

/* The plan may have become another one while it ran. */
static const struct gate *gate_of(struct job *j)
{
    j->gate.plan = j->model->plan;
    j->gate.workspace = j->model->workspace;
    return &j->gate;
}

static int gate_look_at_result(struct job *j)
{
    const struct config_gate *may = j->what->quality;
    struct synthesis_result *r = j->result;
    double start = clock_exact_ms();
    quality_begin(&r->quality, j->model->package->gate);
    if (may == NULL || !r->quality.calibrated)
        return 0;
    int rc = gate_result(gate_of(j), j->stored, j->second, &r->quality, j->e);
    if (rc == 0)
        rc = gate_act(&r->quality, may->result, &r->outcome, r->doubt, j->e);
    r->gate_ms += clock_exact_ms() - start;
    return rc;
}

static int make_maps(struct job *j)
{
    size_t plane = (size_t)prepare_rows(j->prepare) * (size_t)prepare_columns(j->prepare);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < j->what->series->slices; i++)
        rc = gate_map(gate_of(j), (int)i, j->stored + i * plane, j->maps + i * plane, j->e);
    return rc;
}

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    struct job *j = ctx;
    if (image == j->what->series->slices)
        return gate_second_input(gate_of(j), gate_middle(&j->gate), QUALITY_BOTH, in[0], e);
    return prepare_input(j->prepare, j->volume, (int)j->what->series->slices, (int)image, in[0],
                         engine_workspace_threads(j->model->workspace), e);
}

static bool lend(void *ctx, int64_t image, const float **in)
{
    const struct job *j = ctx;
    int slices = (int)j->what->series->slices;
    in[0] = image < slices ? prepare_lent(j->prepare, j->volume, slices, (int)image) : NULL;
    return in[0] != NULL;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    struct job *j = ctx;
    size_t plane = (size_t)prepare_rows(j->prepare) * (size_t)prepare_columns(j->prepare);
    struct pool *pool = engine_workspace_threads(j->model->workspace);
    if (image == j->what->series->slices)
        return prepare_output(j->prepare, out[0], j->second, pool, e);
    int rc = prepare_output(j->prepare, out[0], j->stored + (size_t)image * plane, pool, e);
    return rc != 0 ? err_context(e, "image %d of %u", (int)image + 1, j->what->series->slices)
                   : step_done(j);
}

static bool stop(void *ctx)
{
    const struct job *j = ctx;
    return j->what->stop != NULL && j->what->stop(j->what->closure);
}

/* Memory ran out while the model worked: compiles it for half as many images at once. */
static int shrink(struct job *j)
{
    struct kept *k = j->model;
    int rc = compile(j, k->package, k, k->batch / 2);
    if (rc != 0)
        kept_fini(k);
    else
        tell_engine(j);
    return rc;
}

/* Another engine is wrong or gone: the CPU takes the model over, for good. */
static int take_over(struct job *j)
{
    struct kept *k = j->model;
    snprintf(k->fallback_reason, sizeof k->fallback_reason, "%s", j->e->text);
    int rc = compile_by(j, k->package, k, j->s->fallback, 1);
    if (rc < 0)
        kept_fini(k);
    else
        tell_engine(j);
    return rc < 0 ? rc : 0;
}

/* The first result of a model that was compiled for a GPU. */
static int check_gpu(struct job *j)
{
    struct kept *k = j->model;
    int middle = gate_middle(&j->gate);
    size_t plane = (size_t)prepare_rows(j->prepare) * (size_t)prepare_columns(j->prepare);
    int rc = crosscheck(&j->gate, middle, j->stored + (size_t)middle * plane, &j->s->options, j->e);
    k->checked = rc == 0;
    if (rc != 0 && j->s->fallback == NULL) {
        err_context(j->e, "%s by %s", j->what->model_path, j->result->engine);
        kept_fini(k);
    }
    return rc;
}

static int run(struct job *j)
{
    const struct engine_stack stack = {.images = j->what->series->slices + (j->second != NULL),
                                       .fill = fill,
                                       .take = take,
                                       .ctx = j,
                                       .counted = j->what->series->slices,
                                       .lend = lend,
                                       .stop = stop};
    double start = clock_exact_ms();
    int rc;
    for (;;) {
        const struct kept *k = j->model;
        rc = engine_run_stack(k->plan, k->workspace, &stack, j->e);
        if (rc == ERR_NOMEM && k->batch > 1) {
            rc = shrink(j);
        } else if (rc == 0 && j->s->crosscheck && !k->checked &&
                   strcmp(k->ran->name, "cuda") == 0) {
            rc = check_gpu(j);
            if (rc == 0 || rc != ERR_DEVICE || j->s->fallback == NULL)
                break;
            rc = take_over(j);
        } else {
            break;
        }
        j->steps = 0;
        if (rc != 0)
            break;
    }
    j->result->run_ms = clock_exact_ms() - start;
    return rc;
}

static const char *or_null(const char *text)
{
    return text != NULL && *text != '\0' ? text : NULL;
}

/* The files name the engine and its instruction set, but not the number of threads, which changes
 * nothing in the result. */
static void engine_words(const struct job *j, char *out, size_t size)
{
    snprintf(out, size, "%s", j->result->engine);
    out[strcspn(out, ",")] = '\0';
}

static int output_path(const struct job *j, const char *folder, unsigned i, char out[PATH_BYTES])
{
    return file_join(out, folder, j->result->output[i].file, j->e);
}

/* spec: of the images. */
static int write_maps(struct job *j, struct secondary_spec *spec)
{
    const struct synthesis *w = j->what;
    size_t plane = (size_t)spec->rows * spec->columns;
    spec->map = true;
    spec->type = SECONDARY_CAPTURE;
    spec->series_number = (spec->series_number + 49) % 99 + 1;
    spec->slope = 100.0 / PREPARE_VALUE_MAX;
    spec->intercept = 0;
    secondary_window(j->maps, plane * w->series->slices, j->pool, &spec->window_centre,
                     &spec->window_width);
    int rc = secondary_series_uid(w->series, spec, j->result->map_series_uid, j->e);
    for (unsigned i = 0; rc == 0 && i < w->series->slices; i++) {
        char path[PATH_BYTES];
        rc = output_path(j, w->maps, i, path);
        if (rc == 0)
            rc = secondary_write(w->series, i, spec, j->maps + i * plane, path, NULL, j->e);
        j->maps_written += rc == 0;
    }
    return rc == 0 ? file_sync_folder(w->maps, j->e) : rc;
}

struct writing {
    struct job *j;
    const struct secondary_spec *spec;
};

static int write_slice(void *arg, unsigned i, struct err *e)
{
    const struct writing *w = arg;
    struct job *j = w->j;
    struct synthesis_output *o = &j->result->output[i];
    const struct series *s = j->what->series;
    size_t plane = (size_t)w->spec->rows * w->spec->columns;
    struct secondary_result written;
    char path[PATH_BYTES];
    snprintf(o->file, sizeof o->file, "%04u.dcm", i + 1);
    int rc = file_join(path, j->what->folder, o->file, e);
    if (rc == 0)
        rc = secondary_write(s, i, w->spec, j->stored + i * plane, path, &written, e);
    if (rc != 0)
        return rc;
    memcpy(o->sop_class_uid, written.sop_class_uid, sizeof o->sop_class_uid);
    memcpy(o->source_sop_instance_uid, s->slice[i].sop_instance_uid,
           sizeof o->source_sop_instance_uid);
    memcpy(o->sop_instance_uid, written.sop_instance_uid, sizeof o->sop_instance_uid);
    return 0;
}

/* A few at a time, so that the caller hears of it, and can stop it, in between. */
static int write_slices(struct job *j, const struct secondary_spec *spec)
{
    struct writing work = {j, spec};
    struct pool *writers = NULL;
    unsigned slices = j->what->series->slices;
    int rc = 0;
    if (pool_new(&writers, slices < WRITERS ? (int)slices : WRITERS, false, NULL) != 0)
        writers = NULL; /* the caller's thread alone, then */
    for (unsigned i = 0; rc == 0 && i < slices; i += WRITERS) {
        unsigned n = slices - i < WRITERS ? slices - i : WRITERS;
        j->result->count = i + n;
        rc = slices_run(writers, i, n, write_slice, &work, j->e);
        for (unsigned k = 0; rc == 0 && k < n; k++)
            rc = step_done(j);
    }
    pool_free(writers);
    return rc;
}

static int write_files(struct job *j)
{
    const struct synthesis *w = j->what;
    const struct package *p = j->model->package;
    struct synthesis_result *r = j->result;
    unsigned slices = w->series->slices;
    double start = clock_exact_ms();
    size_t plane = (size_t)prepare_rows(j->prepare) * (size_t)prepare_columns(j->prepare);
    char engine[sizeof r->engine];
    engine_words(j, engine, sizeof engine);
    struct secondary_spec spec = {
        .type = w->type,
        .task = model_task_name(p->task),
        .input_contrast = model_contrast_name(p->input_contrast),
        .output_contrast = model_contrast_name(p->output_contrast),
        .model_name = p->name,
        .model_version = p->version,
        .model_digest = r->model_digest,
        .parameters = "",
        .engine = engine,
        .description = or_null(w->description),
        .qualification = or_null(w->qualification),
        .series_number = w->series_number != 0 ? w->series_number : (unsigned)p->task + 1,
        .salt = w->salt,
        .key = w->key,
        .created = w->created,
        .rows = (unsigned)prepare_rows(j->prepare),
        .columns = (unsigned)prepare_columns(j->prepare),
        .slope = prepare_slope(j->prepare),
        .intercept = prepare_intercept(j->prepare),
        .doubt = or_null(r->doubt),
    };
    secondary_window(j->stored, plane * slices, j->pool, &spec.window_centre, &spec.window_width);
    r->output = calloc(slices, sizeof *r->output);
    if (r->output == NULL)
        return err_set(j->e, ERR_NOMEM, "writing the images: no memory");
    int rc = secondary_series_uid(w->series, &spec, r->series_uid, j->e);
    if (rc == 0)
        rc = write_slices(j, &spec);
    if (rc == 0)
        rc = file_sync_folder(w->folder, j->e);
    if (rc == 0 && j->maps != NULL)
        rc = write_maps(j, &spec);
    r->write_ms = clock_exact_ms() - start;
    return rc;
}

static void remove_files(struct job *j)
{
    struct err ignored;
    struct err *kept = j->e;
    char path[PATH_BYTES];
    j->e = &ignored;
    for (unsigned i = 0; i < j->result->count; i++)
        if (j->result->output[i].sop_instance_uid[0] != '\0' && /* written by us */
            output_path(j, j->what->folder, i, path) == 0)
            unlink(path);
    for (unsigned i = 0; i < j->maps_written; i++)
        if (output_path(j, j->what->maps, i, path) == 0)
            unlink(path);
    j->e = kept;
}

/* Threads that the engine may take. */
static int threads_of(const struct job *j)
{
    cpu_set_t set;
    int n = j->s->options.threads;
    if (n <= 0)
        n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > POOL_THREADS_MAX ? POOL_THREADS_MAX : n > 0 ? n : 1;
}

int synthesise(struct synthesiser *s, const struct synthesis *what, struct synthesis_result *out,
               struct err *e)
{
    struct synthesis_result result = {0};
    struct job j = {.s = s, .what = what, .result = &result, .e = e};
    int rc = 0;
    if (what->series->problem.code != 0)
        rc = err_set(e, ERR_REFUSED, "%s", what->series->problem.text);
    if (rc == 0 && pool_new(&j.pool, threads_of(&j), false, NULL) != 0)
        j.pool = NULL;
    if (rc == 0)
        rc = reading_begin(&j);
    if (rc == 0) {
        rc = get_model(&j);
        int read = reading_end(&j, rc == 0);
        rc = rc != 0 ? rc : read;
    }
    if (rc == 0)
        rc = to_grid(&j);
    if (rc == 0)
        rc = prepare(&j);
    if (rc == 0)
        rc = gate_look_at_input(&j);
    if (rc == 0)
        rc = run(&j);
    if (rc == 0)
        rc = gate_look_at_result(&j);
    if (rc == 0 && j.maps != NULL)
        rc = make_maps(&j);
    if (rc == 0)
        rc = write_files(&j);
    if (rc == 0) {
        *out = result;
    } else {
        remove_files(&j);
        synthesis_result_fini(&result);
    }
    pool_free(j.pool);
    prepare_free(j.prepare);
    free(j.volume);
    free(j.stored);
    free(j.second);
    free(j.maps);
    return rc;
}

void synthesis_result_fini(struct synthesis_result *r)
{
    free(r->output);
    *r = (struct synthesis_result){0};
}
