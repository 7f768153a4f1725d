/*
 * device_cuda.c - the device of device.h by the CUDA runtime and cuDNN
 *
 * Owns a cuDNN handle and the plans' cache (plan_cache.h). Plans are timed once for each (spec,
 * device, cuDNN version); one that is kept and cannot be loaded is made anew.
 *
 * A sticky error of the GPU (an illegal access, a device that fell off the bus) leaves the process
 * unable to use it: everything here then fails with ERR_DEVICE, and the process should end.
 */
#include "cuda/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime.h>
#include <cudnn.h>

#include "cuda/launch.h"
#include "cuda/plan_cache.h"
#include "node/base/buf.h"
#include "node/base/err.h"

#define TIMED_RUNS  5
#define HANDLES_MAX 16
/* What a copy is measured with, and how near to it our kernels come. */
#define COPIED_BYTES ((int64_t)64 << 20)
#define PASS_SHARE   0.8
#define PASS_US      2.0 /* of a launch that does nothing */

struct cuda {
    struct device device;
    int number;
    cudnnHandle_t handle;
    struct plan_cache *cache;
    bool untuned;
    /* While a plan is timed. */
    const struct convolution_spec *timed;
    cudnnHandle_t others[HANDLES_MAX]; /* for threads that make plans; each its own thread's */
    double copied_gb_per_s;            /* 0: not measured yet */
};

/* What is not sticky is forgotten here, or a later launch would report it as its own. */
static int failed(struct err *e, cudaError_t error, const char *what)
{
    cudaGetLastError();
    return err_set(e, error == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_DEVICE,
                   "the GPU cannot %s: %s", what, cudaGetErrorString(error));
}

static int cudnn_failed(struct err *e, cudnnStatus_t status, const char *what)
{
    bool memory = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                  status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    return err_set(e, memory ? ERR_NOMEM : ERR_DEVICE, "cuDNN %s cannot %s: %s",
                   convolution_library(), what, cudnnGetErrorString(status));
}

static struct cuda *self(struct device *d)
{
    cudaSetDevice(((struct cuda *)d)->number);
    return (struct cuda *)d;
}

/* ---- memory, streams, launches --------------------------------------------------------------- */

static void cuda_close(struct device *d)
{
    struct cuda *c = self(d);
    plan_cache_free(c->cache);
    for (int i = 0; i < HANDLES_MAX; i++)
        if (c->others[i])
            cudnnDestroy(c->others[i]);
    if (c->handle)
        cudnnDestroy(c->handle);
    free(c);
}

static int cuda_memory_new(struct device *d, int64_t bytes, void **out, struct err *e)
{
    self(d);
    void *p = NULL;
    cudaError_t error = cudaMalloc(&p, (size_t)(bytes > 0 ? bytes : 1));
    if (error == cudaSuccess)
        error = cudaMemset(p, 0, (size_t)bytes);
    /* It clears beside the host and beside our streams: what they do to it comes later. */
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(NULL);
    if (error != cudaSuccess) {
        char what[64];
        snprintf(what, sizeof what, "reserve %.1f MB of its memory", (double)bytes / 1e6);
        cudaFree(p);
        return failed(e, error, what);
    }
    *out = p;
    return 0;
}

static void cuda_memory_free(struct device *d, void *p)
{
    self(d);
    cudaFree(p);
}

static int cuda_pinned_new(struct device *d, int64_t bytes, void **out, struct err *e)
{
    self(d);
    cudaError_t error = cudaMallocHost(out, (size_t)(bytes > 0 ? bytes : 1));
    return error == cudaSuccess ? 0 : failed(e, error, "pin memory");
}

static void cuda_pinned_free(struct device *d, void *p)
{
    self(d);
    cudaFreeHost(p);
}

static int cuda_stream_new(struct device *d, void **out, struct err *e)
{
    self(d);
    cudaError_t error = cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking);
    return error == cudaSuccess ? 0 : failed(e, error, "make a stream");
}

static void cuda_stream_free(struct device *d, void *stream)
{
    self(d);
    cudaStreamDestroy(stream);
}

static int cuda_upload(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                       struct err *e)
{
    self(d);
    cudaError_t error = cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "take data");
}

static int cuda_download(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                         struct err *e)
{
    self(d);
    cudaError_t error = cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "give data");
}

static int cuda_clear(struct device *d, void *stream, void *p, int64_t bytes, struct err *e)
{
    self(d);
    cudaError_t error = cudaMemsetAsync(p, 0, (size_t)bytes, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "clear memory");
}

static int cuda_launch_step(struct device *d, void *stream, enum kernel kernel,
                            const union kernel_args *args, int64_t items, struct err *e)
{
    self(d);
    cudaError_t error = (cudaError_t)cuda_launch(kernel, args, items, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "start a kernel");
}

