/* gate.c - see gate.h */
#include "node/gate.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

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

int gate_input(const struct gate *g, double height_mm, double width_mm, struct quality_report *r,
               float (*features)[QUALITY_FEATURES], int *n, struct err *e)
{
    float own[QUALITY_SLICES_MAX][QUALITY_FEATURES];
    int slice[QUALITY_SLICES_MAX], rc = 0;
    quality_begin(r, g->package->gate);
    quality_field(r, g->package->gate, height_mm, width_mm);
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

/* The model's answer for slice `slice` of `slices` at volume. */
static int answer(const struct gate *g, const float *volume, int slices, int slice,
                  uint16_t *stored, struct err *e)
{
    float *in = malloc((size_t)shape_count(prepare_input_shape(g->prepare)) * sizeof *in);
    float *out = malloc((size_t)shape_count(prepare_output_shape(g->prepare)) * sizeof *out);
    int rc = 0;
    if (in == NULL || out == NULL)
        rc = err_set(e, ERR_NOMEM, "running the model: no memory");
    if (rc == 0) {
        const float *inputs[] = {in};
        float *outputs[] = {out};
        prepare_input(g->prepare, volume, slices, slice, in);
        rc = engine_run(g->plan, g->workspace, inputs, outputs, e);
    }
    if (rc == 0)
        rc = prepare_output(g->prepare, out, stored, e);
    free(in);
    free(out);
    return rc;
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
