/*
 * cmd_infer.c - `spinenode infer`: a model on a folder of DICOM, or on a tensor, without a PACS
 *
 * --series goes the way that a job of the node goes (synthesise.h). --tensor goes straight to the
 * engine, with any ONNX file whose first input takes the tensor.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "node/base/json.h"

#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "dicom/series.h"
#include "model/engine.h"
#include "model/npy.h"
#include "model/onnx.h"
#include "model/package.h"
#include "model/quality.h"
#include "node/cmd.h"
#include "node/config.h"
#include "node/scan.h"
#include "node/synthesise.h"

static const char help[] =
    "usage: spinenode infer MODEL --series DIR --output DIR [-c FILE] [OPTION]...\n"
    "       spinenode infer MODEL --tensor IN.npy --output OUT.npy [--repeat N] [OPTION]...\n"
    "\n"
    "The first form takes the one DICOM series in a folder and writes the synthetic series into\n"
    "another, as the node would; a series that the model is not made for is refused. The second\n"
    "runs the network alone on a float32 NCHW tensor in NumPy's format.\n"
    "\n"
    "      --series DIR     folder of DICOM files, one series\n"
    "      --tensor FILE    input tensor\n"
    "      --output PATH    folder (made if missing) or file to write\n"
    "  -c, --config FILE    site's salt, thresholds, qualification and engine from here\n"
    "      --contrast WORD  the series is T1, T2, STIR, TIRM or XR, whatever its attributes say\n"
    "      --created TIME   YYYYMMDDhhmmss to write into the results; else the time of the newest\n"
    "                       input file, so that a repeat gives the same bytes\n"
    "      --engine NAME    ref, cpu or cuda; else the fastest\n"
    "      --threads N      0 = all processors\n"
    "      --repeat N       run the network N times (--tensor)\n"
    "      --quality WORD   the most that the quality gate may do: refuse (the default), mark, "
    "pass\n"
    "      --uncertainty P  also write how far the answers for the mirrored and for the moved "
    "input\n"
    "                       are from the result: a series into folder P, or a tensor into file P\n"
    "      --json           one JSON object with the figures\n"
    "  -h, --help           this text\n";

/* Largest tensor, and most repeats. */
#define TENSOR_BYTES_MAX (INT64_C(4) << 30)
#define REPEAT_MAX       100000

struct infer {
    const char *verb, *model, *series, *tensor, *output, *config, *contrast, *created;
    const char *engine, *quality, *uncertainty;
    int64_t threads, repeat;
    bool json;
};

/* Of this program only: getrusage() counts what the process was before exec, too. */
static double peak_mb(void)
{
    double kib = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtod(line + 6, NULL);
    }
    if (f != NULL)
        fclose(f);
    return kib * 1024 / 1e6;
}

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* ---- a tensor ---- */

struct tensor_run {
    const struct engine *engine; /* that runs it */
    struct graph *graph;
    struct plan *plan;
    struct workspace *work;
    struct npy in;
    float *out[GRAPH_INPUTS_MAX];
    double *ms; /* of each repeat */
    double load_ms, min_ms, median_ms, total_ms;
    double cpu_ms; /* of all threads, to load and to run */
};

/* Compiles with the engine that was named, or with the fastest that this machine can use. */
static int compile(const struct infer *o, struct tensor_run *r, struct err *e)
{
    static const char *const by_speed[] = {"cuda", "cpu", "ref"};
    struct engine_options options = {.threads = (int)o->threads, .mode = ENGINE_THROUGHPUT};
    int rc = ERR_UNSUPPORTED;
    for (size_t i = 0; i < sizeof by_speed / sizeof *by_speed && rc != 0; i++) {
        const char *name = o->engine != NULL ? o->engine : by_speed[i];
        const struct engine *engine = engine_find(name);
        if (engine != NULL)
            rc = engine_compile(r->engine = engine, r->graph, &r->in.shape, &options, &r->plan, e);
        else if (o->engine != NULL)
            rc = err_set(e, ERR_UNSUPPORTED, "engine %s is not in this build (spinenode version)",
                         name);
        if (o->engine != NULL || (rc != ERR_DEVICE && rc != ERR_UNSUPPORTED))
            break;
    }
    return rc;
}

