/*
 * cpu_kernels.h - the inner loops of the CPU engine, one table per instruction set
 *
 * One source, cpu_kernels.inc.h, is compiled as cpu_avx512.c, cpu_avx2.c and cpu_base.c; which
 * table is used is decided at run time by cpu_kernels_pick(). Activations are NHWC: the channels of
 * a pixel lie together. Every kernel adds up each output element in an order that depends only on
 * the layer's own sizes, never on how the work was cut, so that results have the same bits for any
 * number of threads and any batch. No kernel allocates or keeps state.
 */
#ifndef SPINENODE_MODEL_CPU_KERNELS_H
#define SPINENODE_MODEL_CPU_KERNELS_H

#include <stddef.h>

struct err;

/* Depth of a block of the matrix product: so much of K is packed and multiplied at a time. */
#define CPU_KC 256
/* Row stride of the left operand, in floats: fixed so that rows are reached by constant offsets,
 * and off powers of two so that rows do not fall on one another in the cache. */
#define CPU_LDA (CPU_KC + 16)
/* Floats that a kernel may read past the end of a row of scratch memory (never of a tensor). */
#define CPU_SLACK 32
/* Pixels that the depthwise kernel computes at once. */
#define CPU_DEPTH_PIXELS 4
/* All memory of the engine is aligned to this many bytes. */
#define CPU_ALIGN 64

/* What happens to a number on its way in or out. */
enum cpu_act_kind { CPU_NONE, CPU_RELU, CPU_LEAKY, CPU_CLIP, CPU_TANH, CPU_SIGMOID };
struct cpu_act {
    enum cpu_act_kind kind;
    float a; /* leaky: slope below 0; clip: lowest */
    float b; /* clip: highest */
};

/* Where kernels put a tile of pixels. */
struct cpu_tile_out {
    float *at;             /* first pixel of the whole tile, also where it is not inside */
    ptrdiff_t row, pixel;  /* floats from one row, one pixel of the tile to the next */
    int y0, y1, x0, x1;    /* part of the tile that is inside: [y0, y1) × [x0, x1) */
    const float *residual; /* added after bias, before the activation; NULL: nothing. Its pixel
                              (0, 0) of the tile, as `at` */
    ptrdiff_t residual_row, residual_pixel;
};

/* CPU_SLOPE: a < 0 ? b·a : a (PRelu). */
enum cpu_binary { CPU_ADD, CPU_SUB, CPU_MUL, CPU_DIV, CPU_MAX, CPU_MIN, CPU_SLOPE, CPU_POW };
enum cpu_unary { CPU_ABS, CPU_SQRT, CPU_NEG, CPU_EXP };

/* Memory that will be read or written next, hinted to the cache; may be anything. */
struct cpu_hint {
    const void *at;
    size_t bytes; /* 0: nothing */
};

struct cpu_kernels {
    const char *name; /* "avx512" */
    int lanes;        /* floats of a vector */
    int mr;           /* rows of the left operand that are multiplied at once */

    /*
     * c[m × width·lanes] (+)= a[m × k] · b. Row i of a is a + i·CPU_LDA, k <= CPU_KC; b is a panel
     * of k rows of width·lanes floats (width 1 or 2); row i of c is c + i·ldc. add: to what c
     * holds. `then`: the panel that is read next, hinted to the cache as a whole; `also`: so are
     * these bytes, a few at a time, if m is more than mr.
     */
    void (*gemm)(const float *a, const float *b, int width, float *c, size_t ldc, int m, int k,
                 int add, const float *then, struct cpu_hint also);

