/*
 * kernels.h - the bodies of our CUDA kernels: what one thread computes
 *
 * cuDNN convolves; everything else that a generator needs is here, one function per kernel, which
 * computes item i of n and nothing else. The same text is compiled for the device (launch.cu: one
 * thread per item) and for the host (launch_host.c: a loop), so that every index computation is
 * tested where there is no GPU; what stands under __CUDACC__, too, by a test that compiles it for
 * the host. What a kernel writes is the member `out` of its arguments; what else it writes lies in
 * the same block of memory.
 *
 * Layout. A tensor of rank 4 is NHWC: element (n, c, y, x) lies at ((n·H + y)·W + x)·pitch + c,
 * pitch >= C rounded up to 8, so that eight channels are one aligned access of 16 (half) or 32
 * (float) bytes: an octet. Lanes beyond C hold finite numbers that meet zero weights. Other ranks
 * are row-major. Elements are half or float; arithmetic is float always. Items are counted in 32
 * bits, since a GPU divides 64 several times slower; a launch of more than KERNEL_ITEMS_MAX is
 * refused when the program is made. Addresses have 64.
 */
#ifndef SPINENODE_CUDA_KERNELS_H
#define SPINENODE_CUDA_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define KERNEL_BODY   __host__ __device__ static inline
#define KERNEL_UNROLL _Pragma("unroll")
#else
#define KERNEL_BODY static inline __attribute__((unused))
#define KERNEL_UNROLL
#endif

#define KERNEL_RANK 8
#define OCTET       8

#define KERNEL_ITEMS_MAX (INT64_C(1) << 31)

/* Same meaning and order as enum act_kind of model/graph.h (checked where both are seen). */
enum kernel_act { KACT_NONE, KACT_RELU, KACT_LEAKY_RELU, KACT_TANH, KACT_SIGMOID, KACT_CLIP };
struct kernel_act_args {
    int kind;
    float alpha, lo, hi;
};

/* Elements of one type. */
struct kernel_array {
    void *data;
    int half; /* 1: binary16, 0: float */
};

/* One stored half. On the host by bits, since a compiler calls a function for it where it must not
 * count on F16C; as IEEE 754 rounds, to nearest and ties to even. */
#ifndef __CUDACC__
KERNEL_BODY uint16_t half_bits(float v)
{
    uint32_t bits, sign;
    memcpy(&bits, &v, sizeof bits);
    sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits >= 0x47800000) /* 2^16 and beyond, NaN */
        return (uint16_t)(sign | (bits > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (bits < 0x38800000) { /* below 2^-14: beside 0.5 a float's last place is a half's smallest */
        memcpy(&v, &bits, sizeof v);
        v += 0.5F;
        memcpy(&bits, &v, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13));
}

KERNEL_BODY float half_value(uint16_t half)
{
    uint32_t exponent = half & 0x7c00, bits = (uint32_t)(half & 0x7fff) << 13;
    float v;
    if (exponent == 0) {
        v = (float)(half & 0x3ff) * 0x1p-24F;
        return half & 0x8000 ? -v : v;
    }
    bits += exponent == 0x7c00 ? 0x70000000 : 0x38000000;
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&v, &bits, sizeof v);
    return v;
}
#endif

KERNEL_BODY float half_load(const void *p, int64_t i)
{
#ifdef __CUDACC__
    return __half2float(((const __half *)p)[i]);
#else
    return half_value(((const uint16_t *)p)[i]);
#endif
}

KERNEL_BODY void half_store(void *p, int64_t i, float v)
{
#ifdef __CUDACC__
    ((__half *)p)[i] = __float2half_rn(v);
#else
    ((uint16_t *)p)[i] = half_bits(v);
#endif
}

KERNEL_BODY float load(struct kernel_array a, int64_t i)
{
    return a.half ? half_load(a.data, i) : ((const float *)a.data)[i];
}

KERNEL_BODY void store(struct kernel_array a, int64_t i, float v)
{
    if (a.half)
        half_store(a.data, i, v);
    else
        ((float *)a.data)[i] = v;
}

/* Eight channels at once; i is a multiple of 8. */
struct octet {
    float v[OCTET];
};

#ifdef __CUDACC__
struct alignas(16) octet_bits {
    uint32_t w[4];
};
#endif

