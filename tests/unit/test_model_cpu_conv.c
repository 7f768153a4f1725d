/* Convolutions of the CPU engine against plain loops in double, on every instruction set that this
 * machine has, in every way that a layer has, into a slice of a wider tensor. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/cpu_conv.h"
#include "node/base/pool.h"
#include "node/base/err.h"

#define TOLERANCE 2e-6 /* relative L2 */
/* Where a result of few numbers cancels out: of the L2 of the sums of absolute values. */
#define CANCELLED 2e-7
#define GUARD     -77.0f

static uint32_t seed = 1;
static float noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}
static int pick(int lo, int hi)
{
    seed = seed * 1664525u + 1013904223u;
    return lo + (int)((seed >> 10) % (uint32_t)(hi - lo + 1));
}

static float *floats(size_t n)
{
    float *p = aligned_alloc(64, ((n + 64) * sizeof(float) + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

static int load(const void *ctx, int64_t first, int64_t n, float *to, struct err *e)
{
    (void)e;
    memcpy(to, (const float *)ctx + first, (size_t)n * sizeof *to);
    return 0;
}

static void pack(struct cpu_conv *conv, const float *w, const float *bias, float *packed,
                 struct pool *pool)
{
    const struct cpu_weights weights = {load, w};
    struct err e;
    float *spare = floats(cpu_conv_pack_floats(conv));
    assert_int_equal(cpu_conv_pack(conv, &weights, bias, packed, spare, pool, &e), 0);
    free(spare);
}

struct tensor {
    float *base;
    size_t floats;
    struct cpu_view v;
};

/* A view of c channels inside pixels of c + 5, starting at channel 2. */
static struct tensor tensor_new(int n, int h, int w, int c, bool random)
{
    struct tensor t = {0};
    int pixel = c + 5;
    t.floats = (size_t)n * (size_t)(h * w * pixel + 32);
    t.base = floats(t.floats);
    for (size_t i = 0; i < t.floats; i++)
        t.base[i] = GUARD;
    t.v = (struct cpu_view){.data = t.base + 2,
                            .n = n,
                            .h = h,
                            .w = w,
                            .c = c,
                            .image = (ptrdiff_t)h * w * pixel + 32,
                            .row = (ptrdiff_t)w * pixel,
                            .pixel = pixel};
    for (int b = 0; b < n && random; b++)
        for (int i = 0; i < h * w; i++)
            for (int k = 0; k < c; k++)
                t.v.data[b * t.v.image + i * t.v.pixel + k] = noise();
    return t;
}

static float *at(const struct cpu_view *v, int n, int y, int x)
{
    return v->data + n * v->image + y * v->row + x * v->pixel;
}

static double act_of(const struct cpu_act *a, double x)
{
    switch (a->kind) {
    case CPU_NONE:
        return x;
    case CPU_RELU:
        return x > 0 ? x : 0;
    case CPU_LEAKY:
        return x < 0 ? (double)a->a * x : x;
    case CPU_CLIP:
        return x < (double)a->a ? (double)a->a : x > (double)a->b ? (double)a->b : x;
    case CPU_TANH:
        return tanh(x);
    case CPU_SIGMOID:
        return 1 / (1 + exp(-x));
    }
    return x;
}

static int border_of(const struct cpu_conv_desc *d, int v, int size)
{
    if (v >= 0 && v < size)
        return v;
    if (d->border == CPU_ZERO)
        return -1;
    if (d->border == CPU_EDGE || size == 1)
        return v < 0 ? 0 : size - 1;
    while (v < 0 || v >= size)
        v = v < 0 ? -v : 2 * (size - 1) - v;
    return v;
}

static double *plain(const struct cpu_conv_desc *d, const struct cpu_view *in, const float *w,
                     const float *bias, const struct cpu_view *residual, double *magnitude)
{
    size_t count = (size_t)d->n * (size_t)d->oh * (size_t)d->ow * (size_t)d->oc;
    double *y = calloc(count, sizeof *y), *size = calloc(count, sizeof *size);
    int cg = d->c / d->group, og = d->oc / d->group;
    /* value and magnitude of one product */
#define TERM(n, oy, ox, o, v)                                                                      \
    do {                                                                                           \
        double term = (v);                                                                         \
        Y(n, oy, ox, o) += term;                                                                   \
        size[&Y(n, oy, ox, o) - y] += fabs(term);                                                  \
    } while (0)
#define Y(n, oy, ox, o) y[((((size_t)(n)*d->oh + (oy)) * d->ow) + (ox)) * d->oc + (o)]
    for (int n = 0; n < d->n; n++)
        for (int o = 0; o < d->oc; o++)
            for (int c = 0; c < cg; c++)
                for (int i = 0; i < d->kernel[0]; i++)
                    for (int j = 0; j < d->kernel[1]; j++) {
                        int g = o / og, ci = g * cg + c;
                        if (d->transposed) {
                            double k =
                                w[(((size_t)ci * og + o % og) * d->kernel[0] + i) * d->kernel[1] +
                                  j];
                            for (int a = 0; a < d->h; a++)
                                for (int b = 0; b < d->w; b++) {
                                    int oy = a * d->stride[0] - d->pad[0] + i * d->dilation[0];
                                    int ox = b * d->stride[1] - d->pad[1] + j * d->dilation[1];
                                    if (oy >= 0 && oy < d->oh && ox >= 0 && ox < d->ow)
                                        TERM(n, oy, ox, o,
                                             k * act_of(&d->in_act, at(in, n, a, b)[ci]));
                                }
                            continue;
                        }
                        double k = w[(((size_t)o * cg + c) * d->kernel[0] + i) * d->kernel[1] + j];
                        for (int oy = 0; oy < d->oh; oy++)
                            for (int ox = 0; ox < d->ow; ox++) {
                                int a = oy * d->stride[0] - d->pad[0] + i * d->dilation[0];
                                int b = ox * d->stride[1] - d->pad[1] + j * d->dilation[1];
                                a = border_of(d, a, d->h * d->up[0]);
                                b = border_of(d, b, d->w * d->up[1]);
                                if (a >= 0 && b >= 0)
                                    TERM(n, oy, ox, o,
                                         k * act_of(&d->in_act,
                                                    at(in, n, a / d->up[0], b / d->up[1])[ci]));
                            }
                    }
    for (int n = 0; n < d->n; n++)
        for (int oy = 0; oy < d->oh; oy++)
            for (int ox = 0; ox < d->ow; ox++)
                for (int o = 0; o < d->oc; o++) {
                    double *p = &Y(n, oy, ox, o);
                    *p += bias ? (double)bias[o] : 0;
                    *p += residual ? (double)at(residual, n, oy, ox)[o] : 0;
                    *p = act_of(&d->out_act, *p);
                }
    *magnitude = 0;
    for (size_t i = 0; i < count; i++)
        *magnitude += size[i] * size[i];
    *magnitude = sqrt(*magnitude);
    free(size);
    return y;
}

/* Where output channel o of pixel (y, x) lies. */
static float *out_at(const struct cpu_conv_desc *d, const struct cpu_view *v, int n, int y, int x,
                     int o)
{
    if (!d->shuffle)
        return &at(v, n, y, x)[o];
    int channels = d->oc / 4, phase = d->shuffle == CPU_CRD ? o % 4 : o / channels;
    return &at(v, n, 2 * y + phase / 2,
               2 * x + phase % 2)[d->shuffle == CPU_CRD ? o / 4 : o % channels];
}

/* Runs one layer and compares it; also that nothing outside the slice was touched and that the
 * threads make no difference, nor that one of them does it all. Returns false if the layer has not
 * that way. */
static bool check(const struct cpu_conv_desc *d, const char *isa, enum cpu_way way, bool with_bias,
                  bool with_residual)
{
    const struct cpu_kernels *k;
    struct err e;
    assert_int_equal(cpu_kernels_pick(isa, &k, &e), 0);
    struct cpu_conv *conv = NULL;
    if (cpu_conv_new(&conv, d, k, 1, &way, &e) == ERR_UNSUPPORTED)
        return false;
    cpu_conv_free(conv);
    size_t count =
        (size_t)(d->c / d->group) * (size_t)d->oc * (size_t)d->kernel[0] * (size_t)d->kernel[1];
    float *w = floats(count), *bias = floats((size_t)d->oc);
    for (size_t i = 0; i < count; i++)
        w[i] = noise();
    for (int i = 0; i < d->oc; i++)
        bias[i] = noise();
    struct tensor in = tensor_new(d->n, d->h, d->w, d->c, true);
    struct tensor res = tensor_new(d->n, d->oh, d->ow, d->oc, true);
    const struct cpu_view *residual = with_residual ? &res.v : NULL;
    double magnitude;
    double *want = plain(d, &in.v, w, with_bias ? bias : NULL, residual, &magnitude);
    struct tensor got[3];
    for (int run = 0; run < 3; run++) {
        int threads = run == 1 ? 3 : 1;
        struct cpu_conv_desc cut = *d;
        struct pool *pool;
        assert_int_equal(pool_new(&pool, threads, false, &e), 0);
        cut.alone = run == 2;
        int grow = d->shuffle ? 2 : 1;
        got[run] = tensor_new(d->n, d->oh * grow, d->ow * grow, d->oc / grow / grow, false);
        assert_int_equal(cpu_conv_new(&conv, &cut, k, run == 0 ? 1 : 3, &way, &e), 0);
        assert_int_equal(cpu_conv_way(conv), way);
        float *packed = floats(cpu_conv_packed_floats(conv));
        size_t scratch = run == 2 ? cpu_conv_alone_floats(conv) : cpu_conv_thread_floats(conv);
        scratch = (scratch + 15) / 16 * 16;
        float *work = floats(scratch * (size_t)threads),
              *shared = floats(cpu_conv_shared_floats(conv));
        memset(work, 0xff, scratch * (size_t)threads * sizeof *work); /* NaN: must not be read */
        pack(conv, w, with_bias ? bias : NULL, packed, pool);
        cpu_conv_run(conv, &in.v, &got[run].v, residual, run == 2 ? NULL : pool, work, shared);
        cpu_conv_free(conv);
        free(packed);
        free(work);
        free(shared);
        pool_free(pool);
    }
    for (int run = 1; run < 3; run++)
        assert_memory_equal(got[0].base, got[run].base, got[0].floats * sizeof(float));
    double error = 0, size = 0;
    for (int n = 0; n < d->n; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++)
                for (int o = 0; o < d->oc; o++) {
                    float *p = out_at(d, &got[0].v, n, y, x, o);
                    double t = want[(((size_t)n * d->oh + y) * d->ow + x) * d->oc + o];
                    error += ((double)*p - t) * ((double)*p - t);
                    size += t * t;
                    *p = GUARD;
                }
    if (!(sqrt(error) <= TOLERANCE * sqrt(size) + CANCELLED * magnitude))
        fail_msg("%s way %d: k %dx%d s %dx%d d %dx%d p %d,%d g %d t %d up %d border %d act %d,%d: "
                 "%dx%dx%dx%d to %dx%dx%d: error %g",
                 isa, way, d->kernel[0], d->kernel[1], d->stride[0], d->stride[1], d->dilation[0],
                 d->dilation[1], d->pad[0], d->pad[1], d->group, d->transposed, d->up[0], d->border,
                 d->in_act.kind, d->out_act.kind, d->n, d->c, d->h, d->w, d->oc, d->oh, d->ow,
                 sqrt(error / size));
    for (size_t i = 0; i < got[0].floats; i++)
        assert_true(got[0].base[i] == GUARD);
    free(want);
    free(w);
    free(bias);
    free(in.base);
    free(res.base);
    for (int run = 0; run < 3; run++)
        free(got[run].base);
    return true;
}

static const char *isas[] = {"avx512", "avx2", "base"};

static int check_everywhere(const struct cpu_conv_desc *d, bool bias, bool residual)
{
    int runs = 0;
    for (int i = 0; i < 3; i++) {
        const struct cpu_kernels *k;
        if (cpu_kernels_pick(isas[i], &k, NULL) != 0)
            continue;
        for (enum cpu_way way = CPU_DIRECT; way <= CPU_DEPTHWISE; way++)
            runs += check(d, isas[i], way, bias, residual);
    }
    return runs;
}

static struct cpu_conv_desc layer(int n, int c, int h, int w, int oc, int k, int s, int p)
{
    struct cpu_conv_desc d = {.n = n,
                              .h = h,
                              .w = w,
                              .c = c,
                              .oc = oc,
                              .kernel = {k, k},
                              .stride = {s, s},
                              .dilation = {1, 1},
                              .pad = {p, p},
                              .group = 1,
                              .up = {1, 1}};
    d.oh = (h + 2 * p - k) / s + 1;
    d.ow = (w + 2 * p - k) / s + 1;
    return d;
}

static struct cpu_conv_desc transposed(int n, int c, int h, int w, int oc, int k, int s, int p)
{
    struct cpu_conv_desc d = layer(n, c, h, w, oc, k, s, p);
    d.transposed = true;
    d.oh = (h - 1) * s - 2 * p + k;
    d.ow = (w - 1) * s - 2 * p + k;
    return d;
}

static void conv__agrees_with_plain_loops_for_the_unet_layers(void **state)
{
    (void)state;
    for (int size = 2; size <= 32; size *= 2)
        for (int c = 1; c <= 300; c = c * 4 + 3) {
            struct cpu_conv_desc d = layer(1, c, size, size, size > 8 ? 20 : 70, 4, 2, 1);
            d.out_act = (struct cpu_act){CPU_LEAKY, 0.2f, 0};
            assert_true(check_everywhere(&d, true, false) >= 2);
            d = transposed(1, c, size / 2, size / 2, size > 8 ? 20 : 70, 4, 2, 1);
            d.in_act = (struct cpu_act){CPU_RELU, 0, 0};
            assert_true(check_everywhere(&d, true, false) >= 2);
            d = layer(1, c, size, size, 20, 3, 2, 1); /* of other generators */
            assert_true(check_everywhere(&d, true, false) >= 2);
            d = transposed(1, c, size / 2, size / 2, 20, 3, 2, 1);
            assert_true(check_everywhere(&d, true, false) >= 2);
        }
}

/* Their weights are packed whole kernels at a time, whatever the number of inputs. */
static void conv__agrees_with_plain_loops_where_outputs_fill_whole_panels(void **state)
{
    (void)state;
    for (int c = 1; c <= 300; c = c * 4 + 3)
        for (int oc = 32; oc <= 96; oc += 64)
            for (int size = 1; size <= 7; size += 3) {
                struct cpu_conv_desc d = layer(1, c, 2 * size, 2 * size + 2, oc, 4, 2, 1);
                assert_true(check_everywhere(&d, true, false) >= 2);
                d = transposed(1, c, size, size + 1, oc, 4, 2, 1);
                assert_true(check_everywhere(&d, true, false) >= 2);
                d = transposed(1, c, size, size + 1, oc, 3, 2, 1);
                assert_true(check_everywhere(&d, true, false) >= 4);
                d = layer(1, c, 2 * size, 2 * size + 2, oc, 3, 2, 1);
                assert_true(check_everywhere(&d, true, false) >= 4);
                for (int k = 1; k <= 3; k++) {
                    d = layer(1, c, size + 2, size + 3, oc, k, 1, k / 2);
                    assert_true(check_everywhere(&d, true, false) >= 1);
                }
                d.kernel[1] = 2;
                assert_true(check_everywhere(&d, true, false) >= 1);
            }
}

static void conv__agrees_with_plain_loops_for_image_outputs_and_inputs(void **state)
{
    (void)state;
    for (int oc = 1; oc <= 4; oc += 3) {
        struct cpu_conv_desc d = layer(2, 33, 14, 19, oc, 7, 1, 0);
        d.border = CPU_REFLECT;
        d.pad[0] = d.pad[1] = 3;
        d.oh = 14;
        d.ow = 19;
        d.out_act.kind = CPU_TANH;
        assert_true(check_everywhere(&d, true, false) >= 2);
        d = layer(2, 3, 14, 19, 40, 7, 1, 3);
        d.in_act = (struct cpu_act){CPU_CLIP, 0.25f, 0.5f};
        assert_true(check_everywhere(&d, true, true) >= 1);
        d = transposed(1, 64, 9, 9, oc, 4, 2, 1);
        d.out_act.kind = CPU_SIGMOID;
        assert_true(check_everywhere(&d, true, false) >= 2);
    }
}

static void conv__agrees_with_plain_loops_for_deep_and_wide_layers(void **state)
{
    (void)state;
    struct cpu_conv_desc d = layer(1, 600, 6, 6, 200, 3, 1, 1);
    d.out_act.kind = CPU_RELU;
    assert_true(check_everywhere(&d, true, true) >= 2);
    d = layer(1, 40, 45, 47, 33, 3, 1, 1);
    assert_true(check_everywhere(&d, true, false) >= 2);
    d = transposed(3, 96, 11, 13, 17, 4, 2, 1);
    assert_true(check_everywhere(&d, false, true) >= 2);
    d = layer(1, 520, 9, 9, 130, 1, 1, 0);
    assert_true(check_everywhere(&d, true, false) >= 1);
}

static void conv__agrees_with_plain_loops_for_groups(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        bool up = i % 3 == 2;
        int k = pick(1, 5), s = pick(1, 3), size = pick(1, 17), channels = pick(1, 70);
        struct cpu_conv_desc d =
            up ? transposed(pick(1, 2), channels, size, size, channels, k, s, k / 2)
               : layer(pick(1, 2), channels, size, size + 3, channels, k, s, k / 2);
        if (d.oh < 1 || d.ow < 1)
            continue;
        d.group = channels;
        d.in_act = (struct cpu_act){CPU_CLIP, 0.25f, 0.5f}; /* zeros of padding stay zeros */
        d.out_act = (struct cpu_act){CPU_LEAKY, 0.2f, 0};
        assert_true(check_everywhere(&d, true, true) >= (channels > 1 ? 2 : 1));
        int inputs = pick(1, 5), outputs = pick(1, 5);
        d.group = pick(2, 40);
        d.c = d.group * inputs;
        d.oc = d.group * outputs;
        assert_true(check_everywhere(&d, true, false) >= 1);
    }
    /* more taps than are summed at once */
    struct cpu_conv_desc d = layer(1, 33, 12, 14, 33, 11, 1, 5);
    d.group = 33;
    assert_true(check_everywhere(&d, true, false) >= 2);
}

static void conv__writes_a_pixel_shuffle_where_it_belongs(void **state)
{
    (void)state;
    for (int c = 4; c <= 140; c += 68)
        for (int k = 1; k <= 4; k++) {
            struct cpu_conv_desc d = layer(2, 9, 11, 7, c, k, 1, k / 2);
            d.out_act = (struct cpu_act){CPU_RELU, 0, 0};
            for (d.shuffle = CPU_DCR; d.shuffle <= CPU_CRD; d.shuffle++)
                assert_true(check_everywhere(&d, true, false) >= 1);
        }
}

static void conv__agrees_with_plain_loops_for_random_shapes(void **state)
{
    (void)state;
    int ways = 0;
    for (int i = 0; i < 400; i++) {
        struct cpu_conv_desc d = {.n = pick(1, 3), .h = pick(1, 14), .w = pick(1, 14)};
        d.group = pick(0, 3) == 0 ? pick(2, 3) : 1;
        d.c = d.group * pick(1, pick(1, 40));
        d.oc = d.group * pick(1, pick(1, 40));
        d.transposed = pick(0, 2) == 0;
        d.border = d.transposed ? CPU_ZERO : (enum cpu_border)pick(0, 2);
        int k = pick(1, 5);
        for (int a = 0; a < 2; a++) {
            d.kernel[a] = pick(0, 2) ? k : pick(1, 7);
            d.stride[a] = pick(0, 1) ? pick(1, 3) : 1;
            d.dilation[a] = pick(0, 3) ? 1 : pick(1, 3);
            d.pad[a] = pick(d.transposed ? -1 : 0, d.kernel[a]);
            d.up[a] = d.transposed || pick(0, 3) ? 1 : 2;
            int size = a == 0 ? d.h : d.w, reach = (d.kernel[a] - 1) * d.dilation[a] + 1;
            int out = d.transposed
                          ? (size - 1) * d.stride[a] + reach - d.pad[a] - pick(0, 2) + pick(0, 1)
                          : (size * d.up[a] + d.pad[a] + pick(0, 3) - reach) / d.stride[a] + 1;
            if (out < 1)
                out = 1;
            *(a == 0 ? &d.oh : &d.ow) = out;
        }
        d.in_act.kind = (enum cpu_act_kind)pick(0, 2);
        d.out_act.kind = (enum cpu_act_kind)pick(0, 5);
        d.in_act.a = d.out_act.a = pick(0, 1) ? 0.2f : -1.5f;
        d.out_act.b = 0.5f;
        if (d.out_act.kind == CPU_CLIP)
            d.out_act.a = -0.5f;
        ways += check_everywhere(&d, pick(0, 1), pick(0, 1));
    }
    assert_true(ways > 500);
}

static void conv__gives_an_image_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    struct cpu_conv_desc layers[] = {
        layer(1, 70, 20, 20, 33, 4, 2, 1), transposed(1, 70, 9, 9, 33, 4, 2, 1),
        layer(1, 40, 13, 13, 20, 3, 1, 1), layer(1, 30, 13, 13, 3, 7, 1, 3),
        layer(1, 300, 3, 3, 40, 3, 2, 1),  layer(1, 37, 13, 13, 37, 3, 1, 1)};
    layers[5].group = 37;
    for (size_t l = 0; l < sizeof layers / sizeof *layers; l++)
        for (int s = 0; s < 3; s++) {
            struct cpu_conv_desc d = layers[l];
            const struct cpu_kernels *k;
            if (cpu_kernels_pick(isas[s], &k, NULL) != 0)
                continue;
            size_t count = (size_t)d.c * (size_t)d.oc * (size_t)(d.kernel[0] * d.kernel[1]);
            float *w = floats(count);
            for (size_t i = 0; i < count; i++)
                w[i] = noise();
            struct tensor in = tensor_new(5, d.h, d.w, d.c, true);
            struct tensor out = tensor_new(5, d.oh, d.ow, d.oc, false);
            struct tensor one = tensor_new(5, d.oh, d.ow, d.oc, false);
            for (int batch = 5; batch >= 1; batch -= 4) {
                d.n = batch;
                struct cpu_conv *conv;
                assert_int_equal(cpu_conv_new(&conv, &d, k, 2, NULL, NULL), 0);
                float *packed = floats(cpu_conv_packed_floats(conv));
                float *work = floats(2 * cpu_conv_thread_floats(conv) + 32);
                float *shared = floats(cpu_conv_shared_floats(conv));
                pack(conv, w, NULL, packed, NULL);
                for (int n = 0; n < 5; n += batch) {
                    struct cpu_view from = in.v, to = batch == 5 ? out.v : one.v;
                    from.data += n * from.image;
                    to.data += n * to.image;
                    cpu_conv_run(conv, &from, &to, NULL, NULL, work, shared);
                }
                cpu_conv_free(conv);
                free(packed);
                free(work);
                free(shared);
            }
            assert_memory_equal(out.base, one.base, out.floats * sizeof(float));
            free(w);
            free(in.base);
            free(out.base);
            free(one.base);
        }
}

/* ---- what is brought to the cache ---- */

static struct {
    const struct cpu_kernels *real;
    const struct tensor *of[3]; /* input, output, residual */
    char *seen[3];              /* [floats] asked for */
    int strange;                /* hints that lie in none of them */
} hints;

static void gemm_and_listen(const float *a, const float *b, int width, float *c, size_t ldc, int m,
                            int k, int add, const float *then, struct cpu_hint also)
{
    bool known = also.bytes == 0;
    for (int i = 0; i < 3; i++) {
        const float *at = also.at, *base = hints.of[i]->base;
        size_t n = also.bytes / sizeof *at;
        if (also.bytes == 0 || at < base || at + n > base + hints.of[i]->floats)
            continue;
        memset(hints.seen[i] + (at - base), 1, n);
        known = true;
    }
    hints.strange += !known;
    hints.real->gemm(a, b, width, c, ldc, m, k, add, then, also);
}

/* The part of a tensor's numbers that was asked for. */
static double part_seen(int which)
{
    const struct tensor *t = hints.of[which];
    double all = 0, seen = 0;
    for (int n = 0; n < t->v.n; n++)
        for (int y = 0; y < t->v.h; y++)
            for (int x = 0; x < t->v.w; x++)
                for (int c = 0; c < t->v.c; c++) {
                    seen += hints.seen[which][at(&t->v, n, y, x) + c - t->base];
                    all++;
                }
    return seen / all;
}

/* A Winograd layer asks, while it multiplies, for all places of its results and of what is added to
 * them, and for what each task but the first reads; for nothing else. */
static void conv__brings_what_is_written_and_what_is_read_next(void **state)
{
    (void)state;
    struct cpu_conv_desc layers[] = {layer(2, 16, 60, 64, 32, 3, 1, 1),
                                     layer(1, 16, 130, 120, 16, 4, 2, 1),
                                     transposed(1, 16, 60, 60, 16, 4, 2, 1)};
    for (size_t l = 0; l < sizeof layers / sizeof *layers; l++)
        for (enum cpu_way way = CPU_WINOGRAD4; way <= CPU_WINOGRAD6; way++) {
            const struct cpu_conv_desc *d = &layers[l];
            struct cpu_kernels listening;
            struct cpu_conv *conv;
            assert_int_equal(cpu_kernels_pick("base", &hints.real, NULL), 0);
            listening = *hints.real;
            listening.gemm = gemm_and_listen;
            struct tensor t[3] = {tensor_new(d->n, d->h, d->w, d->c, true),
                                  tensor_new(d->n, d->oh, d->ow, d->oc, false),
                                  tensor_new(d->n, d->oh, d->ow, d->oc, true)};
            for (int i = 0; i < 3; i++) {
                hints.of[i] = &t[i];
                hints.seen[i] = calloc(t[i].floats, 1);
                assert_non_null(hints.seen[i]);
            }
            hints.strange = 0;
            size_t count = (size_t)d->c * (size_t)d->oc * (size_t)(d->kernel[0] * d->kernel[1]);
            float *w = floats(count);
            memset(w, 0, count * sizeof *w);
            assert_int_equal(cpu_conv_new(&conv, d, &listening, 1, &way, NULL), 0);
            float *packed = floats(cpu_conv_packed_floats(conv));
            float *work = floats(cpu_conv_thread_floats(conv) + 32);
            float *shared = floats(cpu_conv_shared_floats(conv));
            pack(conv, w, NULL, packed, NULL);
            cpu_conv_run(conv, &t[0].v, &t[1].v, &t[2].v, NULL, work, shared);
            assert_int_equal(hints.strange, 0);
            assert_true(part_seen(1) == 1 && part_seen(2) == 1);
            assert_true(part_seen(0) > 0.7 && part_seen(0) < 1);
            cpu_conv_free(conv);
            free(w);
            free(packed);
            free(work);
            free(shared);
            for (int i = 0; i < 3; i++) {
                free(hints.seen[i]);
                free(t[i].base);
            }
        }
}

/* Larger tiles save cycles and take more memory, which a layer may not do by itself. */
static void conv__tells_which_ways_are_faster_and_larger(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct cpu_kernels *k;
        struct cpu_other_way to[CPU_OTHER_WAYS];
        struct cpu_conv *conv;
        struct err e;
        if (cpu_kernels_pick(isas[i], &k, NULL) != 0)
            continue;
        struct cpu_conv_desc d = layer(1, 64, 128, 128, 64, 3, 1, 1);
        assert_int_equal(cpu_conv_new(&conv, &d, k, 1, NULL, &e), 0);
        assert_int_equal(cpu_conv_way(conv), CPU_WINOGRAD4);
        assert_int_equal(cpu_conv_weights(conv), 9 * 64 * 64);
        assert_int_equal(cpu_conv_faster(conv, to), 2);
        assert_int_equal(to[0].way, CPU_WINOGRAD5);
        assert_int_equal(to[1].way, CPU_WINOGRAD6);
        assert_true(to[0].cycles > 0 && to[1].cycles > to[0].cycles);
        size_t before = cpu_conv_packed_floats(conv);
        assert_int_equal(to[0].floats, (25 - 16) * 64 * 64);
        assert_int_equal(cpu_conv_change(&conv, CPU_WINOGRAD6, &e), 0);
        assert_int_equal(cpu_conv_way(conv), CPU_WINOGRAD6);
        assert_int_equal(cpu_conv_packed_floats(conv), before + to[1].floats);
        assert_int_equal(cpu_conv_faster(conv, to), 0);
        cpu_conv_free(conv);
        d.low_memory = true; /* what it takes by itself */
        d.c = d.oc = 256;
        assert_int_equal(cpu_conv_new(&conv, &d, k, 1, NULL, &e), 0);
        assert_int_equal(cpu_conv_way(conv), CPU_DIRECT);
        cpu_conv_free(conv);
        d = layer(1, 64, 128, 128, 64, 1, 1, 0); /* has no other way */
        assert_int_equal(cpu_conv_new(&conv, &d, k, 1, NULL, &e), 0);
        assert_int_equal(cpu_conv_faster(conv, to), 0);
        cpu_conv_free(conv);
    }
}

