/*
 * kernels_ends.h - inside kernels.h: the first and the last kernel of a program
 *
 * What goes in and comes out is row-major float N,C,H,W. Around a network stand convolutions of few
 * channels, for which the tiles of a matrix product are too wide: three channels of 4 x 4 taps in,
 * or three out. So the first kernel may lay all taps of a pixel beside each other (fold), and the
 * last one adds the taps of a row, which a convolution gave as channels (export).
 *
 * Each also looks for NaN and infinity among the floats: flags[image · flag_step] = 1, else it
 * stays what it was; NULL: does not look. Several threads may write, all the same.
 */
#ifndef SPINENODE_CUDA_KERNELS_ENDS_H
#define SPINENODE_CUDA_KERNELS_ENDS_H

/* Row-major float N,C,H,W -> NHWC with zeros in the spare lanes. i: octet of the output. */
struct import_args {
    const float *in;
    struct kernel_array out;
    int32_t *flags;
    int32_t c, pixels, pitch, flag_step; /* pixels = H·W; out may be a slice of wider pixels */
};
KERNEL_BODY void import_item(const struct import_args *a, uint32_t i)
{
    uint32_t octets = ((uint32_t)a->c + OCTET - 1) / OCTET, c0 = i % octets * OCTET;
    uint32_t p = i / octets;
    int64_t n = p / (uint32_t)a->pixels, pixel = p % (uint32_t)a->pixels;
    int32_t bad = 0;
    struct octet o;
    for (int k = 0; k < OCTET; k++) {
        o.v[k] = (int32_t)c0 + k < a->c ? a->in[(n * a->c + c0 + k) * a->pixels + pixel] : 0;
        bad |= !isfinite(o.v[k]);
    }
    octet_store(a->out, (int64_t)p * a->pitch + c0, o);
    if (bad && a->flags)
        a->flags[n * a->flag_step] = 1;
}

/* The same for a convolution of few channels: pixel (y, x) of the output holds, as channel
 * (ty·taps[1] + tx)·c + ch, what tap (ty, tx) of its output (y, x) reads. What lies beyond the
 * image is 0, or reflected or the edge, by mode. i: pixel of the output. */
struct fold_args {
    const float *in;
    struct kernel_array out;
    int32_t *flags;
    int32_t c, in_height, in_width, out_height, out_width, pitch;
    int32_t taps[2], stride[2], begin[2];
    int32_t mode, flag_step;
};
KERNEL_BODY void fold_item(const struct fold_args *a, uint32_t i)
{
    uint32_t row = i / (uint32_t)a->out_width;
    int32_t x = (int32_t)(i % (uint32_t)a->out_width) * a->stride[1] - a->begin[1];
    int32_t y = (int32_t)(row % (uint32_t)a->out_height) * a->stride[0] - a->begin[0];
    int64_t n = row / (uint32_t)a->out_height, plane = (int64_t)a->in_height * a->in_width;
    const float *image = a->in + n * a->c * plane, *line, *from;
    int32_t ty = 0, tx = 0, c = 0, bad = 0;
    int32_t yy = pad_place(y, a->in_height, a->mode), xx = pad_place(x, a->in_width, a->mode);
    line = image + (int64_t)(yy < 0 ? 0 : yy) * a->in_width;
    from = line + xx;
    /* A step costs a load and little else: places are worked out when a tap is begun. */
    for (int32_t c0 = 0; c0 < a->pitch; c0 += OCTET) {
        struct octet o;
        KERNEL_UNROLL
        for (int k = 0; k < OCTET; k++) {
            o.v[k] = ty < a->taps[0] && yy >= 0 && xx >= 0 ? *from : 0;
            bad |= !isfinite(o.v[k]);
            from += plane;
            if (++c < a->c)
                continue;
            c = 0;
            if (++tx == a->taps[1]) {
                tx = 0;
                ty++;
                yy = pad_place(y + ty, a->in_height, a->mode);
                line = image + (int64_t)(yy < 0 ? 0 : yy) * a->in_width;
            }
            xx = pad_place(x + tx, a->in_width, a->mode);
            from = line + xx;
        }
        octet_store(a->out, (int64_t)i * a->pitch + c0, o);
    }
    if (bad && a->flags)
        a->flags[n * a->flag_step] = 1;
}