KERNEL_BODY struct octet octet_load(struct kernel_array a, int64_t i)
{
    struct octet o;
#ifdef __CUDACC__
    if (a.half) {
        octet_bits bits = *(const octet_bits *)((const __half *)a.data + i);
        const __half *h = (const __half *)&bits;
        for (int k = 0; k < OCTET; k++)
            o.v[k] = __half2float(h[k]);
    } else {
        octet_bits low = *(const octet_bits *)((const float *)a.data + i);
        octet_bits high = *(const octet_bits *)((const float *)a.data + i + 4);
        for (int k = 0; k < 4; k++) {
            o.v[k] = ((const float *)&low)[k];
            o.v[k + 4] = ((const float *)&high)[k];
        }
    }
#else
    for (int k = 0; k < OCTET; k++)
        o.v[k] = load(a, i + k);
#endif
    return o;
}

KERNEL_BODY void octet_store(struct kernel_array a, int64_t i, struct octet o)
{
#ifdef __CUDACC__
    if (a.half) {
        octet_bits bits;
        __half *h = (__half *)&bits;
        for (int k = 0; k < OCTET; k++)
            h[k] = __float2half_rn(o.v[k]);
        *(octet_bits *)((__half *)a.data + i) = bits;
    } else {
        octet_bits low, high;
        for (int k = 0; k < 4; k++) {
            ((float *)&low)[k] = o.v[k];
            ((float *)&high)[k] = o.v[k + 4];
        }
        *(octet_bits *)((float *)a.data + i) = low;
        *(octet_bits *)((float *)a.data + i + 4) = high;
    }
#else
    for (int k = 0; k < OCTET; k++)
        store(a, i + k, o.v[k]);
#endif
}

/* Eight of a table of floats that lies at a multiple of 32 bytes; i as above. */
KERNEL_BODY struct octet octet_of(const float *table, int64_t i)
{
    return octet_load((struct kernel_array){(void *)(uintptr_t)table, 0}, i);
}

KERNEL_BODY float act_apply(struct kernel_act_args a, float x)
{
    switch (a.kind) {
    case KACT_RELU:
        return x > 0 ? x : (x != x ? x : 0); /* NaN stays: it must be found, not hidden */
    case KACT_LEAKY_RELU:
        return x < 0 ? a.alpha * x : x;
    case KACT_TANH:
        return tanhf(x);
    case KACT_SIGMOID:
        return 1 / (1 + expf(-x));
    case KACT_CLIP:
        x = x < a.lo ? a.lo : x;
        return x > a.hi ? a.hi : x; /* lo > hi gives hi, as ONNX says */
    default:
        return x;
    }
}

/* The choice is made once, not for every channel. */
KERNEL_BODY void octet_act(struct octet *o, struct kernel_act_args a)
{
    switch (a.kind) {
    case KACT_NONE:
        break;
    case KACT_RELU:
        for (int k = 0; k < OCTET; k++)
            o->v[k] = act_apply((struct kernel_act_args){KACT_RELU, 0, 0, 0}, o->v[k]);
        break;
    case KACT_LEAKY_RELU:
        for (int k = 0; k < OCTET; k++)
            o->v[k] = act_apply((struct kernel_act_args){KACT_LEAKY_RELU, a.alpha, 0, 0}, o->v[k]);
        break;
    default:
        for (int k = 0; k < OCTET; k++)
            o->v[k] = act_apply(a, o->v[k]);
    }
}

/* o = act(o + table[c0 …]); NULL: no table. Tables are aligned to 32 bytes. */
KERNEL_BODY void octet_finish(struct octet *o, const float *table, int32_t c0,
                              struct kernel_act_args act)
{
    if (table) {
        struct octet t = octet_load((struct kernel_array){(void *)(uintptr_t)table, 0}, c0);
        for (int k = 0; k < OCTET; k++)
            o->v[k] += t.v[k];
    }
    octet_act(o, act);
}

/* ---- places beyond the edge -------------------------------------------------------------------
 */

enum kernel_pad { KP_CONSTANT, KP_REFLECT, KP_EDGE };

/* Place j of a row of n that is reflected at both ends, as often as it takes. n > 1. */
KERNEL_BODY int32_t reflect(int32_t j, int32_t n)
{
    int32_t period = 2 * (n - 1);
    j = ((j % period) + period) % period;
    return j < n ? j : period - j;
}

