/* secondary.c - see secondary.h; the spec, UIDs, pixels, window and file. The attributes are set in
 * secondary_modules.c */
#include "dicom/secondary.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "dicom/banner.h"
#include "dicom/dataset.h"
#include "dicom/secondary_modules.h"
#include "dicom/series.h"
#include "dicom/series_check.h"
#include "dicom/sop.h"
#include "dicom/tags.h"

/* Share of the values outside of the window, at each end. */
#define WINDOW_TAIL 0.005

/* Largest side of a result. */
#define RESULT_MAX_SIDE 16384

static const struct secondary_task tasks[] = {
    {"super-resolution", "SYNTH_SR", NULL, "SR", true, false},
    {"t1-to-t2", "SYNTH_T1_TO_T2", "T2-weighted image synthesized from T1-weighted image", "T1>T2",
     false, false},
    {"t2-to-t1", "SYNTH_T2_TO_T1", "T1-weighted image synthesized from T2-weighted image", "T2>T1",
     false, false},
    {"t2-to-stir", "SYNTH_T2_TO_STIR", "STIR image synthesized from T2-weighted image", "T2>STIR",
     false, false},
    {"t2-to-tirm", "SYNTH_T2_TO_TIRM", "TIRM image synthesized from T2-weighted image", "T2>TIRM",
     false, false},
    {"xray-to-t2", "SYNTH_XRAY_TO_T2", "T2-weighted MR image synthesized from x-ray image",
     "XRAY>T2", false, true},
};

const struct secondary_task *secondary_task(const char *name)
{
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (strcmp(tasks[i].name, name) == 0)
            return &tasks[i];
    return NULL;
}

static bool is_digits(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789") == n;
}

static int check_spec(const struct series *s, unsigned index, const struct secondary_spec *spec,
                      struct err *e)
{
    const char *const texts[] = {spec->task,       spec->input_contrast, spec->output_contrast,
                                 spec->model_name, spec->model_version,  spec->model_digest,
                                 spec->parameters, spec->engine,         spec->salt,
                                 spec->key,        spec->created};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!texts[i])
            return err_set(e, ERR_INVALID, "result's spec lacks text %zu", i);
    const struct secondary_task *task = secondary_task(spec->task);
    if (!task)
        return err_set(e, ERR_INVALID, "\"%.40s\" is no task that makes images", spec->task);
    if (s->problem.code != 0)
        return err_set(e, ERR_REFUSED, "%s", s->problem.text);
    if (index >= s->slices)
        return err_set(e, ERR_BUG, "slice %u of %u asked for", index, s->slices);
    bool xray = series_is_xray(s);
    if (xray != task->from_xray)
        return err_set(e, ERR_REFUSED, "task %s does not take %s images", spec->task,
                       xray ? "x-ray" : "MR");
    if (spec->type == SECONDARY_MR && xray)
        return err_set(e, ERR_REFUSED,
                       "an x-ray's result cannot be an MR Image: use "
                       "secondary-capture");
    if (!is_digits(spec->created, 14))
        return err_set(e, ERR_INVALID, "result's time is no YYYYMMDDhhmmss");
    if (spec->series_number < 1 || spec->series_number > 99)
        return err_set(e, ERR_INVALID, "result's series number %u is not in 1…99",
                       spec->series_number);
    if (spec->rows == 0 || spec->columns == 0 || spec->rows > RESULT_MAX_SIDE ||
        spec->columns > RESULT_MAX_SIDE ||
        (!xray && (spec->rows % s->rows || spec->columns % s->columns)) ||
        (!xray && !task->same_contrast && (spec->rows != s->rows || spec->columns != s->columns)))
        return err_set(e, ERR_INVALID, "result of %u × %u pixels does not fit a source of %u × %u",
                       spec->rows, spec->columns, s->rows, s->columns);
    if (!isfinite(spec->window_centre) || !(spec->window_width >= 1) ||
        !isfinite(spec->window_width) || !isfinite(spec->slope) || spec->slope <= 0 ||
        !isfinite(spec->intercept))
        return err_set(e, ERR_INVALID, "result's window or rescale is not usable");
    return 0;
}

int secondary_series_uid(const struct series *s, const struct secondary_spec *spec,
                         char out[UID_BYTES], struct err *e)
{
    const char *const parts[] = {spec->map ? "map" : "series", s->series_uid, spec->task,
                                 spec->model_digest, spec->key};
    return uid_derive(out, spec->salt, parts, sizeof parts / sizeof *parts, e);
}

static int make_uids(const struct series *s, unsigned index, const struct secondary_spec *spec,
                     struct secondary_result *out, struct err *e)
{
    const char *const parts[] = {spec->map ? "map instance" : "instance",
                                 s->series_uid,
                                 s->slice[index].sop_instance_uid,
                                 spec->task,
                                 spec->model_digest,
                                 spec->key,
                                 spec->type == SECONDARY_MR ? "mr" : "sc"};
    snprintf(out->sop_class_uid, sizeof out->sop_class_uid, "%s",
             spec->type == SECONDARY_MR ? SOP_MR : SOP_SECONDARY_CAPTURE);
    int rc = secondary_series_uid(s, spec, out->series_uid, e);
    return rc == 0 ? uid_derive(out->sop_instance_uid, spec->salt, parts,
                                sizeof parts / sizeof *parts, e)
                   : rc;
}

