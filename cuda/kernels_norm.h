/*
 * kernels_norm.h - the part of kernels.h, which includes it, that is about instance norm
 *
 * Mean and variance of every image and channel in one reading of the tensor, in float and in an
 * order that the image's size alone decides; and one kernel that applies them, adds a residual and
 * pads, for these follow each other and each would read and write the whole tensor.
 */
#ifndef SPINENODE_CUDA_KERNELS_NORM_H
#define SPINENODE_CUDA_KERNELS_NORM_H

#include "cuda/kernels.h"

/* Of numbers we keep the mean and the sum of squared deviations from it. Two such parts are joined
 * as Chan, Golub and LeVeque do (Algorithms for computing the sample variance, The American
 * Statistician 37, 1983): no two large numbers are subtracted, so that parts, each of which is
 * computed in two passes while it is in registers, are as sound as two passes over everything.
 * Means are kept relative to the first number and are rounded at their own size once a part, so
 * that numbers far from zero lose little. */
struct moments {
    struct octet mean, square;
};
KERNEL_BODY void moments_join(struct moments *a, float n_a, const struct moments *b, float n_b)
{
    float part = n_b / (n_a + n_b), weight = n_a * part;
    for (int k = 0; k < OCTET; k++) {
        float d = b->mean.v[k] - a->mean.v[k];
        a->mean.v[k] += d * part;
        a->square.v[k] += b->square.v[k] + d * d * weight;
    }
}

/* One chunk of one image: `run` pixels, the last chunk what is left, read once. i = (n·chunks +
 * chunk)·octets + octet; out[i·16 + k] is the mean of its channel k, out[i·16 + 8 + k] the sum of
 * squares. */
#define MOMENT_ROUND 8 /* pixels that an item has in registers */
struct moments_args {
    struct kernel_array in;
    float *out;
    int32_t octets, pixels, pitch, chunks, run;
};
KERNEL_BODY void moments_of(const struct moments_args *a, struct kernel_array in, uint32_t i)
{
    uint32_t rest = i / (uint32_t)a->octets;
    int32_t first = (int32_t)(rest % (uint32_t)a->chunks) * a->run;
    int32_t count = a->pixels - first < a->run ? a->pixels - first : a->run, seen = 0;
    int64_t n = rest / (uint32_t)a->chunks;
    int64_t at = (n * a->pixels + first) * a->pitch + i % (uint32_t)a->octets * OCTET;
    struct kernel_array out = {a->out, 0};
    struct octet base = octet_load(in, at);
    struct moments all, part;
    for (int k = 0; k < OCTET; k++)
        all.mean.v[k] = all.square.v[k] = 0;
    for (; seen + MOMENT_ROUND <= count; seen += MOMENT_ROUND) {
        struct octet x[MOMENT_ROUND];
        for (int j = 0; j < MOMENT_ROUND; j++)
            x[j] = octet_load(in, at + (int64_t)(seen + j) * a->pitch);
        for (int k = 0; k < OCTET; k++) {
            float mean = 0, square = 0;
            for (int j = 0; j < MOMENT_ROUND; j++)
                mean += x[j].v[k] - base.v[k];
            mean /= MOMENT_ROUND;
            for (int j = 0; j < MOMENT_ROUND; j++) {
                float d = x[j].v[k] - base.v[k] - mean;
                square += d * d;
            }
            part.mean.v[k] = mean;
            part.square.v[k] = square;
        }
        moments_join(&all, (float)seen, &part, MOMENT_ROUND);
    }
    for (; seen < count; seen++) {
        part.mean = octet_load(in, at + (int64_t)seen * a->pitch);
        for (int k = 0; k < OCTET; k++) {
            part.mean.v[k] -= base.v[k];
            part.square.v[k] = 0;
        }
        moments_join(&all, (float)seen, &part, 1);
    }
    for (int k = 0; k < OCTET; k++)
        all.mean.v[k] += base.v[k];
    octet_store(out, (int64_t)i * 2 * OCTET, all.mean);
    octet_store(out, (int64_t)i * 2 * OCTET + OCTET, all.square);
}
KERNEL_BODY void moments_item(const struct moments_args *a, uint32_t i)
{
    if (a->in.half) /* each with its own loop */
        moments_of(a, (struct kernel_array){a->in.data, 1}, i);
    else
        moments_of(a, (struct kernel_array){a->in.data, 0}, i);
}

/* Joins `per` chunks in a row, at the end fewer, of one channel. i: (n·groups + group)·octets·8 +
 * channel. scale NULL: out is of the groups what `part` is of the chunks. Else there is one group,
 * out[i] is the mean, scale[i] = gamma / sqrt(variance + epsilon) and shift[i] = beta. */