/* Where place j of a row of n is read; negative: it is the constant. */
KERNEL_BODY int32_t pad_place(int32_t j, int32_t n, int mode)
{
    if (j >= 0 && j < n)
        return j;
    if (mode == KP_CONSTANT)
        return -1;
    return mode == KP_EDGE || n == 1 ? (j < 0 ? 0 : n - 1) : reflect(j, n);
}

#include "cuda/kernels_ends.h"

/* ---- per channel ----------------------------------------------------------------------------- */

/* y = act(x·scale[c] + shift[c]); NULL: 1 and 0. Tables of channels, aligned as octets are. i:
 * octet of the input's first `octets` octets of each pixel. */
struct affine_args {
    struct kernel_array in, out;
    const float *scale, *shift;
    int32_t octets, in_pitch, out_pitch;
    struct kernel_act_args act;
};
KERNEL_BODY void affine_item(const struct affine_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    int64_t p = i / (uint32_t)a->octets;
    struct octet o = octet_load(a->in, p * a->in_pitch + c0), table;
    if (a->scale) {
        table = octet_of(a->scale, c0);
        for (int k = 0; k < OCTET; k++)
            o.v[k] *= table.v[k];
    }
    if (a->shift) {
        table = octet_of(a->shift, c0);
        for (int k = 0; k < OCTET; k++)
            o.v[k] += table.v[k];
    }
    octet_act(&o, a->act);
    octet_store(a->out, p * a->out_pitch + c0, o);
}

/* A value twice: y = act(x + shift[c]), and relu(y) to a place of its own (NULL shift: 0). For a
 * skip of a U-Net, which goes on leaky and is joined rectified. i: octet. */
struct fork_args {
    struct kernel_array in, out;
    void *second; /* elements as out's */
    const float *shift;
    int32_t octets, in_pitch, out_pitch, second_pitch;
    struct kernel_act_args act;
};
KERNEL_BODY void fork_item(const struct fork_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    int64_t p = i / (uint32_t)a->octets;
    struct octet x = octet_load(a->in, p * a->in_pitch + c0), y;
    octet_finish(&x, a->shift, c0, a->act);
    for (int k = 0; k < OCTET; k++)
        y.v[k] = act_apply((struct kernel_act_args){KACT_RELU, 0, 0, 0}, x.v[k]);
    octet_store(a->out, p * a->out_pitch + c0, x);
    octet_store((struct kernel_array){a->second, a->out.half}, p * a->second_pitch + c0, y);
}

/* Phases -> image: the second half of a transposed convolution of stride s (ONNX ConvTranspose), or
 * of DepthToSpace. in holds at (n, qy, qx), channel (phase_y·sx + phase_x)·channels + c, what
 * belongs to output row qy·sy + phase_y - pad_y; y = act(in + bias[c]). i: octet of every phase of
 * an input pixel, so that several are on their way at once. */
struct interleave_args {
    struct kernel_array in, out;
    const float *bias; /* `octets`·8 of them, or NULL */
    int32_t octets, in_height, in_width, in_pitch, out_height, out_width, out_pitch;
    int32_t stride_y, stride_x, pad_y, pad_x;
    struct kernel_act_args act;
};
#define INTERLEAVE_AHEAD 4
KERNEL_BODY void interleave_item(const struct interleave_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    uint32_t q = i / (uint32_t)a->octets, row = q / (uint32_t)a->in_width;
    int32_t x0 = (int32_t)(q % (uint32_t)a->in_width) * a->stride_x - a->pad_x;
    int32_t y = (int32_t)(row % (uint32_t)a->in_height) * a->stride_y - a->pad_y, x = x0;
    int64_t n = row / (uint32_t)a->in_height, from = (int64_t)q * a->in_pitch + c0;
    int32_t phases = a->stride_y * a->stride_x;
    for (int32_t first = 0; first < phases; first += INTERLEAVE_AHEAD) {
        struct octet o[INTERLEAVE_AHEAD];
        KERNEL_UNROLL
        for (int k = 0; k < INTERLEAVE_AHEAD; k++) { /* beyond the last: any octet */
            int32_t phase = first + k < phases ? first + k : 0;
            o[k] = octet_load(a->in, from + (int64_t)phase * a->octets * OCTET);
        }
        KERNEL_UNROLL
        for (int k = 0; k < INTERLEAVE_AHEAD; k++) {
            octet_finish(&o[k], a->bias, c0, a->act);
            if (first + k < phases && y >= 0 && y < a->out_height && x >= 0 && x < a->out_width)
                octet_store(a->out,
                            ((n * a->out_height + y) * a->out_width + x) * a->out_pitch + c0, o[k]);
            if (++x == x0 + a->stride_x) {
                x = x0;
                y++;
            }
        }
    }
}