static int compare_ms(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int load_network(const struct infer *o, struct tensor_run *r, struct err *e)
{
    double start = clock_exact_ms();
    r->cpu_ms = -clock_cpu_ms();
    int rc = onnx_open(o->model, NULL, &r->graph, e);
    if (rc != 0)
        return rc;
    if (r->graph->n_inputs != 1)
        return err_set(e, ERR_UNSUPPORTED, "%s has %d inputs; expected one", o->model,
                       r->graph->n_inputs);
    rc = compile(o, r, e);
    if (rc == 0)
        rc = engine_workspace_new(r->plan, &r->work, e);
    r->load_ms = clock_exact_ms() - start;
    return rc != 0 ? err_context(e, "%s", o->model) : 0;
}

static int run_network(const struct infer *o, struct tensor_run *r, struct err *e)
{
    for (int i = 0; i < engine_plan_outputs(r->plan) && i < GRAPH_INPUTS_MAX; i++) {
        int64_t n = shape_count(engine_plan_output_shape(r->plan, i));
        r->out[i] = malloc((size_t)n * sizeof *r->out[i]);
        if (r->out[i] == NULL)
            return err_set(e, ERR_NOMEM, "running %s: no memory", o->model);
    }
    r->ms = malloc((size_t)o->repeat * sizeof *r->ms);
    if (r->ms == NULL)
        return err_set(e, ERR_NOMEM, "running %s: no memory", o->model);
    const float *in[] = {r->in.data};
    for (int64_t i = 0; i < o->repeat; i++) {
        double start = clock_exact_ms();
        int rc = engine_run(r->plan, r->work, in, r->out, e);
        if (rc != 0)
            return rc;
        r->ms[i] = clock_exact_ms() - start;
    }
    r->cpu_ms += clock_cpu_ms();
    for (int64_t i = 0; i < o->repeat; i++)
        r->total_ms += r->ms[i];
    qsort(r->ms, (size_t)o->repeat, sizeof *r->ms, compare_ms);
    r->min_ms = r->ms[0];
    r->median_ms = (r->ms[(o->repeat - 1) / 2] + r->ms[o->repeat / 2]) / 2;
    return 0;
}

/* Mirrored and moved along the last two axes, run again and brought back: the larger difference of
 * each value. */
static int tensor_disagreement(const struct infer *o, struct tensor_run *r, struct err *e)
{
    const struct shape *in = &r->in.shape, *out = engine_plan_output_shape(r->plan, 0);
    int64_t rows = in->rank == 4 ? in->dim[2] : 0, columns = in->rank == 4 ? in->dim[3] : 0;
    int64_t scale = rows > 0 && out->rank == 4 ? out->dim[2] / rows : 0;
    if (scale < 1 || out->dim[2] != scale * rows || out->dim[3] != scale * columns ||
        rows > 65536 || columns > 65536)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: --uncertainty needs images in and images out (N x C x rows x columns), "
                       "the size of the result a multiple of the source's",
                       o->model);
    int64_t n = shape_count(out), plane = rows * columns, outer = shape_count(in) / plane;
    float *changed = malloc((size_t)shape_count(in) * sizeof *changed);
    float *answer = malloc((size_t)n * sizeof *answer);
    float *back = malloc((size_t)n * sizeof *back);
    float *map = calloc((size_t)n, sizeof *map);
    int rc = 0;
    if (changed == NULL || answer == NULL || back == NULL || map == NULL)
        rc = err_set(e, ERR_NOMEM, "%s: no memory for a map", o->model);
    for (int way = QUALITY_FLIP; rc == 0 && way <= QUALITY_SHIFT; way++) {
        const float *inputs[] = {changed};
        float *outputs[GRAPH_INPUTS_MAX];
        memcpy(outputs, r->out, sizeof outputs);
        outputs[0] = answer;
        for (int64_t i = 0; i < outer; i++)
            quality_do((enum quality_way)way, r->in.data + i * plane, (int)rows, (int)columns,
                       changed + i * plane);
        rc = engine_run(r->plan, r->work, inputs, outputs, e);
        plane *= scale * scale;
        for (int64_t i = 0; rc == 0 && i < n / plane; i++)
            quality_undo((enum quality_way)way, answer + i * plane, (int)(rows * scale),
                         (int)(columns * scale), (int)scale, back + i * plane);
        plane /= scale * scale;
        for (int64_t i = 0; rc == 0 && i < n; i++)
            map[i] = fmaxf(map[i], fabsf(back[i] - r->out[0][i]));
    }
    if (rc == 0)
        rc = npy_write(o->uncertainty, out, map, e);
    free(changed);
    free(answer);
    free(back);
    free(map);
    return rc;
}