static void conv__refuses_sizes_that_do_not_fit(void **state)
{
    (void)state;
    const struct cpu_kernels *k;
    assert_int_equal(cpu_kernels_pick("base", &k, NULL), 0);
    struct cpu_conv_desc d = layer(1, 8, 8, 8, 8, 3, 1, 1);
    d.oc = 2000000000;
    struct cpu_conv *conv = NULL;
    struct err e;
    assert_int_equal(cpu_conv_new(&conv, &d, k, 1, NULL, &e), ERR_UNSUPPORTED);
    assert_null(conv);
    d = transposed(1, 8, 8, 8, 8, 9, 9, 0);
    assert_int_equal(cpu_conv_new(&conv, &d, k, 1, NULL, &e), ERR_UNSUPPORTED);
}

static int load_not(const void *ctx, int64_t first, int64_t n, float *to, struct err *e)
{
    memset(to, 0, (size_t)n * sizeof *to);
    const int64_t *bad = ctx;
    return *bad < first || *bad >= first + n ? 0 : err_set(e, ERR_NUMERIC, "no weights here");
}

static void pack__tells_of_weights_that_cannot_be_loaded(void **state)
{
    (void)state;
    const struct cpu_kernels *k;
    assert_int_equal(cpu_kernels_pick("base", &k, NULL), 0);
    /* whole kernels at a time, by Winograd and directly; and element by element */
    const struct cpu_conv_desc layers[] = {layer(1, 40, 40, 72, 32, 3, 1, 1),
                                           transposed(1, 2, 2, 72, 32, 4, 2, 1),
                                           layer(1, 8, 8, 3, 5, 3, 1, 1)};
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        struct pool *pool;
        struct cpu_conv *conv;
        assert_int_equal(pool_new(&pool, 3, false, &e), 0);
        assert_int_equal(cpu_conv_new(&conv, &layers[i], k, 3, NULL, &e), 0);
        float *packed = floats(cpu_conv_packed_floats(conv));
        float *spare = floats(cpu_conv_pack_floats(conv));
        assert_int_equal(cpu_conv_pack_floats(conv) == 0, i < 2);
        int64_t bad =
            (int64_t)layers[i].c * layers[i].oc * layers[i].kernel[0] * layers[i].kernel[1] - 1;
        const struct cpu_weights weights = {load_not, &bad};
        assert_int_equal(cpu_conv_pack(conv, &weights, NULL, packed, spare, pool, &e), ERR_NUMERIC);
        assert_string_equal(e.text, "no weights here");
        bad++;
        assert_int_equal(cpu_conv_pack(conv, &weights, NULL, packed, spare, pool, &e), 0);
        pool_free(pool);
        cpu_conv_free(conv);
        free(packed);
        free(spare);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pack__tells_of_weights_that_cannot_be_loaded),
        cmocka_unit_test(conv__agrees_with_plain_loops_for_the_unet_layers),
        cmocka_unit_test(conv__agrees_with_plain_loops_where_outputs_fill_whole_panels),
        cmocka_unit_test(conv__agrees_with_plain_loops_for_image_outputs_and_inputs),
        cmocka_unit_test(conv__agrees_with_plain_loops_for_deep_and_wide_layers),
        cmocka_unit_test(conv__agrees_with_plain_loops_for_groups),
        cmocka_unit_test(conv__writes_a_pixel_shuffle_where_it_belongs),
        cmocka_unit_test(conv__agrees_with_plain_loops_for_random_shapes),
        cmocka_unit_test(conv__gives_an_image_the_same_bits_in_any_batch),
        cmocka_unit_test(conv__brings_what_is_written_and_what_is_read_next),
        cmocka_unit_test(conv__tells_which_ways_are_faster_and_larger),
        cmocka_unit_test(conv__refuses_sizes_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