/* ---- any tensor, by strides ------------------------------------------------------------------ */

/* Elements enumerated in row-major order of dim; element at offset + sum index·stride. */
struct kernel_view {
    int32_t rank;
    int32_t dim[KERNEL_RANK];
    int64_t stride[KERNEL_RANK]; /* 0: repeated; may be negative */
    int64_t offset;
};
KERNEL_BODY int64_t view_at(const struct kernel_view *v, uint32_t i)
{
    int64_t at = v->offset;
    for (int32_t d = v->rank - 1; d >= 0; d--) {
        uint32_t dim = (uint32_t)v->dim[d];
        at += (int64_t)(i % dim) * v->stride[d];
        i /= dim;
    }
    return at;
}

/* out[i] = in[i] in the order of each one's view: slices, splits, concatenations, transposes,
 * reshapes, depth to space. */
struct copy_args {
    struct kernel_array in, out;
    struct kernel_view from, to;
};
KERNEL_BODY void copy_item(const struct copy_args *a, uint32_t i)
{
    store(a->out, view_at(&a->to, i), load(a->in, view_at(&a->from, i)));
}

enum kernel_unary { KU_ACT, KU_ABS, KU_SQRT, KU_NEG, KU_EXP };
struct unary_args {
    struct kernel_array in, out;
    struct kernel_view from, to;
    int op;
    struct kernel_act_args act;
};
KERNEL_BODY void unary_item(const struct unary_args *a, uint32_t i)
{
    float x = load(a->in, view_at(&a->from, i));
    switch (a->op) {
    case KU_ABS:
        x = fabsf(x);
        break;
    case KU_SQRT:
        x = sqrtf(x);
        break;
    case KU_NEG:
        x = -x;
        break;
    case KU_EXP:
        x = expf(x);
        break;
    default:
        x = act_apply(a->act, x);
    }
    store(a->out, view_at(&a->to, i), x);
}

enum kernel_binary { KB_ADD, KB_SUB, KB_MUL, KB_DIV, KB_POW, KB_MAX, KB_MIN, KB_PRELU };
struct binary_args {
    struct kernel_array a, b, out;
    struct kernel_view from_a, from_b, to;
    int op;
};
KERNEL_BODY float binary_apply(int op, float x, float y)
{
    switch (op) {
    case KB_ADD:
        return x + y;
    case KB_SUB:
        return x - y;
    case KB_MUL:
        return x * y;
    case KB_DIV:
        return x / y;
    case KB_POW:
        return powf(x, y);
    case KB_MAX:
        return x > y || x != x ? x : y;
    case KB_MIN:
        return x < y || x != x ? x : y;
    default:
        return x < 0 ? x * y : x;
    }
}
KERNEL_BODY void binary_item(const struct binary_args *a, uint32_t i)
{
    float x = load(a->a, view_at(&a->from_a, i)), y = load(a->b, view_at(&a->from_b, i));
    store(a->out, view_at(&a->to, i), binary_apply(a->op, x, y));
}

/* The same for two NHWC tensors of one shape. i: octet. */
struct binary_octet_args {
    struct kernel_array a, b, out;
    int32_t octets, a_pitch, b_pitch, out_pitch;
    int op;
    struct kernel_act_args act; /* then this */
};
KERNEL_BODY void binary_octet_item(const struct binary_octet_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    int64_t p = i / (uint32_t)a->octets;
    struct octet x = octet_load(a->a, p * a->a_pitch + c0);
    struct octet y = octet_load(a->b, p * a->b_pitch + c0);
    for (int k = 0; k < OCTET; k++)
        x.v[k] = binary_apply(a->op, x.v[k], y.v[k]);
    octet_act(&x, a->act);
    octet_store(a->out, (int64_t)p * a->out_pitch + c0, x);
}

