/* program_weights.c - see program_weights.h */
#include "cuda/program_weights.h"

#include <stdlib.h>

#include "node/base/err.h"

int weights_load(struct build *b, const struct node *n, bool transposed, struct weight_source *s)
{
    const struct value *v = &b->g->value[n->in[1]];
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    int64_t count = shape_count(&v->shape);
    *s = (struct weight_source){.m = ys->dim[1],
                                .c = xs->dim[1],
                                .kernel = {n->conv.kernel[0], n->conv.kernel[1]},
                                .stride = {1, 1},
                                .lanes = build_round8(ys->dim[1]),
                                .transposed = transposed};
    if (!v->constant)
        return build_fail(b, "its weights are computed");
    s->w = malloc(sizeof *s->w * (size_t)(count + 1));
    if (!s->w)
        return err_set(b->e, ERR_NOMEM, "no memory for weights");
    int rc = constant_load_f32(v, 0, count, s->w, b->e);
    if (rc != 0) {
        free(s->w);
        s->w = NULL;
    }
    return rc;
}

static int64_t phases_of(const struct weight_source *s)
{
    return s->stride[0] * s->stride[1];
}

/* The output channel of ONNX that channel k is (of its phase), -1: none. */
static int64_t channel_of(const struct weight_source *s, int64_t k)
{
    int64_t phase = k / s->lanes, lane = k % s->lanes;
    if (s->transposed)
        return phase < phases_of(s) && lane < s->m ? lane : -1;
    int64_t channels = s->m / phases_of(s);
    if (phase >= phases_of(s) || lane >= channels)
        return -1;
    return s->crd ? lane * phases_of(s) + phase : phase * channels + lane;
}

/* Transposed: tap i of the convolution reads input row q - (taps - 1) + i, which meets kernel row
 * phase + stride·(taps - 1 - i). */
static float transposed_at(const struct weight_source *s, int64_t k, int64_t i, int64_t j,
                           int64_t c)
{
    int64_t m = channel_of(s, k), phase = k / s->lanes;
    int64_t taps_y = (s->kernel[0] + s->stride[0] - 1) / s->stride[0];
    int64_t taps_x = (s->kernel[1] + s->stride[1] - 1) / s->stride[1];
    int64_t y = phase / s->stride[1] + s->stride[0] * (taps_y - 1 - i);
    int64_t x = phase % s->stride[1] + s->stride[1] * (taps_x - 1 - j);
    if (m < 0 || c >= s->c || y >= s->kernel[0] || x >= s->kernel[1])
        return 0;
    return s->w[((c * s->m + m) * s->kernel[0] + y) * s->kernel[1] + x];
}

static float weight_at(const struct weight_source *s, int64_t k, int64_t i, int64_t j, int64_t c)
{
    if (s->transposed)
        return transposed_at(s, k, i, j, c);
    if (s->fold != FOLD_NONE) {
        int64_t tap = c / s->c;
        c %= s->c;
        j = tap % s->kernel[1];
        if (s->fold == FOLD_ALL)
            i = tap / s->kernel[1];
        if (i >= s->kernel[0] || (s->fold == FOLD_ROW && tap >= s->kernel[1]))
            return 0;
    }
    if (s->row) {
        j = k / s->m;
        k %= s->m;
        if (j >= s->kernel[1])
            return 0;
    } else {
        k = channel_of(s, k);
    }
    if (k < 0 || c >= s->c)
        return 0;
    return s->w[((k * s->c + c) * s->kernel[0] + i) * s->kernel[1] + j];
}

int weights_store(struct build *b, const struct weight_source *s,
                  const struct convolution_spec *spec, struct place *out)
{
    int64_t count = spec->k * spec->kernel[0] * spec->kernel[1] * spec->c, at = 0, offset = 0;
    void *image = malloc((size_t)count * (size_t)build_element_bytes(b));
    if (!image)
        return err_set(b->e, ERR_NOMEM, "no memory for weights");
    struct kernel_array to = {image, b->half};
    for (int64_t k = 0; k < spec->k; k++)
        for (int64_t i = 0; i < spec->kernel[0]; i++)
            for (int64_t j = 0; j < spec->kernel[1]; j++)
                for (int64_t c = 0; c < spec->c; c++)
                    store(to, at++, weight_at(s, k, i, j, c));
    int rc = build_weights(b, image, count * build_element_bytes(b), &offset);
    free(image);
    *out = (struct place){REGION_WEIGHTS, offset};
    return rc;
}

int weights_table(struct build *b, const struct weight_source *s, int value, int64_t k,
                  bool elements, struct place *out)
{
    bool half = elements && b->half;
    float *plain = malloc(sizeof *plain * (size_t)(s->m + 1));
    float *table = calloc((size_t)k, sizeof *table);
    int64_t offset = 0;
    int rc = plain && table ? constant_load_f32(&b->g->value[value], 0, s->m, plain, b->e)
                            : err_set(b->e, ERR_NOMEM, "no memory for a table");
    struct kernel_array to = {table, half}; /* halfs: in place, element i behind what is read */
    for (int64_t i = 0; rc == 0 && i < k; i++) {
        int64_t channel = channel_of(s, i);
        store(to, i, channel >= 0 ? plain[channel] : 0);
    }
    if (rc == 0)
        rc = build_weights(b, table, k * (half ? 2 : 4), &offset);
    free(plain);
    free(table);
    *out = (struct place){REGION_WEIGHTS, offset};
    return rc;
}