static int print_tensor(const struct infer *o, const struct tensor_run *r)
{
    char shape[96];
    int threads = o->threads > 0 ? (int)o->threads : processors();
    if (o->json) {
        struct buf out;
        buf_init(&out, 8192);
        json_open(&out, NULL, '{');
        json_text(&out, "engine", r->engine->name);
        json_int(&out, "threads", threads);
        json_int(&out, "batch", r->in.shape.dim[0]);
        json_real(&out, "load_ms", r->load_ms);
        json_real(&out, "min_ms", r->min_ms);
        json_real(&out, "median_ms", r->median_ms);
        json_real(&out, "total_ms", r->total_ms);
        json_real(&out, "cpu_ms", r->cpu_ms);
        json_real(&out, "peak_mb", peak_mb());
        json_int(&out, "repeat", o->repeat);
        json_text(&out, "plan", engine_plan_text(r->plan));
        json_close(&out, '}');
        buf_puts(&out, "\n");
        fputs(buf_text(&out), stdout);
        buf_fini(&out);
    } else {
        printf("%s: %s in %.2f ms (loaded in %.2f ms, %s)\n", o->output,
               shape_text(engine_plan_output_shape(r->plan, 0), shape, sizeof shape), r->median_ms,
               r->load_ms, engine_plan_text(r->plan));
    }
    return cmd_finish_output(o->verb);
}

static int infer_tensor(const struct infer *o)
{
    struct err e;
    struct tensor_run r = {0};
    int status;
    int rc = npy_read(o->tensor, TENSOR_BYTES_MAX, &r.in, &e);
    if (rc == 0)
        rc = load_network(o, &r, &e);
    if (rc == 0)
        rc = run_network(o, &r, &e);
    if (rc == 0)
        rc = npy_write(o->output, engine_plan_output_shape(r.plan, 0), r.out[0], &e);
    if (rc == 0 && o->uncertainty != NULL)
        rc = tensor_disagreement(o, &r, &e);
    status = rc != 0 ? cmd_failed(o->verb, "%s", e.text) : print_tensor(o, &r);
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++)
        free(r.out[i]);
    free(r.ms);
    npy_fini(&r.in);
    engine_workspace_free(r.work);
    engine_plan_free(r.plan);
    graph_free(r.graph);
    return status;
}

/* ---- a series ---- */

/* "YYYYMMDDhhmmss" of the newest file, UTC. */
static void newest_time(const struct scan *files, char out[15])
{
    time_t newest = 0;
    for (size_t i = 0; i < files->count; i++) {
        struct stat st;
        if (stat(files->paths[i], &st) == 0 && st.st_mtime > newest)
            newest = st.st_mtime;
    }
    struct tm tm;
    gmtime_r(&newest, &tm);
    if (strftime(out, 15, "%Y%m%d%H%M%S", &tm) != 14)
        memcpy(out, "19700101000000", 15);
}

/* The one series among the files; what is no image is left out. */
static int read_series(const struct infer *o, const struct scan *files, struct series **out,
                       struct err *e)
{
    int *group = NULL;
    /* Most folders hold a sound series and nothing else: then every header is read once. */
    if (files->count > 0 &&
        series_read((const char *const *)files->paths, files->count, NULL, out, NULL) == 0) {
        if ((*out)->problem.code == 0)
            return 0;
        series_free(*out);
        *out = NULL;
    }
    int count = series_group((const char *const *)files->paths, files->count, &group, e);
    if (count < 0)
        return count;
    if (count != 1) {
        free(group);
        return err_set(e, ERR_INVALID, "%s holds %d DICOM series in %zu files; expected one",
                       o->series, count, files->count);
    }
    size_t n = 0;
    int rc;
    const char **paths = malloc(files->count * sizeof *paths);
    if (paths == NULL) {
        rc = err_set(e, ERR_NOMEM, "reading %s: no memory", o->series);
    } else {
        for (size_t i = 0; i < files->count; i++) {
            if (group[i] == 0)
                paths[n++] = files->paths[i];
        }
        rc = series_read(paths, n, NULL, out, e);
    }
    free(paths);
    free(group);
    return rc;
}