/* ONNX Pad by any amount on any axis, negative ones crop. i: element of the output. */
struct pad_args {
    struct kernel_array in, out;
    struct kernel_view from, to;
    int32_t begin[KERNEL_RANK];
    int mode;
    float value;
};
KERNEL_BODY void pad_item(const struct pad_args *a, uint32_t i)
{
    int64_t at = a->from.offset;
    uint32_t rest = i;
    int inside = 1;
    for (int32_t d = a->to.rank - 1; d >= 0; d--) {
        int32_t j = (int32_t)(rest % (uint32_t)a->to.dim[d]) - a->begin[d], n = a->from.dim[d];
        rest /= (uint32_t)a->to.dim[d];
        j = pad_place(j, n, a->mode);
        inside &= j >= 0;
        at += (int64_t)j * a->from.stride[d];
    }
    store(a->out, view_at(&a->to, i), inside ? load(a->in, at) : a->value);
}

#include "cuda/kernels_norm.h"

/* ONNX DepthToSpace, NHWC: channel c of output (y, x) is channel c·step + (y mod block)·step_y +
 * (x mod block)·step_x of input (y / block, x / block). i: octet of the output. */
struct spread_args {
    struct kernel_array in, out;
    int32_t channels, octets, in_height, in_width, in_pitch, out_pitch;
    int32_t block, step, step_y, step_x;
};
KERNEL_BODY void spread_item(const struct spread_args *a, uint32_t i)
{
    uint32_t block = (uint32_t)a->block, width = (uint32_t)a->in_width * block;
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    uint32_t p = i / (uint32_t)a->octets, row = p / width, x = p % width;
    uint32_t height = (uint32_t)a->in_height * block, y = row % height;
    int64_t n = row / height;
    int64_t at = ((n * a->in_height + y / block) * a->in_width + x / block) * a->in_pitch +
                 (int64_t)(y % block) * a->step_y + (int64_t)(x % block) * a->step_x;
    struct octet o;
    for (int k = 0; k < OCTET; k++)
        o.v[k] = c0 + k < a->channels ? load(a->in, at + (int64_t)(c0 + k) * a->step) : 0;
    octet_store(a->out, (int64_t)p * a->out_pitch + c0, o);
}

/* Resize of rows and columns by tables (resize_table_make()): output row y is the sum of
 * row_weight[y·row_taps + k] · input row row_index[y·row_taps + k]; columns likewise. i: octet. */
struct resize_args {
    struct kernel_array in, out;
    const int32_t *row_index, *column_index;
    const float *row_weight, *column_weight;
    int32_t row_taps, column_taps;
    int32_t octets, in_height, in_width, in_pitch, out_height, out_width, out_pitch;
};
KERNEL_BODY void resize_item(const struct resize_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    uint32_t p = i / (uint32_t)a->octets, row = p / (uint32_t)a->out_width;
    int32_t x = (int32_t)(p % (uint32_t)a->out_width), y = (int32_t)(row % (uint32_t)a->out_height);
    int64_t n = row / (uint32_t)a->out_height;
    struct octet sum;
    for (int k = 0; k < OCTET; k++)
        sum.v[k] = 0;
    for (int32_t r = 0; r < a->row_taps; r++) {
        float wy = a->row_weight[y * a->row_taps + r];
        int64_t from = n * a->in_height + a->row_index[y * a->row_taps + r];
        if (wy == 0)
            continue;
        for (int32_t s = 0; s < a->column_taps; s++) {
            float w = wy * a->column_weight[x * a->column_taps + s];
            if (w == 0)
                continue;
            int64_t at =
                (from * a->in_width + a->column_index[x * a->column_taps + s]) * a->in_pitch + c0;
            struct octet o = octet_load(a->in, at);
            for (int k = 0; k < OCTET; k++)
                sum.v[k] += w * o.v[k];
        }
    }
    octet_store(a->out, (int64_t)p * a->out_pitch + c0, sum);
}