static int cuda_wait(struct device *d, void *stream, struct err *e)
{
    self(d);
    cudaError_t error = cudaStreamSynchronize(stream);
    return error == cudaSuccess ? 0 : failed(e, error, "finish its work");
}

static int cuda_event_new(struct device *d, void **out, struct err *e)
{
    self(d);
    cudaError_t error = cudaEventCreateWithFlags((cudaEvent_t *)out, cudaEventDisableTiming);
    return error == cudaSuccess ? 0 : failed(e, error, "make an event");
}

static void cuda_event_free(struct device *d, void *event)
{
    self(d);
    cudaEventDestroy(event);
}

static int cuda_event_record(struct device *d, void *stream, void *event, struct err *e)
{
    self(d);
    cudaError_t error = cudaEventRecord(event, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "mark a point in its work");
}

static int cuda_stream_after(struct device *d, void *stream, void *event, struct err *e)
{
    self(d);
    cudaError_t error = cudaStreamWaitEvent(stream, event, 0);
    return error == cudaSuccess ? 0 : failed(e, error, "order its work");
}

static int cuda_event_wait(struct device *d, void *event, struct err *e)
{
    self(d);
    cudaError_t error = cudaEventSynchronize(event);
    return error == cudaSuccess ? 0 : failed(e, error, "finish its work");
}

static int cuda_record_begin(struct device *d, void *stream, struct err *e)
{
    self(d);
    cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    return error == cudaSuccess ? 0 : failed(e, error, "record a graph");
}

static int cuda_record_end(struct device *d, void *stream, void **recording, struct err *e)
{
    self(d);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (error != cudaSuccess)
        return failed(e, error, "record a graph");
    *recording = exec;
    return 0;
}

static int cuda_replay(struct device *d, void *stream, void *recording, struct err *e)
{
    self(d);
    cudaError_t error = cudaGraphLaunch(recording, stream);
    return error == cudaSuccess ? 0 : failed(e, error, "replay a graph");
}

static int cuda_replay_timed(struct device *d, void *stream, void *recording, int times, double *ms,
                             struct err *e)
{
    self(d);
    cudaEvent_t begin = NULL, end = NULL;
    float taken = 0;
    cudaError_t error = cudaEventCreate(&begin);
    if (error == cudaSuccess)
        error = cudaEventCreate(&end);
    if (error == cudaSuccess)
        error = cudaEventRecord(begin, stream);
    for (int i = 0; error == cudaSuccess && i < times; i++)
        error = cudaGraphLaunch(recording, stream);
    if (error == cudaSuccess)
        error = cudaEventRecord(end, stream);
    if (error == cudaSuccess)
        error = cudaEventSynchronize(end);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&taken, begin, end);
    if (begin)
        cudaEventDestroy(begin);
    if (end)
        cudaEventDestroy(end);
    *ms = (double)taken;
    return error == cudaSuccess ? 0 : failed(e, error, "be timed");
}

static void cuda_recording_free(struct device *d, void *recording)
{
    self(d);
    cudaGraphExecDestroy(recording);
}

/* ---- convolutions ---------------------------------------------------------------------------- */

/* What a candidate's run touches, zeroed. */
enum { RUN_X, RUN_W, RUN_BIAS, RUN_Y, RUN_SECOND, RUN_WORKSPACE, RUN_BUFFERS };

static cudaError_t run_memory(const struct convolution_spec *s, int64_t workspace_bytes,
                              void *memory[RUN_BUFFERS])
{
    int64_t element = s->half ? 2 : 4, pixels = s->n * s->oh * s->ow;
    int64_t bytes[RUN_BUFFERS] = {
        [RUN_X] = s->n * s->c * s->h * s->w * element,
        [RUN_W] = s->k * s->c * s->kernel[0] * s->kernel[1] * element,
        [RUN_BIAS] = s->k * element,
        [RUN_Y] = pixels * s->k * element,
        [RUN_SECOND] = pixels * s->second_pitch * element,
        [RUN_WORKSPACE] = workspace_bytes,
    };
    cudaError_t error = cudaSuccess;
    for (int i = 0; error == cudaSuccess && i < RUN_BUFFERS; i++) {
        error = cudaMalloc(&memory[i], (size_t)bytes[i] + 16);
        if (error == cudaSuccess)
            error = cudaMemset(memory[i], 0, (size_t)bytes[i]);
    }
    return error;
}

/* µs between two points of the default stream. */
static cudaError_t between(cudaEvent_t begin, cudaEvent_t end, double *us)
{
    float ms = 0;
    cudaError_t error = cudaEventSynchronize(end);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&ms, begin, end);
    *us = (double)ms * 1e3;
    return error;
}

static cudaError_t events(cudaEvent_t *begin, cudaEvent_t *end)
{
    cudaError_t error = cudaEventCreate(begin);
    return error == cudaSuccess ? cudaEventCreate(end) : error;
}