/* NHWC -> row-major float N,C,H,W, and what a convolution left to do:
 *
 *     out(y, x, c) = act(bias[c] + sum over t of in(qy, qx + t - tap_pad, lane + t·c + c))
 *
 * where y + pad[0] = qy·stride[0] + fy, x likewise, and lane = (fy·stride[1] + fx)·phase_lanes:
 * the phases of a transposed convolution (stride 1: none), the taps of a row (1: none). Both are
 * never there at once. i: eight channels of a pixel of the output, pixels of a plane in a row. */
struct export_args {
    struct kernel_array in;
    float *out;
    int32_t *flags;
    const float *bias; /* c of them, or NULL */
    int32_t c, in_height, in_width, pitch, out_height, out_width;
    int32_t stride[2], pad[2], phase_lanes, taps, tap_pad, flag_step;
    struct kernel_act_args act;
};
KERNEL_BODY void export_item(const struct export_args *a, uint32_t i)
{
    uint32_t width = (uint32_t)a->out_width, row = i / width;
    int32_t x = (int32_t)(i % width), y = (int32_t)(row % (uint32_t)a->out_height);
    uint32_t rest = row / (uint32_t)a->out_height, octets = ((uint32_t)a->c + OCTET - 1) / OCTET;
    int32_t c0 = (int32_t)(rest % octets) * OCTET, bad = 0;
    int64_t n = rest / octets, plane = (int64_t)a->out_height * a->out_width;
    int32_t qy = (y + a->pad[0]) / a->stride[0], fy = (y + a->pad[0]) % a->stride[0];
    int32_t qx = (x + a->pad[1]) / a->stride[1], fx = (x + a->pad[1]) % a->stride[1];
    int64_t lane = (int64_t)(fy * a->stride[1] + fx) * a->phase_lanes + c0;
    struct octet o;
    for (int k = 0; k < OCTET; k++)
        o.v[k] = 0;
    for (int32_t t = 0; t < a->taps && qy < a->in_height; t++) {
        int32_t xx = qx + t - a->tap_pad;
        if (xx < 0 || xx >= a->in_width)
            continue;
        int64_t at = ((n * a->in_height + qy) * a->in_width + xx) * a->pitch + lane + t * a->c;
        for (int k = 0; k < OCTET; k++)
            if (c0 + k < a->c)
                o.v[k] += load(a->in, at + k);
    }
    for (int k = 0; k < OCTET; k++) {
        if (c0 + k >= a->c)
            break;
        float v = act_apply(a->act, o.v[k] + (a->bias ? a->bias[c0 + k] : 0));
        a->out[(n * a->c + c0 + k) * plane + (int64_t)y * a->out_width + x] = v;
        bad |= !isfinite(v);
    }
    if (bad && a->flags)
        a->flags[n * a->flag_step] = 1;
}

/* Looks alone. i: eight numbers in a row, of octets for each image. */
struct finite_args {
    const float *in;
    int32_t *out;
    int32_t part, octets; /* of an image: numbers; ceil(part / 8) */
};
KERNEL_BODY void finite_item(const struct finite_args *a, uint32_t i)
{
    int64_t image = i / (uint32_t)a->octets;
    int32_t first = (int32_t)(i % (uint32_t)a->octets) * OCTET, bad = 0;
    for (int32_t k = first; k < first + OCTET && k < a->part; k++)
        bad |= !isfinite(a->in[image * a->part + k]);
    if (bad)
        a->out[image] = 1;
}

#endif
