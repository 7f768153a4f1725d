/*
 * cpu_kernels.inc.h - the one source of the kernels; see cpu_kernels.h
 *
 * Compiled with LANES (floats of a vector), ROWS (rows of the micro-kernel), NAME and KERNELS (the
 * table's name) by cpu_avx512.c, cpu_avx2.c and cpu_base.c. ROWS × 2 accumulators, two vectors of
 * the panel and one broadcast fill the registers: 14 × 32 on AVX-512, 6 × 16 on AVX2.
 */
#include "model/cpu_vector.inc.h"
#include "model/cpu_winograd.inc.h"

/* Bytes that a hint brings. */
#define LINE 64

/* --- matrix product --------------------------------------------------------------------------- */

/* What a call brings: `share` bytes for each of its k steps. */
struct stream {
    const char *at;
    size_t share;
};

INLINE void micro(const int rows, const int width, const float *a, const float *b, float *c,
                  size_t ldc, int k, int add, struct stream then, struct stream also)
{
    vf sum[ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < width; j++)
            sum[i][j] = add ? load(c + (size_t)i * ldc + j * LANES) : all(0.0f);
    for (int p = 0; p < k; p++) {
        vf b0 = load(b), b1 = width == 2 ? load(b + LANES) : b0;
        __builtin_prefetch(then.at, 0, 2);
        __builtin_prefetch(also.at, 0, 3);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            vf x = all(a[i * CPU_LDA]);
            sum[i][0] += x * b0;
            if (width == 2)
                sum[i][1] += x * b1;
        }
        a++;
        b += width * LANES;
        then.at += then.share;
        also.at += also.share;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < width; j++)
            store(c + (size_t)i * ldc + j * LANES, sum[i][j]);
}

#define MICRO(rows, width)                                                                         \
    static __attribute__((noinline)) void micro_##rows##_##width(                                  \
        const float *a, const float *b, float *c, size_t ldc, int k, int add, struct stream then,  \
        struct stream also)                                                                        \
    {                                                                                              \
        micro(rows, width, a, b, c, ldc, k, add, then, also);                                      \
    }
#define MICRO_BOTH(rows) MICRO(rows, 1) MICRO(rows, 2)
MICRO_BOTH(1)
MICRO_BOTH(2)
MICRO_BOTH(3)
MICRO_BOTH(4)
MICRO_BOTH(5)
MICRO_BOTH(6)
#if ROWS == 14
MICRO_BOTH(7)
MICRO_BOTH(8)
MICRO_BOTH(9)
MICRO_BOTH(10)
MICRO_BOTH(11)
MICRO_BOTH(12)
MICRO_BOTH(13)
MICRO_BOTH(14)
#endif

typedef void micro_fn(const float *, const float *, float *, size_t, int, int, struct stream,
                      struct stream);
static micro_fn *const micro_of[2][ROWS] = {
#if ROWS == 14
    {micro_1_1, micro_2_1, micro_3_1, micro_4_1, micro_5_1, micro_6_1, micro_7_1, micro_8_1,
     micro_9_1, micro_10_1, micro_11_1, micro_12_1, micro_13_1, micro_14_1},
    {micro_1_2, micro_2_2, micro_3_2, micro_4_2, micro_5_2, micro_6_2, micro_7_2, micro_8_2,
     micro_9_2, micro_10_2, micro_11_2, micro_12_2, micro_13_2, micro_14_2},
#else
    {micro_1_1, micro_2_1, micro_3_1, micro_4_1, micro_5_1, micro_6_1},
    {micro_1_2, micro_2_2, micro_3_2, micro_4_2, micro_5_2, micro_6_2},
#endif
};