/* Average and max pooling, 2-D. i: octet of the output. */
struct pool_args {
    struct kernel_array in, out;
    int32_t octets, in_height, in_width, in_pitch, out_height, out_width, out_pitch;
    int32_t kernel[2], stride[2], dilation[2], pad_begin[2], pad_end[2];
    int max, count_include_pad;
};
/* Taps of the window that begins at `first` that come before `limit`; as pool_taps() in graph.h. */
KERNEL_BODY int32_t pool_taps_before(int32_t kernel, int32_t dilation, int32_t first, int32_t limit)
{
    int32_t room = limit - first, taps = room <= 0 ? 0 : (room - 1) / dilation + 1;
    return taps < kernel ? taps : kernel;
}
KERNEL_BODY void pool_item(const struct pool_args *a, uint32_t i)
{
    int32_t c0 = (int32_t)(i % (uint32_t)a->octets) * OCTET;
    uint32_t p = i / (uint32_t)a->octets, row = p / (uint32_t)a->out_width;
    int32_t x = (int32_t)(p % (uint32_t)a->out_width), y = (int32_t)(row % (uint32_t)a->out_height);
    int64_t n = row / (uint32_t)a->out_height;
    struct octet r;
    int32_t seen = 0;
    for (int k = 0; k < OCTET; k++)
        r.v[k] = 0;
    /* only taps that meet the input: a window may be far larger */
    int32_t top = y * a->stride[0] - a->pad_begin[0], left = x * a->stride[1] - a->pad_begin[1];
    int32_t rows = pool_taps_before(a->kernel[0], a->dilation[0], top, a->in_height);
    int32_t columns = pool_taps_before(a->kernel[1], a->dilation[1], left, a->in_width);
    int32_t column0 = pool_taps_before(a->kernel[1], a->dilation[1], left, 0);
    for (int32_t i0 = pool_taps_before(a->kernel[0], a->dilation[0], top, 0); i0 < rows; i0++) {
        int32_t yy = top + i0 * a->dilation[0];
        for (int32_t i1 = column0; i1 < columns; i1++) {
            int32_t xx = left + i1 * a->dilation[1];
            struct octet o =
                octet_load(a->in, ((n * a->in_height + yy) * a->in_width + xx) * a->in_pitch + c0);
            for (int k = 0; k < OCTET; k++)
                r.v[k] = a->max ? (seen == 0 ? o.v[k] : binary_apply(KB_MAX, r.v[k], o.v[k]))
                                : r.v[k] + o.v[k];
            seen++;
        }
    }
    if (!a->max) {
        int64_t by = seen;
        if (a->count_include_pad)
            by = (int64_t)pool_taps_before(a->kernel[0], a->dilation[0], top,
                                           a->in_height + a->pad_end[0]) *
                 pool_taps_before(a->kernel[1], a->dilation[1], left, a->in_width + a->pad_end[1]);
        for (int k = 0; k < OCTET; k++)
            r.v[k] = by ? r.v[k] / (float)by : 0;
    }
    octet_store(a->out, (int64_t)p * a->out_pitch + c0, r);
}

/* Sums over some axes. from enumerates the kept axes, over the reduced ones. i: output element. */
enum kernel_reduce { KR_MEAN, KR_SUM, KR_SUM_SQUARE, KR_PROD };
struct reduce_args {
    struct kernel_array in, out;
    struct kernel_view from, over, to;
    int64_t n_over;
    int op;
};
KERNEL_BODY void reduce_item(const struct reduce_args *a, uint32_t i)
{
    int64_t base = view_at(&a->from, i);
    float r = a->op == KR_PROD ? 1 : 0;
    for (uint32_t j = 0; j < (uint32_t)a->n_over; j++) {
        float x = load(a->in, base + view_at(&a->over, j));
        r = a->op == KR_PROD ? r * x : r + (a->op == KR_SUM_SQUARE ? x * x : x);
    }
    store(a->out, view_at(&a->to, i), a->op == KR_MEAN ? r / (float)a->n_over : r);
}

/* ONNX Gather: out's view is [before, indices, after], from's the same with one index axis that
 * the table replaces. i: output element. */