/* Values are counted by so many tasks at most. */
#define COUNTERS 4

struct counting {
    const uint16_t *values;
    size_t n;
    int tasks;
    size_t counts[COUNTERS][SECONDARY_MAX_VALUE + 1];
};

static void count(void *arg, int task, int thread)
{
    (void)thread;
    struct counting *c = arg;
    size_t *counts = c->counts[task], part = c->n / (size_t)c->tasks;
    size_t first = part * (size_t)task, end = task + 1 < c->tasks ? first + part : c->n;
    for (size_t i = first; i < end; i++)
        if (c->values[i] != 0 && c->values[i] <= SECONDARY_MAX_VALUE)
            counts[c->values[i]]++;
}

void secondary_window(const uint16_t *values, size_t n, struct pool *pool, double *centre,
                      double *width)
{
    int threads = pool_threads(pool);
    struct counting c = {
        .values = values, .n = n, .tasks = threads < COUNTERS ? threads : COUNTERS};
    size_t total = 0, *counts = c.counts[0];
    pool_run(pool, c.tasks, count, &c);
    for (int i = 0; i <= SECONDARY_MAX_VALUE; i++) {
        for (int k = 1; k < c.tasks; k++)
            counts[i] += c.counts[k][i];
        total += counts[i];
    }
    size_t tail = (size_t)((double)total * WINDOW_TAIL), below = 0, above = 0;
    unsigned low = 0, high = SECONDARY_MAX_VALUE;
    if (total > 0) {
        for (low = 1; below + counts[low] <= tail; low++)
            below += counts[low];
        for (; above + counts[high] <= tail; high--)
            above += counts[high];
    }
    *width = high > low ? high - low : 1;
    *centre = low + *width / 2;
}

/* A copy of the pixels' first banner_height() rows, with the mark. The caller frees it. */
static int mark_pixels(const struct secondary_spec *spec, const struct secondary_task *task,
                       const uint16_t *pixels, uint16_t **out, struct err *e)
{
    size_t n = (size_t)spec->rows * spec->columns;
    for (size_t i = 0; i < n; i++)
        if (pixels[i] > SECONDARY_MAX_VALUE)
            return err_set(e, ERR_INVALID, "result holds the value %u, more than %d", pixels[i],
                           SECONDARY_MAX_VALUE);
    size_t strip = (size_t)banner_height(spec->rows, spec->columns) * spec->columns;
    uint16_t *marked = malloc((strip ? strip : 1) * sizeof *marked);
    if (!marked)
        return err_set(e, ERR_NOMEM, "no memory for the mark of an image of %zu pixels", n);
    memcpy(marked, pixels, strip * sizeof *marked);
    char what[32];
    snprintf(what, sizeof what, "%s%s%s", task->mark, spec->map ? " MAP" : "",
             spec->doubt ? " " BANNER_UNSURE : "");
    double top = ceil(spec->window_centre + spec->window_width / 2);
    double bright = fmin(fmax(top, 1), SECONDARY_MAX_VALUE);
    int rc = banner_draw(marked, spec->rows, spec->columns, what, 0, (uint16_t)bright, e);
    if (rc != 0) {
        free(marked);
        return rc;
    }
    *out = marked;
    return 0;
}

int secondary_write(const struct series *s, unsigned index, const struct secondary_spec *spec,
                    const uint16_t *pixels, const char *path, struct secondary_result *out,
                    struct err *e)
{
    struct dataset *source = NULL, *result = NULL;
    struct secondary_result uids = {0};
    uint16_t *marked = NULL;
    int rc = check_spec(s, index, spec, e);
    if (rc != 0)
        return rc;
    const struct secondary_task *task = secondary_task(spec->task);
    rc = make_uids(s, index, spec, &uids, e);
    if (rc == 0)
        rc = mark_pixels(spec, task, pixels, &marked, e);
    if (rc == 0)
        rc = series_open(s, index, &source, e);
    if (rc != 0)
        goto out;
    result = dataset_new();
    if (!result) {
        rc = err_set(e, ERR_NOMEM, "no memory for a result");
        goto out;
    }
    const struct secondary_parts parts = {
        .series = s,
        .index = index,
        .spec = spec,
        .task = task,
        .uids = &uids,
        .source_syntax = dataset_transfer_syntax(source),
        .from = dataset_root(source),
        .to = dataset_root(result),
    };
    rc = secondary_set_modules(&parts, e);
    if (rc == 0) {
        size_t strip = (size_t)banner_height(spec->rows, spec->columns) * spec->columns;
        const struct dataset_words pixel_data[] = {
            {marked, strip}, {pixels + strip, (size_t)spec->rows * spec->columns - strip}};
        rc = dataset_write(result, pixel_data, 2, path, e);
    }
    if (rc == 0 && out)
        *out = uids;
out:
    series_close(s, index, source);
    dataset_free(result);
    free(marked);
    return rc;
}