static int recognise_series(const struct infer *o, const struct config *c, const struct series *s,
                            struct recognition *r, struct err *e)
{
    struct recognise_options options = recognise_defaults;
    if (c != NULL)
        config_recognise_options(c, &options);
    options.assume_contrast = o->contrast;
    recognise(s, &options, r);
    return r->refusal.code != 0 ? err_set(e, r->refusal.code, "%s", r->refusal.text) : 0;
}

/* The model, opened and hashed while the configuration and the series are read. */
struct identity {
    const char *path;
    struct package *package;
    char digest[DIGEST_HEX];
    struct part {
        int rc;
        struct err e;
        pthread_t thread;
        bool started;
    } open, hash;
};

static void *identify_open(void *arg)
{
    struct identity *i = arg;
    i->open.rc = package_open(i->path, NULL, &i->package, &i->open.e);
    return NULL;
}

static void *identify_hash(void *arg)
{
    struct identity *i = arg;
    i->hash.rc = digest_file(i->path, i->digest, &i->hash.e);
    return NULL;
}

static void identify_begin(struct identity *i)
{
    i->open.started = pthread_create(&i->open.thread, NULL, identify_open, i) == 0;
    i->hash.started = pthread_create(&i->hash.thread, NULL, identify_hash, i) == 0;
}

static void part_end(struct part *p, void *(*run)(void *), struct identity *i, bool wanted)
{
    if (p->started)
        pthread_join(p->thread, NULL);
    else if (wanted)
        run(i);
    p->started = false;
}

/* wanted: else it is only waited for. */
static int identify_end(struct identity *i, bool wanted, struct err *e)
{
    part_end(&i->open, identify_open, i, wanted);
    part_end(&i->hash, identify_hash, i, wanted);
    if (!wanted)
        return 0;
    const struct part *p = i->open.rc != 0 ? &i->open : &i->hash;
    return p->rc != 0 ? err_set(e, p->rc, "%s", p->e.text) : 0;
}

/* The key holds all that goes into the files, the time included, and so the same UID is the same
 * bytes; and a word that no job of the node has, so that the node's results have others. */
static int make_key(const struct synthesis *what, const char *task, char key[DIGEST_HEX],
                    struct err *e)
{
    char parameters[160];
    const struct config_gate *may = what->quality;
    int n = snprintf(parameters, sizeof parameters, "infer contrast=%s qualification=%s created=%s",
                     what->contrast, what->qualification != NULL ? what->qualification : "",
                     what->created);
    if (may->input != CONFIG_QUALITY_REFUSE || may->result != CONFIG_QUALITY_REFUSE ||
        may->uncalibrated != CONFIG_QUALITY_PASS)
        snprintf(parameters + n, sizeof parameters - (size_t)n, " quality=%d,%d,%d",
                 (int)may->input, (int)may->result, (int)may->uncalibrated);
    return synthesise_key(what->series, task, what->model_digest, parameters, key, e);
}

static void print_quality(struct buf *out, const struct synthesis_result *r)
{
    json_open(out, "quality", '{');
    json_text(out, "outcome", quality_outcome_name(r->outcome));
    json_bool(out, "calibrated", r->input.calibrated);
    json_text(out, "reason", r->doubt);
    for (int i = 0; i < QUALITY_FIGURE_COUNT; i++) {
        double v = i == QUALITY_UNLIKE ? r->input.figure[i] : r->quality.figure[i];
        if (isfinite(v))
            json_real(out, quality_figure_name((enum quality_figure)i), v);
    }
    json_close(out, '}');
}

