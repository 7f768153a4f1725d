/*
 * cpu_winograd.inc.h - Winograd's transforms, included by cpu_kernels.inc.h
 *
 * Lavin & Gray, Fast Algorithms for Convolutional Neural Networks (2015), by Toom and Cook's
 * interpolation. A line of `side` pixels goes to `side` points and gives side − r + 1 outputs of a
 * kernel of r; the transform of the input is the same for any r.
 *
 *   side  points                   for r = 3, 2
 *   4     0, 1, −1, ∞              F(2, 3), F(3, 2)
 *   5     0, 1, −1/2, −2, ∞        F(3, 3), F(4, 2)
 *   6     0, ±5/8, ±3/2, ∞         F(4, 3), F(5, 2)
 *
 * The larger the tile the larger the error; tests/unit/test_model_cpu_conv.c holds every layer to
 * 2e-6 of relative L2. Points of 5 and 6 are small fractions that are exact in binary and lie apart
 * alike below and above 1, which loses less than 0, 1, −1, 2, −2.
 */

/* The points of 6 and what their polynomials are made of: (x² − P²)(x² − Q²). */
#define P  0.625f
#define Q  1.5f
#define PP (P * P)
#define QQ (Q * Q)

/* B^T d of one line. */
INLINE void line_in(const int side, const vf *d, vf *t)
{
    if (side == 4) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
    } else if (side == 5) {
        t[0] = all(1.5f) * (d[1] - d[2]) + (d[0] - d[3]);
        t[1] = all(2.5f) * d[2] + (d[1] + d[3]);
        t[2] = (d[2] + d[3]) - all(2.0f) * d[1];
        t[3] = d[3] - all(0.5f) * (d[1] + d[2]);
        t[4] = all(1.5f) * (d[3] - d[2]) + (d[4] - d[1]);
    } else {
        vf even_p = d[4] - all(QQ) * d[2], odd_p = all(P) * d[3] - all(P * QQ) * d[1];
        vf even_q = d[4] - all(PP) * d[2], odd_q = all(Q) * d[3] - all(Q * PP) * d[1];
        t[0] = all(PP * QQ) * d[0] + (d[4] - all(PP + QQ) * d[2]);
        t[1] = even_p + odd_p;
        t[2] = even_p - odd_p;
        t[3] = even_q + odd_q;
        t[4] = even_q - odd_q;
        t[5] = all(PP * QQ) * d[1] + (d[5] - all(PP + QQ) * d[3]);
    }
}

/* A^T m of one line, to `size` outputs. */
INLINE void line_out(const int side, const int size, const vf *m, vf *y)
{
    if (side == 4) {
        vf plus = m[1] + m[2], minus = m[1] - m[2];
        y[0] = m[0] + plus;
        if (size == 3) {
            y[1] = minus;
            y[2] = plus - m[3];
        } else {
            y[1] = minus - m[3];
        }
    } else if (side == 5) {
        y[0] = (m[0] + m[1]) + (m[2] + m[3]);
        y[1] = m[1] - all(0.5f) * m[2] - all(2.0f) * m[3];
        y[2] = m[1] + all(0.25f) * m[2] + all(4.0f) * m[3];
        if (size == 4)
            y[3] = m[1] - all(0.125f) * m[2] - all(8.0f) * m[3];
        y[size - 1] += m[4];
    } else {
        vf even_p = m[1] + m[2], odd_p = m[1] - m[2], even_q = m[3] + m[4], odd_q = m[3] - m[4];
        y[0] = m[0] + even_p + even_q;
        y[1] = all(P) * odd_p + all(Q) * odd_q;
        y[2] = all(PP) * even_p + all(QQ) * even_q;
        y[3] = all(P * PP) * odd_p + all(Q * QQ) * odd_q;
        if (size == 5)
            y[4] = all(PP * PP) * even_p + all(QQ * QQ) * even_q;
        y[size - 1] += m[5];
    }
}

