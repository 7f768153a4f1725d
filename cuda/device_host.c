/*
 * device_host.c - the device of device.h on the host: kernel bodies in loops, plain convolutions
 *
 * For tests and for machines without a GPU that want to check a CUDA program's every index. Slow.
 */
#include "cuda/device.h"

#include <stdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

struct host {
    struct device device;
    enum convolution_fused fused;
};

static void host_close(struct device *d)
{
    free(d);
}

static int host_memory_new(struct device *d, int64_t bytes, void **out, struct err *e)
{
    (void)d;
    size_t rounded = ((size_t)bytes + 255) / 256 * 256;
    void *p = aligned_alloc(256, rounded ? rounded : 256);
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for %lld bytes", (long long)bytes);
    memset(p, 0, rounded ? rounded : 256);
    *out = p;
    return 0;
}

static void host_memory_free(struct device *d, void *p)
{
    (void)d;
    free(p);
}

static int host_stream_new(struct device *d, void **out, struct err *e)
{
    (void)d;
    (void)e;
    *out = NULL;
    return 0;
}

static void host_stream_free(struct device *d, void *stream)
{
    (void)d;
    (void)stream;
}

static int host_copy(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                     struct err *e)
{
    (void)d;
    (void)stream;
    (void)e;
    if (bytes > 0) /* a program without weights uploads nothing, from nowhere */
        memcpy(to, from, (size_t)bytes);
    return 0;
}

static int host_clear(struct device *d, void *stream, void *p, int64_t bytes, struct err *e)
{
    (void)d;
    (void)stream;
    (void)e;
    memset(p, 0, (size_t)bytes);
    return 0;
}

static int host_launch(struct device *d, void *stream, enum kernel kernel,
                       const union kernel_args *args, int64_t items, struct err *e)
{
    (void)d;
    (void)stream;
    switch (kernel) {
#define X(name)                                                                                    \
    case KERNEL_##name:                                                                            \
        for (int64_t i = 0; i < items; i++)                                                        \
            name##_item(&args->name##_, i);                                                        \
        return 0;
        KERNEL_LIST(X)
#undef X
    default:
        return err_set(e, ERR_BUG, "no kernel %d", (int)kernel);
    }
}

static int host_wait(struct device *d, void *stream, struct err *e)
{
    (void)d;
    (void)stream;
    (void)e;
    return 0;
}

static int host_record_begin(struct device *d, void *stream, struct err *e)
{
    return host_wait(d, stream, e);
}

static int host_record_end(struct device *d, void *stream, void **recording, struct err *e)
{
    *recording = NULL;
    return host_wait(d, stream, e);
}

static int host_convolution_plan(struct device *d, const struct convolution_spec *spec, void **plan,
                                 enum convolution_fused *fused, int64_t *workspace_bytes,
                                 struct err *e)
{
    (void)spec;
    (void)e;
    *plan = d; /* nothing to keep */
    *fused = ((struct host *)d)->fused;
    *workspace_bytes = 0;
    return 0;
}

static void host_plan_free(struct device *d, void *plan)
{
    (void)d;
    (void)plan;
}

static float convolve_at(const struct convolution_spec *s, struct kernel_array x,
                         struct kernel_array w, int64_t n, int64_t oy, int64_t ox, int64_t k)
{
    float sum = 0;
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        int64_t y = oy * s->stride[0] - s->pad_begin[0] + i * s->dilation[0];
        if (y < 0 || y >= s->h)
            continue;
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            int64_t xx = ox * s->stride[1] - s->pad_begin[1] + j * s->dilation[1];
            if (xx < 0 || xx >= s->w)
                continue;
            int64_t at = ((n * s->h + y) * s->w + xx) * s->c;
            int64_t wt = ((k * s->kernel[0] + i) * s->kernel[1] + j) * s->c;
            for (int64_t c = 0; c < s->c; c++)
                sum += load(x, at + c) * load(w, wt + c);
        }
    }
    return sum;
}

static int host_convolution_run(struct device *d, void *stream, void *plan,
                                const struct convolution_spec *s, const void *x, const void *w,
                                const void *bias, void *y, void *workspace, struct err *e)
{
    (void)stream;
    (void)plan;
    (void)workspace;
    (void)e;
    enum convolution_fused fused = ((struct host *)d)->fused;
    struct kernel_array in = {(void *)(uintptr_t)x, s->half},
                        weight = {(void *)(uintptr_t)w, s->half};
    struct kernel_array out = {y, s->half}, addend = {(void *)(uintptr_t)bias, s->half};
    int64_t at = 0;
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t oy = 0; oy < s->oh; oy++)
            for (int64_t ox = 0; ox < s->ow; ox++)
                for (int64_t k = 0; k < s->k; k++, at++) {
                    float v = convolve_at(s, in, weight, n, oy, ox, k);
                    if (fused >= CONVOLUTION_BIAS && s->bias)
                        v += load(addend, k);
                    if (fused >= CONVOLUTION_ALL && s->relu && v < 0)
                        v = 0;
                    store(out, at, v);
                }
    return 0;
}

static const struct device_ops host_ops = {
    .close = host_close,
    .memory_new = host_memory_new,
    .memory_free = host_memory_free,
    .pinned_new = host_memory_new,
    .pinned_free = host_memory_free,
    .stream_new = host_stream_new,
    .stream_free = host_stream_free,
    .upload = host_copy,
    .download = host_copy,
    .clear = host_clear,
    .launch = host_launch,
    .wait = host_wait,
    .record_begin = host_record_begin,
    .record_end = host_record_end,
    .convolution_plan = host_convolution_plan,
    .convolution_free = host_plan_free,
    .convolution_run = host_convolution_run,
};

int device_host_open(enum convolution_fused fused, struct device **out, struct err *e)
{
    struct host *host = calloc(1, sizeof *host);
    if (!host)
        return err_set(e, ERR_NOMEM, "no memory for a device");
    host->device.ops = &host_ops;
    host->fused = fused;
    snprintf(host->device.text, sizeof host->device.text, "host twin of the CUDA kernels");
    *out = &host->device;
    return 0;
}
