/*
 * kernels_convolution.h - inside kernels.h: the convolutions that cuDNN is not asked for
 *
 * direct: of any kind, slowly. thin and thin_sum: of few pixels and many weights, in the middle of
 * a U-Net, where a matrix product's tiles stand empty and reading the weights is all the work.
 */
#ifndef SPINENODE_CUDA_KERNELS_CONVOLUTION_H
#define SPINENODE_CUDA_KERNELS_CONVOLUTION_H

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

/* Pixels of all images together, at most. */
#define THIN_PIXELS 16

/* Convolution over NHWC, weights K,kh,kw,C: out[(m·k + channel)·parts + part] is the sum, for
 * output pixel m, over every parts-th octet of a channel's weights, from the part-th. i =
 * channel·parts + part. */
struct thin_args {
    struct kernel_array in, weight;
    float *out;
    int32_t c, in_height, in_width, in_pitch, out_height, out_width, pixels, k, parts;
    int32_t kernel[2], stride[2], pad[2];
};
KERNEL_BODY void thin_item(const struct thin_args *a, uint32_t i)
{
    uint32_t parts = (uint32_t)a->parts, octets = (uint32_t)a->c / OCTET;
    uint32_t part = i % parts, channel = i / parts;
    uint32_t total = (uint32_t)(a->kernel[0] * a->kernel[1]) * octets;
    float sum[THIN_PIXELS];
    int32_t y0[THIN_PIXELS], x0[THIN_PIXELS], first[THIN_PIXELS]; /* first row of its image */
    for (int m = 0; m < THIN_PIXELS; m++) {
        int32_t row = m / a->out_width;
        sum[m] = 0;
        first[m] = row / a->out_height * a->in_height;
        y0[m] = first[m] + row % a->out_height * a->stride[0] - a->pad[0];
        x0[m] = m % a->out_width * a->stride[1] - a->pad[1];
    }
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
    for (uint32_t o = part; o < total; o += parts) {
        uint32_t tap = o / octets;
        int32_t ty = (int32_t)tap / a->kernel[1], tx = (int32_t)tap % a->kernel[1];
        struct octet w = octet_load(a->weight, ((int64_t)channel * total + o) * OCTET);
        for (int m = 0; m < THIN_PIXELS; m++) {
            int32_t y = y0[m] + ty, x = x0[m] + tx;
            if (m >= a->pixels || y < first[m] || y >= first[m] + a->in_height || x < 0 ||
                x >= a->in_width)
                continue;
            struct octet v = octet_load(a->in, ((int64_t)y * a->in_width + x) * a->in_pitch +
                                                   o % octets * OCTET);
            for (int k = 0; k < OCTET; k++)
                sum[m] += w.v[k] * v.v[k];
        }
    }
    for (int m = 0; m < THIN_PIXELS; m++)
        if (m < a->pixels)
            a->out[((int64_t)m * a->k + channel) * parts + part] = sum[m];
}

/* Adds the parts: y = act(sum + bias[c]), to its place as interleave says (stride 1: a pixel's
 * own), and relu(y) to `second` if there is one. i = pixel·k + channel. */
struct thin_sum_args {
    const float *part;
    struct kernel_array out;
    void *second;
    const float *bias;
    int32_t k, parts, lanes; /* channels of a phase */
    int32_t in_height, in_width, out_height, out_width, out_pitch, second_pitch;
    int32_t stride[2], pad[2];
    struct kernel_act_args act;
};
KERNEL_BODY void thin_sum_item(const struct thin_sum_args *a, uint32_t i)
{
    int32_t channel = (int32_t)(i % (uint32_t)a->k), q = (int32_t)(i / (uint32_t)a->k);
    int32_t phase = channel / a->lanes, c = channel % a->lanes;
    int32_t row = q / a->in_width, n = row / a->in_height;
    int32_t y = row % a->in_height * a->stride[0] + phase / a->stride[1] - a->pad[0];
    int32_t x = q % a->in_width * a->stride[1] + phase % a->stride[1] - a->pad[1];
    if (y < 0 || y >= a->out_height || x < 0 || x >= a->out_width)
        return;
    float sum = 0;
    for (int32_t p = 0; p < a->parts; p += OCTET) {
        struct octet o = octet_load((struct kernel_array){(void *)(uintptr_t)a->part, 0},
                                    (int64_t)i * a->parts + p);
        for (int k = 0; k < OCTET; k++)
            sum += o.v[k];
    }
    float v = act_apply(a->act, sum + (a->bias ? a->bias[c] : 0));
    int64_t p = ((int64_t)n * a->out_height + y) * a->out_width + x;
    store(a->out, p * a->out_pitch + c, v);
    if (a->second) {
        struct kernel_array second = {a->second, a->out.half};
        store(second, p * a->second_pitch + c,
              act_apply((struct kernel_act_args){KACT_RELU, 0, 0, 0},
                        load(a->out, p * a->out_pitch + c)));
    }
}

#endif