static void gemm(const float *a, const float *b, int width, float *c, size_t ldc, int m, int k,
                 int add, const float *then, struct cpu_hint also)
{
    /* Rows are shared out evenly: 36 rows are three times 12, not 14, 14 and 8. */
    int calls = (m + ROWS - 1) / ROWS;
    /* So is the next panel: fetched all at once by the first call, it would come no faster than
     * memory gives it, and the others would leave memory idle. */
    size_t steps = (size_t)k, share = (size_t)width * LANES * sizeof(float) / (size_t)calls;
    struct stream next = {(const void *)then, share};
    struct stream more = {also.at,
                          (also.bytes + steps * (size_t)calls - 1) / (steps * (size_t)calls)};
    if (also.bytes == 0 || share > LINE) /* then the panel needs both: a step brings two lines */
        more = (struct stream){next.at + share / 2, share};
    for (int i = 0; i < calls; i++) {
        int first = (int)((long)m * i / calls), rows = (int)((long)m * (i + 1) / calls) - first;
        micro_of[width - 1][rows - 1](a + (size_t)first * CPU_LDA, b, c + (size_t)first * ldc, ldc,
                                      k, add, next, more);
        next.at += steps * next.share;
        more.at += steps * more.share;
    }
}

/* --- one weight a channel -------------------------------------------------------------------- */

/* width vectors of channels; part: channels of a last vector that is not whole. */
INLINE void depthwise_vectors(const int width, const int pixels, int part, const float *const *from,
                              const int *tap, int taps, const float *w, size_t w_row, int c,
                              enum cpu_act_kind kind, vf a, vf b, float *y, size_t y_row)
{
    vf sum[CPU_DEPTH_PIXELS][2];
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++)
        for (int j = 0; j < width; j++)
            sum[p][j] = all(0.0f);
    for (int t = 0; t < taps; t++, from += pixels) {
        const float *row = w + (size_t)tap[t] * w_row + c;
        for (int j = 0; j < width; j++) {
            vf k = load(row + j * LANES);
#pragma GCC unroll 4
            for (int p = 0; p < pixels; p++) {
                const float *x = from[p] + c + j * LANES;
                sum[p][j] += k * activate(kind, part ? load_part(x, part) : load(x), a, b);
            }
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++)
        for (int j = 0; j < width; j++)
            store(y + (size_t)p * y_row + c + j * LANES, sum[p][j]);
}

INLINE void depthwise_of(const int pixels, const float *const *from, const int *tap, int taps,
                         const float *w, size_t w_row, int n, enum cpu_act_kind kind,
                         const struct cpu_act *act, float *y, size_t y_row)
{
    vf a = all(act->a), b = all(act->b);
    int c = 0;
    for (; c + 2 * LANES <= n; c += 2 * LANES)
        depthwise_vectors(2, pixels, 0, from, tap, taps, w, w_row, c, kind, a, b, y, y_row);
    for (; c + LANES <= n; c += LANES)
        depthwise_vectors(1, pixels, 0, from, tap, taps, w, w_row, c, kind, a, b, y, y_row);
    if (c < n)
        depthwise_vectors(1, pixels, n - c, from, tap, taps, w, w_row, c, kind, a, b, y, y_row);
}

static void depthwise(const float *const *from, const int *tap, int taps, int pixels,
                      const float *w, size_t w_row, int n, const struct cpu_act *act, float *y,
                      size_t y_row)
{
#define BODY(kind) depthwise_of(CPU_DEPTH_PIXELS, from, tap, taps, w, w_row, n, kind, act, y, y_row)
    if (pixels == CPU_DEPTH_PIXELS) {
        FOR_EACH_ACT(act->kind, BODY)
        return;
    }
#undef BODY
#define BODY(kind) depthwise_of(1, from, tap, taps, w, w_row, n, kind, act, y, y_row)
    FOR_EACH_ACT(act->kind, BODY)
#undef BODY
}

/* --- by element and by channel ---------------------------------------------------------------- */