/* G g of one line of r weights (g2 is not used if r is 2). */
INLINE void line_weights(const int side, const int r, vf g0, vf g1, vf g2, vf *t)
{
    vf last = r == 3 ? g2 : g1, square = r == 3 ? g2 : all(0.0f);
    t[0] = g0;
    if (side == 4) {
        vf even = r == 3 ? g0 + g2 : g0;
        t[1] = all(0.5f) * (even + g1);
        t[2] = all(0.5f) * (even - g1);
    } else if (side == 5) {
        t[1] = all(2.0f / 9) * (g0 + g1 + square);
        t[2] = all(2.0f / 9) * (all(4.0f) * g0 - all(2.0f) * g1 + square);
        t[3] = all(1.0f / 9) * (all(2.0f) * g1 - g0 - all(4.0f) * square);
    } else {
        const float p = 1 / (2 * PP * (PP - QQ)), q = 1 / (2 * QQ * (QQ - PP));
        vf even_p = g0 + all(PP) * square, odd_p = all(P) * g1;
        vf even_q = g0 + all(QQ) * square, odd_q = all(Q) * g1;
        t[0] = all(1 / (PP * QQ)) * g0;
        t[1] = all(p) * (even_p + odd_p);
        t[2] = all(p) * (even_p - odd_p);
        t[3] = all(q) * (even_q + odd_q);
        t[4] = all(q) * (even_q - odd_q);
    }
    t[side - 1] = last;
}

#undef P
#undef Q
#undef PP
#undef QQ

/* BODY(i) for i of a line. What fits the registers is transformed there, in loops that are
 * unrolled; else the lines between both passes lie in memory and the loops stay loops. */
#define LINES(in_registers, i, count, BODY)                                                        \
    if (in_registers) {                                                                            \
        _Pragma("GCC unroll 6") for (int i = 0; i < (count); i++) BODY(i);                         \
    } else {                                                                                       \
        _Pragma("GCC unroll 1") for (int i = 0; i < (count); i++) BODY(i);                         \
    }

/* The next of several places at equal distances. That they are found one after the other is hidden
 * from the compiler: it would keep the distances of all of them in registers that it has not. */
#define NEXT(p, step)                                                                              \
    do {                                                                                           \
        (p) += (step);                                                                             \
        __asm__("" : "+r"(p));                                                                     \
    } while (0)

/* One row of pixels to its points. */
INLINE void row_in(const int side, const float *d, ptrdiff_t pixel, int n, int part,
                   enum cpu_act_kind kind, vf a, vf b, vf *t)
{
    vf x[6];
#pragma GCC unroll 6
    for (int j = 0; j < side; j++) {
        x[j] = activate(kind, part ? load_part(d, n) : load(d), a, b);
        NEXT(d, pixel);
    }
    line_in(side, x, t);
}

/* Column j of what the rows gave, to column j of the points. */
INLINE void column_in(const int side, vf (*t)[6], int j, int n, int part, float *v, size_t point)
{
    vf x[6], u[6];
#pragma GCC unroll 6
    for (int i = 0; i < side; i++)
        x[i] = t[i][j];
    line_in(side, x, u);
    v += (size_t)j * point;
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) {
        if (part)
            store_part(v, u[i], n);
        else
            store(v, u[i]);
        NEXT(v, (size_t)side * point);
    }
}

INLINE void winograd_in_part(const int side, const float *d, ptrdiff_t row, ptrdiff_t pixel, int n,
                             int part, enum cpu_act_kind kind, vf a, vf b, float *v, size_t point)
{
    vf t[6][6];
#define ROW(i)    row_in(side, d + i * row, pixel, n, part, kind, a, b, t[i])
#define COLUMN(j) column_in(side, t, j, n, part, v, point)
    LINES(side == 4 || (LANES == 16 && !part), i, side, ROW)
    LINES(side == 4 || (LANES == 16 && !part), j, side, COLUMN)
#undef ROW
#undef COLUMN
}

