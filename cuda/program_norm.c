/* program_norm.c - InstanceNormalization: statistics of every image and channel, then what they
 * give
 */
#include "cuda/program_build.h"
#include "node/base/err.h"

/* An item of moments takes a run of pixels: so many that an image gives about MOMENT_ITEMS items,
 * within these bounds. A function of the image's size alone, so that an image gives the same bits
 * in any batch. The parts are joined by one item for each channel, which takes its time: more than
 * MOMENT_CHUNKS of them are joined MOMENT_JOINED at a time before. */
#define MOMENT_ITEMS   4096
#define MOMENT_RUN_MIN 16
#define MOMENT_RUN_MAX 256
#define MOMENT_CHUNKS  128

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A new buffer of floats. A *rc that is not 0 stays and nothing is made. */
static struct place float_buffer(struct build *b, int64_t count, int *rc)
{
    int id = *rc == 0 ? build_buffer(b, count * (int64_t)sizeof(float)) : *rc;
    struct build_tensor t = {.buffer = id < 0 ? 0 : id};
    if (id < 0)
        *rc = id;
    return build_place(b, &t);
}

/* The tables of a norm of `in`, one for each image, in new buffers. */
static int build_statistics(struct build *b, const struct node *n, const struct build_tensor *in,
                            struct build_tables *tables)
{
    const struct shape *s = &b->g->value[n->in[0]].shape;
    struct place gamma, beta;
    int rc = build_table(b, n->in[1], s->dim[1], &gamma);
    if (rc == 0)
        rc = build_table(b, n->in[2], s->dim[1], &beta);
    int64_t images = s->dim[0], pixels = s->dim[2] * s->dim[3], channels = in->octets * OCTET;
    int64_t run = ceil_div(pixels * in->octets, MOMENT_ITEMS * MOMENT_ROUND) * MOMENT_ROUND;
    run = run < MOMENT_RUN_MIN ? MOMENT_RUN_MIN : run > MOMENT_RUN_MAX ? MOMENT_RUN_MAX : run;
    int64_t chunks = ceil_div(pixels, run), groups = 0;
    struct place part = float_buffer(b, images * chunks * channels * 2, &rc);
    *tables = (struct build_tables){.step = channels};
    tables->centre = float_buffer(b, images * channels, &rc);
    tables->scale = float_buffer(b, images * channels, &rc);
    tables->shift = float_buffer(b, images * channels, &rc);
    if (rc != 0)
        return rc;
    union kernel_args a = {.moments_ = {.in = {NULL, b->half},
                                        .octets = (int32_t)in->octets,
                                        .pixels = (int32_t)pixels,
                                        .pitch = (int32_t)in->pitch,
                                        .chunks = (int32_t)chunks,
                                        .run = (int32_t)run}};
    rc = build_launch_map(b, KERNEL_moments, &a, images * chunks * in->octets,
                          FIELD(moments, in.data), build_place(b, in), FIELD(moments, out), part);
    for (; rc == 0 && groups != 1; chunks = groups, run *= MOMENT_JOINED) {
        groups = chunks > MOMENT_CHUNKS ? ceil_div(chunks, MOMENT_JOINED) : 1;
        struct place out =
            groups > 1 ? float_buffer(b, images * groups * channels * 2, &rc) : tables->centre;
        a = (union kernel_args){
            .moments_sum_ = {.octets = (int32_t)in->octets,
                             .pixels = (int32_t)pixels,
                             .chunks = (int32_t)chunks,
                             .run = (int32_t)run,
                             .per = (int32_t)(groups > 1 ? MOMENT_JOINED : chunks),
                             .groups = (int32_t)groups,
                             .epsilon = (float)n->norm.epsilon}};
        if (rc == 0)
            rc = build_launch(b, KERNEL_moments_sum, &a, images * groups * channels);
        if (rc != 0)
            break;
        build_point(b, FIELD(moments_sum, part), part);
        build_point(b, FIELD(moments_sum, out), out);
        if (groups == 1) {
            build_point(b, FIELD(moments_sum, scale), tables->scale);
            build_point(b, FIELD(moments_sum, shift), tables->shift);
            build_point(b, FIELD(moments_sum, gamma), gamma);
            build_point(b, FIELD(moments_sum, beta), beta);
        }
        part = out;
    }
    return rc;
}

int build_instance_norm(struct build *b, const struct node *n)
{
    const struct shape *s = &b->g->value[n->in[0]].shape;
    struct build_tensor *in, *out;
    struct build_tables tables;
    if (s->rank != 4)
        return build_fail(b, "only tensors N,C,H,W");
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = build_write(b, n->out[0], &out);
    if (rc == 0)
        rc = build_statistics(b, n, in, &tables);
    return rc != 0 ? rc
                   : build_affine(b, in, out, s->dim[0], s->dim[2] * s->dim[3], &tables,
                                  build_act(&n->act));
}