/* Runs body(i, load, store) over n floats, the last ones through a part of a vector. */
#define FOR_VECTORS(n, BODY_FULL, BODY_PART)                                                       \
    do {                                                                                           \
        size_t i_ = 0, n_ = (size_t)(n);                                                           \
        for (; i_ + LANES <= n_; i_ += LANES)                                                      \
            BODY_FULL(i_);                                                                         \
        if (i_ < n_)                                                                               \
            BODY_PART(i_, (int)(n_ - i_));                                                         \
    } while (0)

INLINE void finish_of(const float *x, const float *bias, const float *residual, int n,
                      enum cpu_act_kind kind, const struct cpu_act *act, float *y)
{
    vf a = all(act->a), b = all(act->b);
#define FULL(i)                                                                                    \
    do {                                                                                           \
        vf t = load(x + i);                                                                        \
        if (bias)                                                                                  \
            t += load(bias + i);                                                                   \
        if (residual)                                                                              \
            t += load(residual + i);                                                               \
        store(y + i, activate(kind, t, a, b));                                                     \
    } while (0)
#define PART(i, r)                                                                                 \
    do {                                                                                           \
        vf t = load_part(x + i, r);                                                                \
        if (bias)                                                                                  \
            t += load_part(bias + i, r);                                                           \
        if (residual)                                                                              \
            t += load_part(residual + i, r);                                                       \
        store_part(y + i, activate(kind, t, a, b), r);                                             \
    } while (0)
    FOR_VECTORS(n, FULL, PART);
#undef FULL
#undef PART
}

static void finish(const float *x, const float *bias, const float *residual, int n,
                   const struct cpu_act *act, float *y)
{
#define BODY(kind) finish_of(x, bias, residual, n, kind, act, y)
    FOR_EACH_ACT(act->kind, BODY)
#undef BODY
}

static void copy(const float *x, int n, const struct cpu_act *act, float *y)
{
    if (act->kind == CPU_NONE)
        memmove(y, x, (size_t)n * sizeof *y);
    else
        finish(x, NULL, NULL, n, act, y);
}

INLINE void gather_of(const float *const *from, int count, int n, enum cpu_act_kind kind,
                      const struct cpu_act *act, float *y, ptrdiff_t step)
{
    vf a = all(act->a), b = all(act->b);
    for (int k = 0; k < count; k++, y += step) {
        const float *x = from[k];
        int i = 0;
        if (!x) {
            for (; i + LANES <= n; i += LANES)
                store(y + i, all(0.0f));
            if (i < n)
                store_part(y + i, all(0.0f), n - i);
            continue;
        }
        for (; i + LANES <= n; i += LANES)
            store(y + i, activate(kind, load(x + i), a, b));
        if (i < n)
            store_part(y + i, activate(kind, load_part(x + i, n - i), a, b), n - i);
    }
}

static void gather(const float *const *from, int count, int n, const struct cpu_act *act, float *y,
                   ptrdiff_t step){
#define BODY(kind) gather_of(from, count, n, kind, act, y, step)
    FOR_EACH_ACT(act->kind, BODY)
#undef BODY
}

INLINE void affine_of(const float *x, const float *mean, const float *scale, const float *shift,
                      const float *residual, int n, enum cpu_act_kind kind,
                      const struct cpu_act *act, float *y)
{
    vf a = all(act->a), b = all(act->b);
#define FULL(i)                                                                                    \
    do {                                                                                           \
        vf t = load(x + i);                                                                        \
        if (mean)                                                                                  \
            t -= load(mean + i);                                                                   \
        t = activate(kind, t * load(scale + i) + load(shift + i), a, b);                           \
        store(y + i, residual ? t + load(residual + i) : t);                                       \
    } while (0)
#define PART(i, r)                                                                                 \
    do {                                                                                           \
        vf t = load_part(x + i, r);                                                                \
        if (mean)                                                                                  \
            t -= load_part(mean + i, r);                                                           \
        t = activate(kind, t * load_part(scale + i, r) + load_part(shift + i, r), a, b);           \
        store_part(y + i, residual ? t + load_part(residual + i, r) : t, r);                       \
    } while (0)
    FOR_VECTORS(n, FULL, PART);
#undef FULL
#undef PART
}