static int print_series(const struct infer *o, const struct series *s,
                        const struct synthesis_result *r)
{
    if (o->json) {
        struct buf out;
        buf_init(&out, 16384);
        json_open(&out, NULL, '{');
        json_text(&out, "engine", r->engine);
        json_int(&out, "images", r->count);
        json_text(&out, "series", r->series_uid);
        json_text(&out, "source_series", s->series_uid);
        json_text(&out, "sha256", r->model_digest);
        json_real(&out, "load_ms", r->load_ms);
        json_real(&out, "compile_ms", r->compile_ms);
        json_real(&out, "read_ms", r->read_ms);
        json_real(&out, "run_ms", r->run_ms);
        json_real(&out, "gate_ms", r->gate_ms);
        json_real(&out, "write_ms", r->write_ms);
        json_real(&out, "peak_mb", peak_mb());
        json_text(&out, "map_series", r->map_series_uid);
        print_quality(&out, r);
        json_close(&out, '}');
        buf_puts(&out, "\n");
        fputs(buf_text(&out), stdout);
        buf_fini(&out);
    } else {
        printf("%s: %u images, series %s\n", o->output, r->count, r->series_uid);
        if (o->uncertainty != NULL)
            printf("%s: %u maps, series %s\n", o->uncertainty, r->count, r->map_series_uid);
        printf("quality: %s%s%s\n", quality_outcome_name(r->outcome),
               !r->input.calibrated        ? ", not calibrated: the model carries no limits"
               : r->outcome > QUALITY_PASS ? ", "
                                           : "",
               r->input.calibrated ? r->doubt : "");
        printf("%s: model loaded in %.0f ms, compiled in %.0f ms; pixels read in %.0f ms, "
               "computed in %.0f ms, checked in %.0f ms, written in %.0f ms; at most %.0f MB\n",
               r->engine, r->load_ms, r->compile_ms, r->read_ms, r->run_ms, r->gate_ms, r->write_ms,
               peak_mb());
    }
    return cmd_finish_output(o->verb);
}

static enum config_quality quality_of(const char *word)
{
    return strcmp(word, "pass") == 0   ? CONFIG_QUALITY_PASS
           : strcmp(word, "mark") == 0 ? CONFIG_QUALITY_MARK
                                       : CONFIG_QUALITY_REFUSE;
}

static int infer_series(const struct infer *o)
{
    struct err e;
    struct scan files = {0};
    struct config *c = NULL;
    struct series *s = NULL;
    struct synthesiser *engines = NULL;
    struct synthesis_result result = {0};
    struct recognition r;
    struct identity model = {.path = o->model};
    char key[DIGEST_HEX], created[15];
    struct config_engine engine = {
        .name = (char[]){"auto"}, .cache = (char[]){""}, .crosscheck = true};

    int rc = dicom_init(&e);
    if (rc != 0)
        goto out;
    identify_begin(&model);
    rc = o->config != NULL ? config_load(o->config, &c, &e) : 0;
    if (rc != 0)
        goto out;
    if (c != NULL)
        engine = c->engine;
    char name[16];
    if (o->engine != NULL) {
        snprintf(name, sizeof name, "%s", o->engine);
        engine.name = name;
    }
    if (o->threads > 0)
        engine.threads = (int32_t)o->threads;
    rc = scan_add(&files, o->series, NULL, &e);
    if (rc == 0)
        rc = read_series(o, &files, &s, &e);
    if (rc == 0)
        rc = recognise_series(o, c, s, &r, &e);
    if (rc == 0)
        rc = synthesiser_new(&engine, 0, &engines, &e);
    if (rc == 0)
        rc = identify_end(&model, true, &e);
    if (rc != 0)
        goto out;
    const char *task = model_task_name(model.package->task);
    synthesiser_give(engines, o->model, model.digest, model.package);
    model.package = NULL;
    struct config_gate may = {CONFIG_QUALITY_REFUSE, CONFIG_QUALITY_REFUSE, CONFIG_QUALITY_PASS};
    if (c != NULL)
        may = c->quality;
    if (o->quality != NULL)
        may.input = may.result = quality_of(o->quality);
    newest_time(&files, created);
    const struct synthesis what = {
        .series = s,
        .contrast = r.contrast,
        .model_path = o->model,
        .model_digest = model.digest,
        .key = key,
        .type = SECONDARY_CAPTURE,
        .qualification = c != NULL ? c->node.content_qualification : NULL,
        .salt = c != NULL ? c->node.site_salt : "",
        .created = o->created != NULL ? o->created : created,
        .quality = &may,
        .maps = o->uncertainty,
        .folder = o->output,
    };
    rc = make_key(&what, task, key, &e);
    if (rc == 0)
        rc = file_make_folders(o->output, 0777, &e);
    if (rc == 0 && o->uncertainty != NULL)
        rc = file_make_folders(o->uncertainty, 0777, &e);
    if (rc == 0)
        rc = synthesise(engines, &what, &result, &e);
out:;
    int status = rc != 0 ? cmd_failed(o->verb, "%s", e.text) : print_series(o, s, &result);
    synthesis_result_fini(&result);
    synthesiser_free(engines);
    identify_end(&model, false, NULL);
    package_free(model.package);
    series_free(s);
    scan_fini(&files);
    config_free(c);
    return status;
}

