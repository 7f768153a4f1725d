/* gate.c - see gate.h */
#include "node/gate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/slices.h"

#include "dicom/series.h"
#include "model/engine.h"
#include "model/package.h"
#include "model/prepare.h"

static int64_t plane_of(const struct gate *g)
{
    return (int64_t)g->rows * g->columns;
}

static int64_t result_of(const struct gate *g)
{
    return (int64_t)prepare_rows(g->prepare) * prepare_columns(g->prepare);
}

/* A slice of the source, and a stored result, as the quality gate sees them. */
static struct quality_image source_of(const struct gate *g, int slice)
{
    return (struct quality_image){
        .rows = g->rows, .columns = g->columns, .normalised = g->volume + slice * plane_of(g)};
}

static struct quality_image image_of(const struct gate *g, const uint16_t *stored)
{
    struct quality_image image = {.rows = prepare_rows(g->prepare),
                                  .columns = prepare_columns(g->prepare),
                                  .stored = stored,
                                  .low = 0,
                                  .high = PREPARE_VALUE_MAX};
    if (g->package->output == MODEL_OUTPUT_SOURCE) {
        image.low = (g->low - prepare_intercept(g->prepare)) / prepare_slope(g->prepare);
        image.high = (g->high - prepare_intercept(g->prepare)) / prepare_slope(g->prepare);
    }
    return image;
}

/* The slices that are looked at, and what is seen of each. */
struct look {
    const struct gate *g;
    int slice[QUALITY_SLICES_MAX], count;
    float (*features)[QUALITY_FEATURES];
    const uint16_t *stored, *second;
    struct quality_report report[QUALITY_SLICES_MAX + 1];
};

/* The picture of each slice, and then the noise of each: threads that are done with their pictures
 * take the shorter work that is left. */
static int look_at_input(void *arg, unsigned i, struct err *e)
{
    const struct look *l = arg;
    unsigned count = (unsigned)l->count;
    struct quality_image image = source_of(l->g, l->slice[i % count]);
    return i < count ? quality_picture(&image, l->features[i], e)
                     : quality_noise(&image, l->features[i % count], e);
}

int gate_input(const struct gate *g, const struct quality_view *view, struct quality_report *r,
               float (*features)[QUALITY_FEATURES], int *n, struct err *e)
{
    float own[QUALITY_SLICES_MAX][QUALITY_FEATURES];
    struct look look = {.g = g, .features = features != NULL ? features : own};
    quality_begin(r, g->package->gate);
    quality_view(r, g->package->gate, view);
    if (features == NULL && g->package->gate == NULL)
        return 0;
    look.count = quality_slices(g->slices, look.slice);
    int rc = slices_run(g->pool, 0, 2 * (unsigned)look.count, look_at_input, &look, e);
    if (rc == 0)
        quality_input(r, g->package->gate, look.features, look.count);
    if (n != NULL)
        *n = look.count;
    return rc;
}

/* One image on its way through a plan that may take several at once. */
struct single {
    const struct gate *g;
    int slice;
    enum quality_way way; /* 0: as it is */
    uint16_t *stored;
};

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    const struct single *s = ctx;
    (void)image;
    if (s->way != 0)
        return gate_second_input(s->g, s->slice, s->way, in[0], e);
    return prepare_input(s->g->prepare, s->g->volume, s->g->slices, s->slice, in[0],
                         engine_workspace_threads(s->g->workspace), e);
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    const struct single *s = ctx;
    (void)image;
    return prepare_output(s->g->prepare, out[0], s->stored,
                          engine_workspace_threads(s->g->workspace), e);
}

/* The model's answer for a slice, as it is or changed. */
static int answer(const struct gate *g, int slice, enum quality_way way, uint16_t *stored,
                  struct err *e)
{
    struct single one = {g, slice, way, stored};
    const struct engine_stack stack = {.images = 1, .fill = fill, .take = take, .ctx = &one};
    return engine_run_stack(g->plan, g->workspace, &stack, e);
}

int gate_run(const struct gate *g, int slice, uint16_t *stored, struct err *e)
{
    return answer(g, slice, 0, stored, e);
}

void gate_unit(const struct gate *g, const uint16_t *stored, float *unit)
{
    const struct quality_image image = image_of(g, stored);
    for (int y = 0; y < image.rows; y++)
        quality_row(&image, y, unit + (int64_t)y * image.columns);
}

struct second_input {
    const struct gate *g;
    int slice;
    enum quality_way way;
    float *tensor;
};

static int second_channel(void *arg, unsigned i, struct err *e)
{
    const struct second_input *s = arg;
    const struct gate *g = s->g;
    int from = s->slice + (int)i - g->package->input_slices / 2;
    from = from < 0 ? 0 : from >= g->slices ? g->slices - 1 : from;
    float *changed = malloc((size_t)plane_of(g) * sizeof *changed);
    if (changed == NULL)
        return err_set(e, ERR_NOMEM, "asking the model again: no memory");
    quality_do(s->way, g->volume + from * plane_of(g), g->rows, g->columns, changed);
    int rc = prepare_channel(g->prepare, changed, (int)i, s->tensor, NULL, e);
    free(changed);
    return rc;
}

int gate_second_input(const struct gate *g, int slice, enum quality_way way, float *tensor,
                      struct err *e)
{
    struct second_input input = {g, slice, way, tensor};
    return slices_run(engine_workspace_threads(g->workspace), 0, (unsigned)g->package->input_slices,
                      second_channel, &input, e);
}