/* What a timing took, and its errors but those that stay: see lost(). */
static void release(void *const *memory, int n, cudaEvent_t begin, cudaEvent_t end)
{
    for (int i = 0; i < n; i++)
        cudaFree(memory[i]);
    if (begin)
        cudaEventDestroy(begin);
    if (end)
        cudaEventDestroy(end);
    cudaGetLastError();
}

/* The cheapest of some runs of a candidate, in µs, on memory of its own. */
static int time_candidate(void *ctx, const void *run, int64_t workspace_bytes, double *us)
{
    struct cuda *c = ctx;
    void *memory[RUN_BUFFERS] = {0};
    cudaEvent_t begin = NULL, end = NULL;
    cudaError_t error = events(&begin, &end);
    if (error == cudaSuccess)
        error = run_memory(c->timed, workspace_bytes, memory);
    const struct convolution_memory m = {memory[RUN_X], memory[RUN_W],      memory[RUN_BIAS],
                                         memory[RUN_Y], memory[RUN_SECOND], memory[RUN_WORKSPACE]};
    int rc = 0;
    for (int i = 0; rc == 0 && error == cudaSuccess && i < TIMED_RUNS; i++) {
        double one = 0;
        cudaEventRecord(begin, NULL);
        rc = convolution_try(run, c->handle, &m);
        cudaEventRecord(end, NULL);
        error = between(begin, end, &one);
        if (i == 1 || (i > 1 && one < *us))
            *us = one;
    }
    if (rc == 0 && error != cudaSuccess)
        rc = failed(NULL, error, "time a convolution");
    release(memory, RUN_BUFFERS, begin, end);
    return rc;
}

/* 0: it cannot be measured. */
static double copied_gb_per_s(void)
{
    void *memory[2] = {0};
    cudaEvent_t begin = NULL, end = NULL;
    double best = 0;
    cudaError_t error = events(&begin, &end);
    for (int i = 0; error == cudaSuccess && i < 2; i++)
        error = cudaMalloc(&memory[i], COPIED_BYTES);
    for (int i = 0; error == cudaSuccess && i < TIMED_RUNS; i++) {
        double us = 0;
        cudaEventRecord(begin, NULL);
        error = cudaMemcpyAsync(memory[0], memory[1], COPIED_BYTES, cudaMemcpyDeviceToDevice, NULL);
        cudaEventRecord(end, NULL);
        if (error == cudaSuccess)
            error = between(begin, end, &us);
        double found = us > 0 ? 2e-3 * (double)COPIED_BYTES / us : 0;
        if (error == cudaSuccess && i > 0 && found > best)
            best = found;
    }
    release(memory, 2, begin, end);
    return best;
}

static double pass(void *ctx, int64_t bytes)
{
    struct cuda *c = ctx;
    if (c->copied_gb_per_s == 0)
        c->copied_gb_per_s = copied_gb_per_s();
    if (c->copied_gb_per_s == 0)
        return -1;
    return PASS_US + (double)bytes / (c->copied_gb_per_s * PASS_SHARE * 1e3);
}

static void *another(void *ctx, int thread)
{
    struct cuda *c = ctx;
    if (thread < 0 || thread >= HANDLES_MAX || cudaSetDevice(c->number) != cudaSuccess)
        return NULL;
    if (!c->others[thread] && cudnnCreate(&c->others[thread]) != CUDNN_STATUS_SUCCESS)
        c->others[thread] = NULL;
    void *handle = c->others[thread];
    return handle;
}

/* An error that is not sticky goes when it is asked for, be it the question's own; with one that
 * is, nothing works again. */
static bool lost(void *ctx)
{
    self(ctx);
    for (int i = 0; i < 2; i++) {
        cudaGetLastError();
        if (cudaStreamSynchronize(NULL) == cudaSuccess)
            return false;
    }
    return true;
}

static int cuda_convolution_plan(struct device *d, const struct convolution_spec *spec,
                                 struct convolution_made *out, struct err *e)
{
    struct cuda *c = self(d);
    struct convolution_target target = {.handle = c->handle, .lost = lost, .ctx = c};
    struct convolution *made = NULL;
    enum convolution_fused kept_fused;
    char key[PLAN_SPEC_BYTES];
    if (!c->untuned) {
        target.time = time_candidate;
        target.pass = pass;
        target.another = another;
    }
    plan_spec_text(spec, key);
    const char *json = plan_cache_find(c->cache, key, &kept_fused);
    if (json && convolution_load(&target, spec, kept_fused, json, &made, NULL) == 0) {
        d->kept++;
    } else {
        struct buf text;
        c->timed = spec;
        cudnnSetStream(c->handle, NULL);
        int rc = convolution_plan(&target, spec, &made, e);
        if (rc != 0)
            return rc;
        d->made++;
        buf_init(&text, PLAN_CACHE_MAX);
        /* One that was not timed would be taken for one that was. */
        if (!c->untuned && plan_cache_keeps(c->cache) && convolution_save(made, &text, NULL) == 0)
            plan_cache_keep(c->cache, key, convolution_fused(made), buf_text(&text), text.len);
        buf_fini(&text);
    }
    *out = (struct convolution_made){made, convolution_fused(made), convolution_workspace(made)};
    return 0;
}