/* ---- arguments ---- */

static int check(const struct infer *o, int operands, char **argv)
{
    if (operands == 0)
        return cmd_usage_error(o->verb, "expected the path of a model");
    if (operands > 1)
        return cmd_usage_error(o->verb, "unexpected argument '%s'", argv[2]);
    if ((o->series == NULL) == (o->tensor == NULL))
        return cmd_usage_error(o->verb, "expected either --series or --tensor");
    if (o->output == NULL)
        return cmd_usage_error(o->verb, "--output is missing");
    if (o->tensor != NULL && (o->config != NULL || o->contrast != NULL || o->created != NULL))
        return cmd_usage_error(o->verb, "--config, --contrast and --created go with --series");
    if (o->tensor != NULL && o->quality != NULL)
        return cmd_usage_error(o->verb, "--quality goes with --series");
    if (o->quality != NULL && strcmp(o->quality, "refuse") != 0 &&
        strcmp(o->quality, "mark") != 0 && strcmp(o->quality, "pass") != 0)
        return cmd_usage_error(o->verb, "--quality: expected refuse, mark or pass, not '%s'",
                               o->quality);
    if (o->uncertainty != NULL && strcmp(o->uncertainty, o->output) == 0)
        return cmd_usage_error(o->verb, "--uncertainty and --output must differ");
    if (o->series != NULL && o->repeat != 1)
        return cmd_usage_error(o->verb, "--repeat goes with --tensor");
    if (o->engine != NULL && strcmp(o->engine, "ref") != 0 && strcmp(o->engine, "cpu") != 0 &&
        strcmp(o->engine, "cuda") != 0)
        return cmd_usage_error(o->verb, "--engine: expected ref, cpu or cuda, not '%s'", o->engine);
    if (o->created != NULL && (strlen(o->created) != 14 || strspn(o->created, "0123456789") != 14))
        return cmd_usage_error(o->verb, "--created: expected YYYYMMDDhhmmss, not '%s'", o->created);
    static const char *const contrasts[] = {"T1", "T2", "STIR", "TIRM", "XR"};
    bool known = o->contrast == NULL;
    for (size_t i = 0; !known && i < sizeof contrasts / sizeof *contrasts; i++)
        known = strcmp(o->contrast, contrasts[i]) == 0;
    if (!known)
        return cmd_usage_error(o->verb, "--contrast: expected T1, T2, STIR, TIRM or XR, not '%s'",
                               o->contrast);
    return CMD_GO;
}

int cmd_infer(int argc, char **argv)
{
    struct infer o = {.verb = argv[0], .repeat = 1};
    const char *threads = NULL, *repeat = NULL;
    const struct cmd_option options[] = {{"series", 0, NULL, &o.series},
                                         {"tensor", 0, NULL, &o.tensor},
                                         {"output", 0, NULL, &o.output},
                                         {"config", 'c', NULL, &o.config},
                                         {"contrast", 0, NULL, &o.contrast},
                                         {"created", 0, NULL, &o.created},
                                         {"engine", 0, NULL, &o.engine},
                                         {"quality", 0, NULL, &o.quality},
                                         {"uncertainty", 0, NULL, &o.uncertainty},
                                         {"threads", 0, NULL, &threads},
                                         {"repeat", 0, NULL, &repeat},
                                         {"json", 0, &o.json, NULL},
                                         {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status == CMD_GO && threads != NULL)
        status = cmd_number(o.verb, "threads", threads, 0, 1024, &o.threads);
    if (status == CMD_GO && repeat != NULL)
        status = cmd_number(o.verb, "repeat", repeat, 1, REPEAT_MAX, &o.repeat);
    if (status == CMD_GO)
        status = check(&o, operands, argv);
    if (status != CMD_GO)
        return status;
    o.model = argv[1];
    return o.tensor != NULL ? infer_tensor(&o) : infer_series(&o);
}