static void affine(const float *x, const float *mean, const float *scale, const float *shift,
                   const float *residual, int n, const struct cpu_act *act, float *y)
{
#define BODY(kind) affine_of(x, mean, scale, shift, residual, n, kind, act, y)
    FOR_EACH_ACT(act->kind, BODY)
#undef BODY
}

static void add_to(const float *x, int n, float *sum)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        store(sum + i, load(sum + i) + load(x + i));
    for (; i < n; i++)
        sum[i] += x[i];
}

static void add_square_to(const float *x, const float *mean, int n, float *sum)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf d = load(x + i) - load(mean + i);
        store(sum + i, load(sum + i) + d * d);
    }
    for (; i < n; i++)
        sum[i] += (x[i] - mean[i]) * (x[i] - mean[i]);
}

/* Four at a time: there are few. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

INLINE void add_taps_of(const float *p, size_t row, int count, const int taps, size_t step,
                        const int n, float *to)
{
    for (int i = 0; i < count; i++, p += row, to += n)
        for (int o = 0; o < n; o += 4) {
            four sum = *(const four *)(p + o);
#pragma GCC unroll 9
            for (int t = 1; t < taps; t++)
                sum += *(const four *)(p + (size_t)t * step + o);
            *(four *)(to + o) = sum;
        }
}

static void add_taps(const float *p, size_t row, int count, int taps, size_t step, int n, float *to)
{
    if (taps == 3 && n == 3)
        add_taps_of(p, row, count, 3, step, 3, to);
    else if (taps == 7 && n == 3)
        add_taps_of(p, row, count, 7, step, 3, to);
    else
        add_taps_of(p, row, count, taps, step, n, to);
}

static void axpy(const float *x, float w, int n, float *y)
{
    vf s = all(w);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, load(y + i) + s * load(x + i));
    if (i < n)
        store_part(y + i, load_part(y + i, n - i) + s * load_part(x + i, n - i), n - i);
}

/* b, or a where that is NaN. */
INLINE vf unless_nan(vf a, vf b)
{
    vi number = a == a;
    return (vf)(((vi)b & number) | ((vi)a & ~number));
}

INLINE vf combine(enum cpu_binary op, vf a, vf b)
{
    switch (op) {
    case CPU_ADD:
        return a + b;
    case CPU_SUB:
        return a - b;
    case CPU_MUL:
        return a * b;
    case CPU_DIV:
        return a / b;
    case CPU_MAX:
        return unless_nan(a, maximum(a, b));
    case CPU_MIN:
        return unless_nan(a, minimum(a, b));
    case CPU_SLOPE:
        return below_zero(a, b * a);
    case CPU_POW:
        break;
    }
    return a;
}

INLINE void binary_of(enum cpu_binary op, const float *a, int a_step, const float *b, int b_step,
                      size_t n, float *y)
{
    vf a1 = all(*a), b1 = all(*b);
#define FULL(i) store(y + i, combine(op, a_step ? load(a + i) : a1, b_step ? load(b + i) : b1))
#define PART(i, r)                                                                                 \
    store_part(y + i,                                                                              \
               combine(op, a_step ? load_part(a + i, r) : a1, b_step ? load_part(b + i, r) : b1),  \
               r)
    FOR_VECTORS(n, FULL, PART);
#undef FULL
#undef PART
}