static void cuda_convolution_free(struct device *d, void *plan)
{
    self(d);
    convolution_free(plan);
}

/* The process may be killed before it closes the device. */
static void cuda_tuned(struct device *d)
{
    plan_cache_write(self(d)->cache);
}

static int cuda_convolution_run(struct device *d, void *stream, void *plan,
                                const struct convolution_spec *spec,
                                const struct convolution_memory *m, struct err *e)
{
    struct cuda *c = self(d);
    (void)spec;
    cudnnStatus_t status = cudnnSetStream(c->handle, stream);
    if (status != CUDNN_STATUS_SUCCESS)
        return cudnn_failed(e, status, "take a stream");
    return convolution_run(plan, c->handle, m, e);
}

static const struct device_ops cuda_ops = {
    .close = cuda_close,
    .memory_new = cuda_memory_new,
    .memory_free = cuda_memory_free,
    .pinned_new = cuda_pinned_new,
    .pinned_free = cuda_pinned_free,
    .stream_new = cuda_stream_new,
    .stream_free = cuda_stream_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .clear = cuda_clear,
    .launch = cuda_launch_step,
    .wait = cuda_wait,
    .event_new = cuda_event_new,
    .event_free = cuda_event_free,
    .event_record = cuda_event_record,
    .stream_after = cuda_stream_after,
    .event_wait = cuda_event_wait,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .replay = cuda_replay,
    .recording_free = cuda_recording_free,
    .replay_timed = cuda_replay_timed,
    .convolution_plan = cuda_convolution_plan,
    .convolution_free = cuda_convolution_free,
    .convolution_run = cuda_convolution_run,
    .tuned = cuda_tuned,
};

/* ---- opening --------------------------------------------------------------------------------- */

static void uuid_text(const cudaUUID_t *u, char out[48])
{
    const unsigned char *b = (const unsigned char *)u->bytes;
    snprintf(out, 48, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

/* Number and properties of the device that is meant. */
static int find(const char *selector, int *number, struct cudaDeviceProp *p, struct err *e)
{
    int count = 0, found = 0;
    size_t length = selector ? strlen(selector) : 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0)
        return err_set(e, ERR_DEVICE, "no GPU can be used: %s",
                       error != cudaSuccess ? cudaGetErrorString(error) : "none is there");
    for (int i = 0; i < count && (found == 0 || length > 0); i++) {
        struct cudaDeviceProp candidate;
        char index[16], uuid[48];
        if (cudaGetDeviceProperties(&candidate, i) != cudaSuccess)
            continue;
        snprintf(index, sizeof index, "%d", i);
        uuid_text(&candidate.uuid, uuid);
        if (length == 0 || strcmp(selector, index) == 0 ||
            (length > 4 && strncmp(selector, uuid, length) == 0)) {
            *number = i;
            *p = candidate;
            found++;
        }
    }
    if (found == 0)
        return err_set(e, ERR_DEVICE, "no GPU '%s' among %d: name one by its index or UUID",
                       selector ? selector : "", count);
    if (found > 1)
        return err_set(e, ERR_DEVICE, "'%s' begins the UUID of %d GPUs: write more of it", selector,
                       found);
    return 0;
}

int device_cuda_open(const char *selector, const char *cache_folder, const char *key, bool untuned,
                     struct device **out, struct err *e)
{
    struct cudaDeviceProp p;
    char uuid[48];
    int number = 0, rc = find(selector, &number, &p, e);
    if (rc != 0)
        return rc;
    struct cuda *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a device");
    c->device.ops = &cuda_ops;
    c->number = number;
    c->untuned = untuned;
    uuid_text(&p.uuid, uuid);
    snprintf(c->device.text, sizeof c->device.text, "%.32s (%s), cuDNN %s", p.name, uuid,
             convolution_library());
    cudaError_t error = cudaSetDevice(number);
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    if (error != cudaSuccess)
        rc = failed(e, error, "be chosen");
    else if ((status = cudnnCreate(&c->handle)) != CUDNN_STATUS_SUCCESS)
        rc = cudnn_failed(e, status, "start");
    else
        rc = plan_cache_open(cache_folder, key, p.name, convolution_library(), &c->cache, e);
    if (rc != 0) {
        if (c->handle)
            cudnnDestroy(c->handle);
        free(c);
        return rc;
    }
    *out = &c->device;
    return 0;
}