struct gather_args {
    struct kernel_array in, out;
    struct kernel_view to;
    const int32_t *index;
    int64_t n_index, after;
    struct kernel_view from; /* row-major view of the whole input */
    int64_t axis_dim;
};
KERNEL_BODY void gather_item(const struct gather_args *a, uint32_t i)
{
    uint32_t rest = i / (uint32_t)a->after, j = rest % (uint32_t)a->n_index;
    int64_t before = rest / (uint32_t)a->n_index;
    int64_t source = (before * a->axis_dim + a->index[j]) * a->after + i % (uint32_t)a->after;
    store(a->out, view_at(&a->to, i), load(a->in, view_at(&a->from, (uint32_t)source)));
}

/* Convolution and transposed convolution of any kind, slowly: groups, and what cuDNN has no engine
 * for. Weights float: M,C/group,kh,kw (transposed: C,M/group,kh,kw). i: element of the output in
 * N,H,W,M order. */
struct direct_args {
    struct kernel_array in, out;
    const float *weight, *bias;
    int32_t c, m, in_height, in_width, in_pitch, out_height, out_width, out_pitch;
    int32_t kernel[2], stride[2], dilation[2], pad[2], group;
    int transposed;
    struct kernel_act_args act;
};
KERNEL_BODY void direct_item(const struct direct_args *a, uint32_t i)
{
    int32_t m = (int32_t)(i % (uint32_t)a->m);
    uint32_t p = i / (uint32_t)a->m, row = p / (uint32_t)a->out_width;
    int32_t x = (int32_t)(p % (uint32_t)a->out_width), y = (int32_t)(row % (uint32_t)a->out_height);
    int64_t n = row / (uint32_t)a->out_height;
    int32_t cg = a->c / a->group, mg = a->m / a->group, g = m / mg;
    float sum = a->bias ? a->bias[m] : 0;
    for (int32_t i0 = 0; i0 < a->kernel[0]; i0++) {
        int32_t yy;
        if (a->transposed) {
            int32_t t = y + a->pad[0] - i0 * a->dilation[0];
            if (t < 0 || t % a->stride[0] != 0)
                continue;
            yy = t / a->stride[0];
        } else {
            yy = y * a->stride[0] - a->pad[0] + i0 * a->dilation[0];
        }
        if (yy < 0 || yy >= a->in_height)
            continue;
        for (int32_t i1 = 0; i1 < a->kernel[1]; i1++) {
            int32_t xx;
            if (a->transposed) {
                int32_t t = x + a->pad[1] - i1 * a->dilation[1];
                if (t < 0 || t % a->stride[1] != 0)
                    continue;
                xx = t / a->stride[1];
            } else {
                xx = x * a->stride[1] - a->pad[1] + i1 * a->dilation[1];
            }
            if (xx < 0 || xx >= a->in_width)
                continue;
            int64_t at = ((n * a->in_height + yy) * a->in_width + xx) * a->in_pitch + g * cg;
            int64_t taps = (int64_t)a->kernel[0] * a->kernel[1], tap = i0 * a->kernel[1] + i1;
            for (int32_t c = 0; c < cg; c++) {
                int64_t w = a->transposed ? ((int64_t)(g * cg + c) * mg + m % mg) * taps + tap
                                          : ((int64_t)m * cg + c) * taps + tap;
                sum += a->weight[w] * load(a->in, at + c);
            }
        }
    }
    store(a->out, (int64_t)p * a->out_pitch + m, act_apply(a->act, sum));
}

/* Every kernel once: name, and the member of launch_args. */
#define KERNEL_LIST(X)                                                                             \
    X(import)                                                                                      \
    X(fold)                                                                                        \
    X(export)                                                                                      \
    X(finite)                                                                                      \
    X(affine)                                                                                      \
    X(fork)                                                                                        \
    X(interleave)                                                                                  \
    X(moments)                                                                                     \
    X(moments_sum)                                                                                 \
    X(copy)                                                                                        \
    X(unary)                                                                                       \
    X(binary)                                                                                      \
    X(binary_octet)                                                                                \
    X(pad)                                                                                         \
    X(frame)                                                                                       \
    X(spread)                                                                                      \
    X(resize)                                                                                      \
    X(pool)                                                                                        \
    X(reduce)                                                                                      \
    X(gather)                                                                                      \
    X(direct)

enum kernel {
#define X(name) KERNEL_##name,
    KERNEL_LIST(X)
#undef X
        KERNELS
};

union kernel_args {
#define X(name) struct name##_args name##_;
    KERNEL_LIST(X)
#undef X
};

#endif
