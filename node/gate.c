/* gate.c - see gate.h */
#include "node/gate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

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

int gate_input(const struct gate *g, const struct quality_view *view, struct quality_report *r,
               float (*features)[QUALITY_FEATURES], int *n, struct err *e)
{
    float own[QUALITY_SLICES_MAX][QUALITY_FEATURES];
    int slice[QUALITY_SLICES_MAX], rc = 0;
    quality_begin(r, g->package->gate);
    quality_view(r, g->package->gate, view);
    if (features == NULL && g->package->gate == NULL)
        return 0;
    features = features != NULL ? features : own;
    int count = quality_slices(g->slices, slice);
    float *unit = malloc((size_t)plane_of(g) * sizeof *unit);
    if (unit == NULL)
        return err_set(e, ERR_NOMEM, "looking at the images: no memory");
    for (int i = 0; rc == 0 && i < count; i++) {
        quality_normalise(g->volume + slice[i] * plane_of(g), plane_of(g), g->low, g->high, unit);
        rc = quality_features(unit, g->rows, g->columns, features[i], e);
    }
    free(unit);
    if (rc == 0)
        quality_input(r, g->package->gate, features, count);
    if (n != NULL)
        *n = count;
    return rc;
}

/* One image on its way through a plan that may take several at once. */
struct single {
    const struct gate *g;
    const float *volume;
    int slices, slice;
    uint16_t *stored;
};

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    const struct single *s = ctx;
    (void)image;
    (void)e;
    prepare_input(s->g->prepare, s->volume, s->slices, s->slice, in[0]);
    return 0;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    const struct single *s = ctx;
    (void)image;
    return prepare_output(s->g->prepare, out[0], s->stored, e);
}

/* The model's answer for slice `slice` of `slices` at volume. */
static int answer(const struct gate *g, const float *volume, int slices, int slice,
                  uint16_t *stored, struct err *e)
{
    struct single one = {g, volume, slices, slice, stored};
    const struct engine_stack stack = {1, fill, take, &one};
    return engine_run_stack(g->plan, g->workspace, &stack, e);
}

int gate_run(const struct gate *g, int slice, uint16_t *stored, struct err *e)
{
    return answer(g, g->volume, g->slices, slice, stored, e);
}

void gate_unit(const struct gate *g, const uint16_t *stored, float *unit)
{
    double low = 0, high = PREPARE_VALUE_MAX;
    if (g->package->output == MODEL_OUTPUT_SOURCE) {
        low = (g->low - prepare_intercept(g->prepare)) / prepare_slope(g->prepare);
        high = (g->high - prepare_intercept(g->prepare)) / prepare_slope(g->prepare);
    }
    float factor = (float)(1 / (high - low));
    for (int64_t i = 0, n = result_of(g); i < n; i++) {
        float v = ((float)stored[i] - (float)low) * factor;
        unit[i] = v > 0 ? (v < 1 ? v : 1) : 0;
    }
}

int gate_second(const struct gate *g, int slice, enum quality_way way, float *unit, struct err *e)
{
    int context = g->package->input_slices, rc = 0;
    float *changed = malloc((size_t)plane_of(g) * (size_t)context * sizeof *changed);
    float *there = malloc((size_t)result_of(g) * sizeof *there);
    uint16_t *stored = malloc((size_t)result_of(g) * sizeof *stored);
    if (changed == NULL || there == NULL || stored == NULL)
        rc = err_set(e, ERR_NOMEM, "asking the model again: no memory");
    for (int i = 0; rc == 0 && i < context; i++) {
        int from = slice + i - context / 2;
        from = from < 0 ? 0 : from >= g->slices ? g->slices - 1 : from;
        quality_do(way, g->volume + from * plane_of(g), g->rows, g->columns,
                   changed + i * plane_of(g));
    }
    if (rc == 0)
        rc = answer(g, changed, context, context / 2, stored, e);
    if (rc == 0) {
        gate_unit(g, stored, there);
        quality_undo(way, there, prepare_rows(g->prepare), prepare_columns(g->prepare),
                     g->package->scale, unit);
    }
    free(changed);
    free(there);
    free(stored);
    return rc;
}

int gate_result(const struct gate *g, const uint16_t *stored, struct quality_report *r,
                struct err *e)
{
    int slice[QUALITY_SLICES_MAX], count = quality_slices(g->slices, slice), rc = 0;
    float *source = malloc((size_t)plane_of(g) * sizeof *source);
    float *result = malloc((size_t)result_of(g) * sizeof *result);
    float *second = malloc((size_t)result_of(g) * sizeof *second);
    if (source == NULL || result == NULL || second == NULL)
        rc = err_set(e, ERR_NOMEM, "looking at the result: no memory");
    for (int i = 0; rc == 0 && i < count; i++) {
        const struct quality_pair pair = {source, result, g->rows, g->columns, g->package->scale};
        quality_normalise(g->volume + slice[i] * plane_of(g), plane_of(g), g->low, g->high, source);
        gate_unit(g, stored + slice[i] * result_of(g), result);
        rc = quality_result(r, &pair, e);
        if (rc != 0 || i != count / 2)
            continue;
        rc = gate_second(g, slice[i], QUALITY_BOTH, second, e);
        if (rc == 0)
            quality_disagreement(r, result, second, prepare_rows(g->prepare),
                                 prepare_columns(g->prepare), g->package->scale);
    }
    if (rc == 0)
        quality_judge(r, g->package->gate);
    free(source);
    free(result);
    free(second);
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