INLINE void winograd_in_of(const int side, const float *d, ptrdiff_t row, ptrdiff_t pixel, int n,
                           enum cpu_act_kind kind, vf a, vf b, float *v, size_t point)
{
    int c = 0;
    for (; c + LANES <= n; c += LANES)
        winograd_in_part(side, d + c, row, pixel, LANES, 0, kind, a, b, v + c, point);
    if (c < n)
        winograd_in_part(side, d + c, row, pixel, n - c, 1, kind, a, b, v + c, point);
}

#define WINOGRAD_IN(side)                                                                          \
    static void winograd_in_##side(const float *d, ptrdiff_t row, ptrdiff_t pixel, int n,          \
                                   const struct cpu_act *act, float *v, size_t point)              \
    {                                                                                              \
        vf a = all(act->a), b = all(act->b);                                                       \
        FOR_EACH_ACT(act->kind, IN_##side)                                                         \
    }
#define IN_4(kind) winograd_in_of(4, d, row, pixel, n, kind, a, b, v, point)
#define IN_5(kind) winograd_in_of(5, d, row, pixel, n, kind, a, b, v, point)
#define IN_6(kind) winograd_in_of(6, d, row, pixel, n, kind, a, b, v, point)
WINOGRAD_IN(4)
WINOGRAD_IN(5)
WINOGRAD_IN(6)
#undef IN_4
#undef IN_5
#undef IN_6

static void winograd_in(int side, const float *d, ptrdiff_t row, ptrdiff_t pixel, int n,
                        const struct cpu_act *act, float *v, size_t point)
{
    static void (*const of[3])(const float *, ptrdiff_t, ptrdiff_t, int, const struct cpu_act *,
                               float *, size_t) = {winograd_in_4, winograd_in_5, winograd_in_6};
    of[side - 4](d, row, pixel, n, act, v, point);
}

/* Column j of the points to that of the lines of outputs. */
INLINE void column_out(const int side, const int size, const float *m, size_t point, int j,
                       vf (*t)[6])
{
    vf x[6], y[5];
    m += (size_t)j * point;
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) {
        x[i] = load(m);
        NEXT(m, (size_t)side * point);
    }
    line_out(side, size, x, y);
#pragma GCC unroll 5
    for (int i = 0; i < size; i++)
        t[i][j] = y[i];
}

/* Line i of outputs, from channel c on. */
INLINE void row_out(const int side, const int size, const vf *t, int i, int n, int part, vf add,
                    enum cpu_act_kind kind, vf a, vf b, const struct cpu_tile_out *o, int c)
{
    vf y[5];
    line_out(side, size, t, y);
    if (i < o->y0 || i >= o->y1)
        return;
    float *to = o->at + i * o->row + c;
    const float *residual = o->residual ? o->residual + i * o->residual_row + c : NULL;
#pragma GCC unroll 5
    for (int j = 0; j < size; j++) {
        if (j < o->x0 || j >= o->x1)
            continue;
        vf x = y[j] + add;
        if (residual) {
            const float *p = residual + j * o->residual_pixel;
            x += part ? load_part(p, n) : load(p);
        }
        x = activate(kind, x, a, b);
        if (part)
            store_part(to + j * o->pixel, x, n);
        else
            store(to + j * o->pixel, x);
    }
}

INLINE void winograd_out_part(const int side, const int size, const float *m, size_t point, int n,
                              int part, const float *bias, enum cpu_act_kind kind, vf a, vf b,
                              const struct cpu_tile_out *o, int c)
{
    vf t[5][6], add = part ? load_part(bias + c, n) : load(bias + c);
#define COLUMN(j) column_out(side, size, m, point, j, t)
#define ROW(i)    row_out(side, size, t[i], i, n, part, add, kind, a, b, o, c)
    LINES(side == 4 || (side == 5 && !part), j, side, COLUMN)
    LINES(side == 4 || (side == 5 && !part), i, size, ROW)
#undef COLUMN
#undef ROW
}