static void binary(enum cpu_binary op, const float *a, int a_step, const float *b, int b_step,
                   size_t n, const struct cpu_act *act, float *y)
{
    switch (op) {
    case CPU_ADD:
        binary_of(CPU_ADD, a, a_step, b, b_step, n, y);
        break;
    case CPU_SUB:
        binary_of(CPU_SUB, a, a_step, b, b_step, n, y);
        break;
    case CPU_MUL:
        binary_of(CPU_MUL, a, a_step, b, b_step, n, y);
        break;
    case CPU_DIV:
        binary_of(CPU_DIV, a, a_step, b, b_step, n, y);
        break;
    case CPU_MAX:
        binary_of(CPU_MAX, a, a_step, b, b_step, n, y);
        break;
    case CPU_MIN:
        binary_of(CPU_MIN, a, a_step, b, b_step, n, y);
        break;
    case CPU_SLOPE:
        binary_of(CPU_SLOPE, a, a_step, b, b_step, n, y);
        break;
    case CPU_POW:
        for (size_t i = 0; i < n; i++)
            y[i] = powf(a[i * (size_t)a_step], b[i * (size_t)b_step]);
        break;
    }
    if (act && act->kind != CPU_NONE)
        for (size_t i = 0; i < n; i += 1 << 20)
            finish(y + i, NULL, NULL, (int)(n - i < 1 << 20 ? n - i : 1 << 20), act, y + i);
}

static void unary(enum cpu_unary op, const float *x, size_t n, float *y)
{
    switch (op) {
    case CPU_ABS:
        for (size_t i = 0; i < n; i++)
            y[i] = fabsf(x[i]);
        break;
    case CPU_SQRT:
#define FULL(i)    store(y + i, root(load(x + i)))
#define PART(i, r) store_part(y + i, root(load_part(x + i, r)), r)
        FOR_VECTORS(n, FULL, PART);
#undef FULL
#undef PART
        break;
    case CPU_NEG:
        for (size_t i = 0; i < n; i++)
            y[i] = -x[i];
        break;
    case CPU_EXP: /* the library's: exact at the ends of the range too */
        for (size_t i = 0; i < n; i++)
            y[i] = expf(x[i]);
        break;
    }
}

/* --- layouts ---------------------------------------------------------------------------------- */

#define BAND 64 /* pixels that are turned at a time, so that both sides stay in the cache */

static void to_planes(const float *x, ptrdiff_t pixel, int pixels, int n, const struct cpu_act *act,
                      float *y, size_t plane)
{
    for (int p = 0; p < pixels; p += BAND) {
        int count = pixels - p < BAND ? pixels - p : BAND;
        for (int c = 0; c < n; c++) {
            float *to = y + (size_t)c * plane + p;
            const float *from = x + p * pixel + c;
            for (int i = 0; i < count; i++)
                to[i] = from[i * pixel];
            if (act->kind != CPU_NONE)
                finish(to, NULL, NULL, count, act, to);
        }
    }
}

static void to_pixels(const float *x, size_t plane, int pixels, int n, float *y, ptrdiff_t pixel)
{
    for (int p = 0; p < pixels; p += BAND) {
        int count = pixels - p < BAND ? pixels - p : BAND;
        for (int c = 0; c < n; c++) {
            const float *from = x + (size_t)c * plane + p;
            float *to = y + p * pixel + c;
            for (int i = 0; i < count; i++)
                to[i * pixel] = from[i];
        }
    }
}

static int all_finite(const float *x, size_t n)
{
    /* The exponent of NaN and of infinities is all ones. */
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

const struct cpu_kernels KERNELS = {
    .name = NAME,
    .lanes = LANES,
    .mr = ROWS,
    .gemm = gemm,
    .winograd_in = winograd_in,
    .winograd_out = winograd_out,
    .winograd_weights = winograd_weights,
    .finish = finish,
    .copy = copy,
    .gather = gather,
    .affine = affine,
    .depthwise = depthwise,
    .add_to = add_to,
    .add_taps = add_taps,
    .add_square_to = add_square_to,
    .axpy = axpy,
    .binary = binary,
    .unary = unary,
    .to_planes = to_planes,
    .to_pixels = to_pixels,
    .finite = all_finite,
};