#define MOMENT_JOINED 16 /* chunks at a time: what is loaded while one waits */
struct moments_sum_args {
    const float *part;
    float *out, *scale, *shift;
    const float *gamma, *beta; /* octets·8 */
    int32_t channels, octets, pixels, chunks, run, per, groups;
    float epsilon;
};
KERNEL_BODY void moments_sum_item(const struct moments_sum_args *a, uint32_t i)
{
    uint32_t channels = (uint32_t)a->octets * OCTET, c = i % channels, rest = i / channels;
    int32_t first = (int32_t)(rest % (uint32_t)a->groups) * a->per;
    int32_t end = first + a->per < a->chunks ? first + a->per : a->chunks;
    int64_t n = rest / (uint32_t)a->groups, step = 2 * (int64_t)channels;
    uint32_t lane = c / OCTET * 2 * OCTET + c % OCTET;
    const float *part = a->part + n * a->chunks * step + lane;
    float base = part[first * step], mean = 0, square = 0, seen = 0;
    for (int32_t chunk = first; chunk < end; chunk += MOMENT_JOINED) {
        float m[MOMENT_JOINED], s[MOMENT_JOINED], w[MOMENT_JOINED];
        float count = 0, sum = 0, squares = 0;
        for (int j = 0; j < MOMENT_JOINED; j++) {
            int32_t left = chunk + j < end ? a->pixels - (chunk + j) * a->run : 0;
            w[j] = (float)(left < a->run ? left : a->run);
            m[j] = left > 0 ? part[(chunk + j) * step] - base : 0;
            s[j] = left > 0 ? part[(chunk + j) * step + OCTET] : 0;
        }
        for (int j = 0; j < MOMENT_JOINED; j++) {
            count += w[j];
            sum += w[j] * m[j];
        }
        sum /= count;
        for (int j = 0; j < MOMENT_JOINED; j++)
            squares += s[j] + w[j] * (m[j] - sum) * (m[j] - sum);
        float d = sum - mean, share = count / (seen + count);
        mean += d * share;
        square += squares + d * d * seen * share;
        seen += count;
    }
    mean += base;
    if (a->scale) {
        a->out[i] = mean;
        a->scale[i] = (int32_t)c < a->channels
                          ? a->gamma[c] / sqrtf(square / (float)a->pixels + a->epsilon)
                          : 0; /* without epsilon 0/0, in a lane that must hold a number */
        a->shift[i] = a->beta[c];
    } else {
        a->out[rest * step + lane] = mean;
        a->out[rest * step + lane + OCTET] = square;
    }
}

/* Rows and columns padded, cropped or neither, of y = act((x - centre[c])·scale[c] + shift[c]) +
 * add. scale NULL: y = x + add; else tables of octets·8, one for each image, aligned as octets are.
 * add, NULL for none: of in's height and width, whose rows and images are add_row and add_image
 * elements apart. i = ((n·out_height + y)·runs + x)·octets + octet: of a row the pixels x, x + runs
 * and so on, FRAME_PIXELS of them, so that index and tables are worked out once for all. */
#define FRAME_PIXELS 4
struct frame_args {
    struct kernel_array in, out, add;
    const float *centre, *scale, *shift;
    int32_t channels, octets, in_height, in_width, in_pitch;
    int32_t out_height, out_width, out_pitch, runs;
    int32_t add_pitch, add_row, add_image;
    int32_t begin_y, begin_x;
    int mode;
    float value;
    struct kernel_act_args act;
};
KERNEL_BODY void frame_of(const struct frame_args *a, int half, uint32_t i)
{
    struct kernel_array in = {a->in.data, half}, add = {a->add.data, half};
    struct kernel_array out = {a->out.data, half};
    uint32_t c0 = i % (uint32_t)a->octets * OCTET, rest = i / (uint32_t)a->octets;
    uint32_t row = rest / (uint32_t)a->runs;
    int32_t x = (int32_t)(rest % (uint32_t)a->runs), from_x[FRAME_PIXELS];
    int32_t from_y = (int32_t)(row % (uint32_t)a->out_height) - a->begin_y;
    int64_t n = row / (uint32_t)a->out_height, table = n * a->octets * OCTET + c0;
    struct octet o[FRAME_PIXELS], more[FRAME_PIXELS];
    from_y = pad_place(from_y, a->in_height, a->mode);
    for (int j = 0; j < FRAME_PIXELS; j++) {
        int32_t at = x + j * a->runs < a->out_width ? x + j * a->runs : x;
        from_x[j] = pad_place(at - a->begin_x, a->in_width, a->mode);
    }
    /* All are loaded before the first is used. In place of the constant, any pixel is. */
    for (int j = 0; j < FRAME_PIXELS; j++) {
        int64_t in_y = n * a->in_height + (from_y < 0 ? 0 : from_y);
        int64_t pixel = in_y * a->in_width + (from_x[j] < 0 ? 0 : from_x[j]);
        o[j] = octet_load(in, pixel * a->in_pitch + c0);
    }
    if (add.data)
        for (int j = 0; j < FRAME_PIXELS; j++) {
            int64_t at_y = n * a->add_image + (int64_t)(from_y < 0 ? 0 : from_y) * a->add_row;
            int64_t at_x = (int64_t)(from_x[j] < 0 ? 0 : from_x[j]) * a->add_pitch;
            more[j] = octet_load(add, at_y + at_x + c0);
        }
    if (a->scale) {
        struct octet centre = octet_of(a->centre, table), scale = octet_of(a->scale, table);
        struct octet shift = octet_of(a->shift, table);
        for (int j = 0; j < FRAME_PIXELS; j++) {
            for (int k = 0; k < OCTET; k++)
                o[j].v[k] = (o[j].v[k] - centre.v[k]) * scale.v[k] + shift.v[k];
            octet_act(&o[j], a->act);
        }
    }
    for (int j = 0; j < FRAME_PIXELS; j++) {
        if (add.data)
            for (int k = 0; k < OCTET; k++)
                o[j].v[k] += more[j].v[k];
        if (from_y < 0 || from_x[j] < 0)
            for (int k = 0; k < OCTET; k++)
                o[j].v[k] = (int32_t)c0 + k < a->channels ? a->value : 0;
        if (x + j * a->runs < a->out_width)
            octet_store(out, ((int64_t)row * a->out_width + x + j * a->runs) * a->out_pitch + c0,
                        o[j]);
    }
}
KERNEL_BODY void frame_item(const struct frame_args *a, uint32_t i)
{
    if (a->in.half)
        frame_of(a, 1, i);
    else
        frame_of(a, 0, i);
}

#endif