INLINE void winograd_out_of(const int side, const int size, const float *m, size_t point, int n,
                            const float *bias, enum cpu_act_kind kind, vf a, vf b,
                            const struct cpu_tile_out *o)
{
    int c = 0;
    for (; c + LANES <= n; c += LANES)
        winograd_out_part(side, size, m + c, point, LANES, 0, bias, kind, a, b, o, c);
    if (c < n)
        winograd_out_part(side, size, m + c, point, n - c, 1, bias, kind, a, b, o, c);
}

#define WINOGRAD_OUT(side, size)                                                                   \
    static void winograd_out_##side##_##size(const float *m, size_t point, int n,                  \
                                             const float *bias, const struct cpu_act *act,         \
                                             const struct cpu_tile_out *o)                         \
    {                                                                                              \
        vf a = all(act->a), b = all(act->b);                                                       \
        FOR_EACH_ACT(act->kind, OUT_##side##_##size)                                               \
    }
#define OUT_4_2(kind) winograd_out_of(4, 2, m, point, n, bias, kind, a, b, o)
#define OUT_4_3(kind) winograd_out_of(4, 3, m, point, n, bias, kind, a, b, o)
#define OUT_5_3(kind) winograd_out_of(5, 3, m, point, n, bias, kind, a, b, o)
#define OUT_5_4(kind) winograd_out_of(5, 4, m, point, n, bias, kind, a, b, o)
#define OUT_6_4(kind) winograd_out_of(6, 4, m, point, n, bias, kind, a, b, o)
#define OUT_6_5(kind) winograd_out_of(6, 5, m, point, n, bias, kind, a, b, o)
WINOGRAD_OUT(4, 2)
WINOGRAD_OUT(4, 3)
WINOGRAD_OUT(5, 3)
WINOGRAD_OUT(5, 4)
WINOGRAD_OUT(6, 4)
WINOGRAD_OUT(6, 5)
#undef OUT_4_2
#undef OUT_4_3
#undef OUT_5_3
#undef OUT_5_4
#undef OUT_6_4
#undef OUT_6_5
#undef LINES
#undef NEXT

static void winograd_out(int side, int r, const float *m, size_t point, int n, const float *bias,
                         const struct cpu_act *act, const struct cpu_tile_out *out)
{
    static void (*const of[3][2])(const float *, size_t, int, const float *, const struct cpu_act *,
                                  const struct cpu_tile_out *) = {
        {winograd_out_4_3, winograd_out_4_2},
        {winograd_out_5_4, winograd_out_5_3},
        {winograd_out_6_5, winograd_out_6_4},
    };
    of[side - 4][r - 2](m, point, n, bias, act, out);
}

INLINE void winograd_weights_of(const int side, const int r, const float *const *g, int n, float *v,
                                size_t point)
{
    for (int c = 0; c < n; c += LANES) {
        vf t[3][6], u[6];
#pragma GCC unroll 3
        for (int x = 0; x < r; x++)
            line_weights(side, r, load(g[x] + c), load(g[r + x] + c), load(g[(r - 1) * r + x] + c),
                         t[x]);
#pragma GCC unroll 6
        for (int i = 0; i < side; i++) {
            line_weights(side, r, t[0][i], t[1][i], t[r - 1][i], u);
#pragma GCC unroll 6
            for (int j = 0; j < side; j++)
                store(v + (size_t)(side * i + j) * point + c, u[j]);
        }
    }
}

static void winograd_weights(int side, int r, const float *const *g, int n, float *v, size_t point)
{
    if (r == 2)
        side == 4   ? winograd_weights_of(4, 2, g, n, v, point)
        : side == 5 ? winograd_weights_of(5, 2, g, n, v, point)
                    : winograd_weights_of(6, 2, g, n, v, point);
    else
        side == 4   ? winograd_weights_of(4, 3, g, n, v, point)
        : side == 5 ? winograd_weights_of(5, 3, g, n, v, point)
                    : winograd_weights_of(6, 3, g, n, v, point);
}