    /*
     * Winograd's transforms (cpu_winograd.inc.h), side = 4, 5 or 6 pixels each way, r = 2 or 3 the
     * kernel's: a tile has side − r + 1 outputs each way.
     *
     * B^T d B of side × side pixels: n channels of the pixels d[i·row + j·pixel] to
     * v[(side·i + j)·point …]. The activation is applied to what is read, then the transform. Reads
     * exactly n channels.
     */
    void (*winograd_in)(int side, const float *d, ptrdiff_t row, ptrdiff_t pixel, int n,
                        const struct cpu_act *act, float *v, size_t point);
    /* act(A^T m A + bias + residual) of n channels: the side² points at m[p·point] to a tile. m may
     * be read to CPU_SLACK beyond n. */
    void (*winograd_out)(int side, int r, const float *m, size_t point, int n, const float *bias,
                         const struct cpu_act *act, const struct cpu_tile_out *out);
    /* G g G^T of n kernels (a multiple of lanes) of r × r weights; g[i] is weight i of each. Point
     * p of kernel j to v[p·point + j]. */
    void (*winograd_weights)(int side, int r, const float *const *g, int n, float *v, size_t point);

    /* y = act(x + bias + residual), n floats; bias and residual may be NULL, y may be x. */
    void (*finish)(const float *x, const float *bias, const float *residual, int n,
                   const struct cpu_act *act, float *y);
    /* y = act(x), n floats; y may be x. */
    void (*copy)(const float *x, int n, const struct cpu_act *act, float *y);
    /* Copies n floats through the activation from each of `count` places to y, y + step, …; from
     * NULL come zeros (which are padding: they do not pass through the activation). */
    void (*gather)(const float *const *from, int count, int n, const struct cpu_act *act, float *y,
                   ptrdiff_t step);
    /* y = act((x − mean)·scale + shift) (+ residual, if not NULL), n channels; mean may be NULL. */
    void (*affine)(const float *x, const float *mean, const float *scale, const float *shift,
                   const float *residual, int n, const struct cpu_act *act, float *y);
    /* sum[c] += x[c]; sum[c] += (x[c] − mean[c])², n channels. */
    void (*add_to)(const float *x, int n, float *sum);
    void (*add_square_to)(const float *x, const float *mean, int n, float *sum);
    /*
     * One weight a channel: y[p][c] = sum over taps t of w[tap[t]][c] · act(from[t·pixels + p][c])
     * for n channels of 1 or CPU_DEPTH_PIXELS pixels, taps in their order. Row i of w is
     * w + i·w_row, of y y + i·y_row; both may be read (w) and written (y) up to whole vectors.
     */
    void (*depthwise)(const float *const *from, const int *tap, int taps, int pixels,
                      const float *w, size_t w_row, int n, const struct cpu_act *act, float *y,
                      size_t y_row);
    /* to[i·n + o] = sum over taps t of p[i·row + t·step + o] for o < n, count pixels. Reads to 3
     * floats beyond n, writes to 3 floats beyond count·n. */
    void (*add_taps)(const float *p, size_t row, int count, int taps, size_t step, int n,
                     float *to);
    /* y[c] += w·x[c], n channels. */
    void (*axpy)(const float *x, float w, int n, float *y);

    /* y = act(a op b), n floats; step 0 for an operand that is one number. */
    void (*binary)(enum cpu_binary op, const float *a, int a_step, const float *b, int b_step,
                   size_t n, const struct cpu_act *act, float *y);
    void (*unary)(enum cpu_unary op, const float *x, size_t n, float *y);

    /* One image: pixels × channels ↔ channels × pixels. pixel: floats from pixel to pixel of the
     * NHWC side; plane: floats from channel to channel of the other. */
    void (*to_planes)(const float *x, ptrdiff_t pixel, int pixels, int n, const struct cpu_act *act,
                      float *y, size_t plane);
    void (*to_pixels)(const float *x, size_t plane, int pixels, int n, float *y, ptrdiff_t pixel);

    /* 1 if all n floats are finite. */
    int (*finite)(const float *x, size_t n);
};

/*
 * The table for isa, "avx512" | "avx2" | "base"; NULL asks the environment (SPINENODE_ISA), then
 * the processor for its best. ERR_CONFIG: an unknown word, or one that this processor lacks.
 */
int cpu_kernels_pick(const char *isa, const struct cpu_kernels **out, struct err *e);

extern const struct cpu_kernels cpu_kernels_base;
#if defined(__x86_64__)
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;
#endif

#endif