int gate_second(const struct gate *g, int slice, enum quality_way way, float *unit, struct err *e)
{
    size_t n = (size_t)result_of(g);
    uint16_t *stored = malloc(n * sizeof *stored);
    float *there = malloc(n * sizeof *there);
    int rc = stored != NULL && there != NULL
                 ? answer(g, slice, way, stored, e)
                 : err_set(e, ERR_NOMEM, "asking the model again: no memory");
    if (rc == 0) {
        gate_unit(g, stored, there);
        quality_undo(way, there, prepare_rows(g->prepare), prepare_columns(g->prepare),
                     g->package->scale, unit);
    }
    free(stored);
    free(there);
    return rc;
}

static int look_at_result(struct look *l, unsigned i, struct err *e)
{
    const struct gate *g = l->g;
    const struct quality_pair pair = {source_of(g, l->slice[i]),
                                      image_of(g, l->stored + l->slice[i] * result_of(g)),
                                      g->package->scale};
    return quality_result(&l->report[i], &pair, e);
}

/* The model's second opinion on a slice beside its first. */
static int look_again(const struct gate *g, int slice, const uint16_t *stored,
                      const uint16_t *second, struct quality_report *r, struct err *e)
{
    const struct quality_image first = image_of(g, stored + slice * result_of(g));
    const struct quality_image other = image_of(g, second);
    return quality_disagreement(r, &first, &other, QUALITY_BOTH, g->package->scale, e);
}

int gate_middle(const struct gate *g)
{
    int slice[QUALITY_SLICES_MAX], count = quality_slices(g->slices, slice);
    return slice[count / 2];
}

/* What is seen of slice i; the one after the last: of the second opinion. */
static int look_at(void *arg, unsigned i, struct err *e)
{
    struct look *l = arg;
    quality_begin(&l->report[i], l->g->package->gate);
    if (i < (unsigned)l->count)
        return look_at_result(l, i, e);
    return look_again(l->g, gate_middle(l->g), l->stored, l->second, &l->report[i], e);
}

int gate_result(const struct gate *g, const uint16_t *stored, const uint16_t *second,
                struct quality_report *r, struct err *e)
{
    uint16_t *own = NULL;
    struct look look = {.g = g, .stored = stored, .second = second};
    int rc = 0;
    look.count = quality_slices(g->slices, look.slice);
    if (second == NULL) {
        look.second = own = malloc((size_t)result_of(g) * sizeof *own);
        rc = own != NULL ? answer(g, gate_middle(g), QUALITY_BOTH, own, e)
                         : err_set(e, ERR_NOMEM, "asking the model again: no memory");
    }
    if (rc == 0)
        rc = slices_run(g->pool, 0, (unsigned)look.count + 1, look_at, &look, e);
    for (int i = 0; rc == 0 && i <= look.count; i++)
        quality_add(r, &look.report[i]);
    if (rc == 0)
        quality_judge(r, g->package->gate);
    free(own);
    return rc;
}

int gate_map(const struct gate *g, int slice, const uint16_t *stored, uint16_t *map, struct err *e)
{
    static const enum quality_way ways[] = {QUALITY_FLIP, QUALITY_SHIFT};
    int64_t n = result_of(g);
    float *first = malloc((size_t)n * sizeof *first);
    float *second = malloc((size_t)n * sizeof *second);
    int rc = 0;
    if (first == NULL || second == NULL)
        rc = err_set(e, ERR_NOMEM, "making a map: no memory");
    else
        gate_unit(g, stored, first);
    for (int k = 0; rc == 0 && k < 2; k++) {
        rc = gate_second(g, slice, ways[k], second, e);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            uint16_t far = (uint16_t)lrintf(fabsf(first[i] - second[i]) * PREPARE_VALUE_MAX);
            map[i] = k > 0 && map[i] > far ? map[i] : far;
        }
    }
    free(first);
    free(second);
    return rc;
}

/* The letter of the body's axis that a direction follows most closely (PS3.3 C.7.6.1.1.1). */
static char letter_of(const double direction[3])
{
    int axis = 0;
    for (int k = 1; k < 3; k++)
        axis = fabs(direction[k]) > fabs(direction[axis]) ? k : axis;
    return direction[axis] > 0 ? "LPH"[axis] : "RAF"[axis];
}

struct quality_view gate_view(const struct series *s, char towards[3])
{
    if (!s->has_geometry)
        return (struct quality_view){0};
    towards[0] = letter_of(s->row_direction);
    towards[1] = letter_of(s->column_direction);
    towards[2] = '\0';
    return (struct quality_view){s->rows * s->row_spacing_mm, s->columns * s->column_spacing_mm,
                                 towards};
}

const struct quality_report gate_uncalibrated = {
    .outcome = QUALITY_REFUSE,
    .reason = "the model carries no limits of quality (scripts/calibrate makes them)",
};

int gate_act(const struct quality_report *r, enum config_quality most,
             enum quality_outcome *outcome, char doubt[ERR_TEXT_MAX], struct err *e)
{
    static const enum quality_outcome may[] = {[CONFIG_QUALITY_PASS] = QUALITY_PASS,
                                               [CONFIG_QUALITY_MARK] = QUALITY_MARK,
                                               [CONFIG_QUALITY_REFUSE] = QUALITY_REFUSE};
    enum quality_outcome o = r->outcome < may[most] ? r->outcome : may[most];
    if (o == QUALITY_REFUSE)
        return err_set(e, ERR_REFUSED, "quality: %s", r->reason);
    if (o > *outcome) {
        *outcome = o;
        memcpy(doubt, r->reason, ERR_TEXT_MAX);
    }
    return 0;
}
