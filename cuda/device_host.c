/*
 * device_host.c - the device of device.h on the host: kernel bodies in loops, plain convolutions
 *
 * For tests and for machines without a GPU that want to check a CUDA program's every index, and the
 * order in which its streams work. Slow.
 *
 * Streams are queues. An operation is executed when the host waits for it or for something that
 * comes after it, not before: a host that reads a result without having waited sees NaN, one that
 * fills a buffer too early sees its own numbers come out. Each operation is an access to whole
 * blocks of memory; vector clocks (one counter for each stream, joined by events and by the host's
 * waits) say whether two accesses are ordered, and two that are not, one of them writing, are
 * refused with ERR_BUG.
 */
#include "cuda/device.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/launch.h"
#include "cuda/plan_cache.h"
#include "node/base/err.h"

#define STREAMS_MAX 64
#define BLOCKS_MAX  512

/* How much each stream had done when something happened. */
struct instant {
    uint32_t done[STREAMS_MAX];
};

struct block {
    char *memory; /* NULL: free */
    size_t bytes;
    bool pinned;
    int writer; /* stream of the last operation that wrote, -1: none */
    uint32_t written, read[STREAMS_MAX];
};

enum op_kind { OP_COPY, OP_CLEAR, OP_LAUNCH, OP_CONVOLUTION, OP_AFTER, OP_REPLAY };
struct op {
    enum op_kind kind;
    void *to;
    const void *from;
    int64_t bytes, items;
    enum kernel kernel;
    union kernel_args args;
    struct convolution_spec spec;
    const void *w, *bias;
    void *second;
    int stream; /* OP_AFTER: this stream's first … */
    uint32_t count;
    const struct recording *recording;
};

struct ops {
    struct op *op;
    size_t n, cap;
};

struct recording {
    struct ops ops;
};

struct stream {
    bool used;
    int id;
    struct ops queue; /* [0] is operation number `executed` + 1 */
    uint32_t given, executed;
    struct instant knows; /* what is done before the next operation begins */
    struct recording *recording;
};

struct event {
    int stream; /* -1: never recorded */
    uint32_t count;
    struct instant knows;
};

struct host {
    struct device device;
    struct host_options options;
    struct plan_cache *cache;
    pthread_mutex_t lock;
    struct stream stream[STREAMS_MAX];
    struct block block[BLOCKS_MAX];
    struct instant host; /* what the host has waited for */
    int64_t memory, replays;
    bool lost;
};

static struct host *enter(struct device *d)
{
    struct host *h = (struct host *)d;
    pthread_mutex_lock(&h->lock);
    if (h->options.lost && h->options.lost(h->options.ctx))
        h->lost = true;
    return h;
}

static int leave(struct host *h, int rc)
{
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* ERR_DEVICE once the device is gone. */
static int alive(const struct host *h, struct err *e)
{
    return h->lost ? err_set(e, ERR_DEVICE, "the GPU stopped working (as a test had asked for)")
                   : 0;
}

static void join(struct instant *to, const struct instant *from)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (from->done[i] > to->done[i])
            to->done[i] = from->done[i];
}

/* ---- memory ---------------------------------------------------------------------------------- */

static struct block *block_of(struct host *h, const void *p)
{
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct block *b = &h->block[i];
        if (b->memory && (const char *)p >= b->memory && (const char *)p < b->memory + b->bytes)
            return b;
    }
    return NULL;
}

static int block_new(struct device *d, int64_t bytes, bool pinned, void **out, struct err *e)
{
    struct host *h = enter(d);
    size_t rounded = ((size_t)(bytes > 0 ? bytes : 1) + 255) / 256 * 256;
    struct block *b = NULL;
    for (int i = 0; i < BLOCKS_MAX && !b; i++)
        if (!h->block[i].memory)
            b = &h->block[i];
    int rc = alive(h, e);
    if (rc == 0 && !b)
        rc = err_set(e, ERR_LIMIT, "the host twin has %d blocks of memory", BLOCKS_MAX);
    if (rc == 0 && !pinned && h->options.memory_bytes > 0 &&
        h->memory + (int64_t)rounded > h->options.memory_bytes)
        rc = err_set(e, ERR_NOMEM, "the GPU cannot reserve %.1f MB of its memory: out of memory",
                     (double)bytes / 1e6);
    void *p = rc == 0 ? aligned_alloc(256, rounded) : NULL;
    if (rc == 0 && !p)
        rc = err_set(e, ERR_NOMEM, "no memory for %lld bytes", (long long)bytes);
    if (rc == 0) {
        memset(p, 0, rounded);
        *b = (struct block){.memory = p, .bytes = rounded, .pinned = pinned, .writer = -1};
        h->memory += pinned ? 0 : (int64_t)rounded;
        *out = p;
    }
    return leave(h, rc);
}

static int host_memory_new(struct device *d, int64_t bytes, void **out, struct err *e)
{
    return block_new(d, bytes, false, out, e);
}

static int host_pinned_new(struct device *d, int64_t bytes, void **out, struct err *e)
{
    return block_new(d, bytes, true, out, e);
}

/* ---- operations ------------------------------------------------------------------------------ */

/* Is the pointer that stands there in a kernel's arguments one to what it writes? */
static bool writes_at(enum kernel kernel, size_t at)
{
    size_t out;
    switch (kernel) {
#define X(name)                                                                                    \
    case KERNEL_##name:                                                                            \
        out = offsetof(struct name##_args, out);                                                   \
        break;
        KERNEL_LIST(X)
#undef X
    default:
        return false;
    }
    /* A second place is never the first word of the arguments. */
    size_t more = kernel == KERNEL_import   ? offsetof(struct import_args, flags)
                  : kernel == KERNEL_fold   ? offsetof(struct fold_args, flags)
                  : kernel == KERNEL_export ? offsetof(struct export_args, flags)
                  : kernel == KERNEL_fork   ? offsetof(struct fork_args, second)
                                            : 0;
    return at == out || (more > 0 && at == more);
}

/* Elements as floats; NULL without memory. */
static float *floats(const void *p, bool half, int64_t n)
{
    struct kernel_array a = {(void *)(uintptr_t)p, half};
    float *out = malloc((size_t)(n + 1) * sizeof *out);
    for (int64_t i = 0; out && i < n; i++)
        out[i] = load(a, i);
    return out;
}

/* All channels of one place of the output: sum[k], over rows, columns, input channels in turn.
 * w is kh,kw,C,K. */
static void convolve_at(const struct convolution_spec *s, const float *x, const float *w, int64_t n,
                        int64_t oy, int64_t ox, float *restrict sum)
{
    memset(sum, 0, (size_t)s->k * sizeof *sum);
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        int64_t y = oy * s->stride[0] - s->pad_begin[0] + i * s->dilation[0];
        if (y < 0 || y >= s->h)
            continue;
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            int64_t xx = ox * s->stride[1] - s->pad_begin[1] + j * s->dilation[1];
            if (xx < 0 || xx >= s->w)
                continue;
            const float *from = x + ((n * s->h + y) * s->w + xx) * s->c;
            const float *weight = w + (i * s->kernel[1] + j) * s->c * s->k;
            for (int64_t c = 0; c < s->c; c++, weight += s->k)
                for (int64_t k = 0; k < s->k; k++)
                    sum[k] += from[c] * weight[k];
        }
    }
}

/* What a plan does with a sum: pixel p of all, channel k. */
static void conclude(enum convolution_fused fused, const struct op *op, int64_t p, int64_t k,
                     float v)
{
    const struct convolution_spec *s = &op->spec;
    struct kernel_array y = {op->to, s->half}, second = {op->second, s->half};
    struct kernel_array bias = {(void *)(uintptr_t)op->bias, s->half};
    bool all = fused == CONVOLUTION_ALL;
    if (fused >= CONVOLUTION_BIAS && s->bias)
        v += load(bias, k);
    if (all && s->second_pitch != 0)
        store(second, p * s->second_pitch + k, v < 0 ? 0 : v);
    if (all && s->relu && v < 0)
        v *= s->leak;
    store(y, p * s->k + k, v);
}

/* Without memory the result is NaN, which nobody overlooks. */
static void convolve(enum convolution_fused fused, bool wrong, const struct op *op)
{
    const struct convolution_spec *s = &op->spec;
    int64_t taps = s->kernel[0] * s->kernel[1] * s->c;
    float *x = floats(op->from, s->half, s->n * s->h * s->w * s->c);
    float *w = floats(op->w, s->half, s->k * taps);
    float *turned = malloc((size_t)(s->k * taps + 1) * sizeof *turned);
    float *sum = malloc((size_t)(s->k + 1) * sizeof *sum);
    bool whole = x && w && turned && sum;
    for (int64_t i = 0; whole && i < s->k * taps; i++)
        turned[i % taps * s->k + i / taps] = w[i];
    for (int64_t p = 0; p < s->n * s->oh * s->ow; p++) {
        if (whole && !wrong)
            convolve_at(s, x, turned, p / (s->oh * s->ow), p / s->ow % s->oh, p % s->ow, sum);
        for (int64_t k = 0; k < s->k; k++)
            conclude(fused, op, p, k, !whole ? NAN : wrong ? 0 : sum[k]);
    }
    free(x);
    free(w);
    free(turned);
    free(sum);
}

static void complete(struct host *h, int stream, uint32_t count);

static void execute(struct host *h, const struct op *op)
{
    switch (op->kind) {
    case OP_COPY:
        if (op->bytes > 0)
            memcpy(op->to, op->from, (size_t)op->bytes);
        break;
    case OP_CLEAR:
        memset(op->to, 0, (size_t)op->bytes);
        break;
    case OP_LAUNCH:
        host_compute(op->kernel, &op->args, op->items);
        break;
    case OP_CONVOLUTION:
        convolve(h->options.fused, h->options.wrong, op);
        break;
    case OP_AFTER:
        complete(h, op->stream, op->count);
        break;
    case OP_REPLAY:
        for (size_t i = 0; i < op->recording->ops.n; i++)
            execute(h, &op->recording->ops.op[i]);
        break;
    }
}

/* Executes the first `count` operations of a stream, and what they wait for. */
static void complete(struct host *h, int stream, uint32_t count)
{
    struct stream *s = &h->stream[stream];
    uint32_t before = s->executed;
    while (s->executed < count) {
        const struct op op = s->queue.op[s->executed++ - before];
        execute(h, &op);
    }
    size_t n = s->executed - before;
    s->queue.n -= n;
    if (n > 0)
        memmove(s->queue.op, s->queue.op + n, s->queue.n * sizeof *s->queue.op);
}

static void complete_all(struct host *h)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (h->stream[i].used)
            complete(h, i, h->stream[i].given);
}

/* The next operation of s touches the block: is it ordered after those that did before? */
static int touch(struct stream *s, struct block *b, bool writes, struct err *e)
{
    bool ordered = b->writer < 0 || b->writer == s->id || s->knows.done[b->writer] >= b->written;
    for (int i = 0; writes && ordered && i < STREAMS_MAX; i++)
        ordered = i == s->id || s->knows.done[i] >= b->read[i];
    if (!ordered)
        return err_set(e, ERR_BUG, "two streams use one block of %zu bytes and nothing orders them",
                       b->bytes);
    if (writes) {
        b->writer = s->id;
        b->written = s->given + 1;
    } else {
        b->read[s->id] = s->given + 1;
    }
    return 0;
}

static int touch_at(struct host *h, struct stream *s, const void *p, bool writes, struct err *e)
{
    struct block *b = p ? block_of(h, p) : NULL;
    return b ? touch(s, b, writes, e) : 0;
}

static int touch_op(struct host *h, struct stream *s, const struct op *op, struct err *e)
{
    int rc = 0;
    switch (op->kind) {
    case OP_CLEAR:
        return touch_at(h, s, op->to, true, e);
    case OP_COPY:
    case OP_CONVOLUTION:
        rc = touch_at(h, s, op->from, false, e);
        if (rc == 0)
            rc = touch_at(h, s, op->w, false, e);
        if (rc == 0)
            rc = touch_at(h, s, op->bias, false, e);
        if (rc == 0)
            rc = touch_at(h, s, op->second, true, e);
        return rc != 0 ? rc : touch_at(h, s, op->to, true, e);
    case OP_LAUNCH: /* every word of the arguments that is an address of ours */
        for (size_t at = 0; rc == 0 && at + sizeof(void *) <= sizeof op->args; at += 8) {
            const void *p;
            memcpy(&p, (const char *)&op->args + at, sizeof p);
            rc = touch_at(h, s, p, writes_at(op->kernel, at), e);
        }
        return rc;
    case OP_REPLAY:
        for (size_t i = 0; rc == 0 && i < op->recording->ops.n; i++)
            rc = touch_op(h, s, &op->recording->ops.op[i], e);
        return rc;
    default:
        return 0;
    }
}

static int append(struct ops *list, const struct op *op, struct err *e)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        struct op *more = realloc(list->op, cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NOMEM, "no memory for a queue");
        list->op = more;
        list->cap = cap;
    }
    list->op[list->n++] = *op;
    return 0;
}

/* Queues or records it. */
static int give(struct device *d, void *stream, const struct op *op, struct err *e)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    int rc = alive(h, e);
    if (rc == 0 && s->recording) {
        rc = append(&s->recording->ops, op, e);
    } else if (rc == 0) {
        join(&s->knows, &h->host);
        rc = touch_op(h, s, op, e);
        if (rc == 0)
            rc = append(&s->queue, op, e);
        if (rc == 0)
            s->knows.done[s->id] = ++s->given;
    }
    return leave(h, rc);
}

static void host_memory_free(struct device *d, void *p)
{
    struct host *h = enter(d);
    struct block *b = block_of(h, p);
    complete_all(h); /* as cudaFree() does */
    if (b && !b->pinned)
        h->memory -= (int64_t)b->bytes;
    if (b)
        *b = (struct block){0};
    free(p);
    leave(h, 0);
}

/* ---- streams and events ---------------------------------------------------------------------- */

static int host_stream_new(struct device *d, void **out, struct err *e)
{
    struct host *h = enter(d);
    int rc = alive(h, e);
    struct stream *s = NULL;
    for (int i = 0; i < STREAMS_MAX && !s; i++)
        if (!h->stream[i].used)
            s = &h->stream[i];
    if (rc == 0 && !s)
        rc = err_set(e, ERR_LIMIT, "the host twin has %d streams", STREAMS_MAX);
    if (rc == 0) {
        s->used = true; /* its counters go on where the last stream in this place ended */
        s->id = (int)(s - h->stream);
        s->knows = h->host;
        *out = s;
    }
    return leave(h, rc);
}

static void host_stream_free(struct device *d, void *stream)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    complete(h, s->id, s->given);
    join(&h->host, &s->knows);
    free(s->queue.op);
    s->queue = (struct ops){0};
    s->used = false;
    leave(h, 0);
}

static int host_wait(struct device *d, void *stream, struct err *e)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    int rc = alive(h, e);
    if (rc == 0) {
        complete(h, s->id, s->given);
        join(&h->host, &s->knows);
    }
    return leave(h, rc);
}

static int host_event_new(struct device *d, void **out, struct err *e)
{
    (void)d;
    struct event *event = calloc(1, sizeof *event);
    if (!event)
        return err_set(e, ERR_NOMEM, "no memory for an event");
    event->stream = -1;
    *out = event;
    return 0;
}

static void host_event_free(struct device *d, void *event)
{
    (void)d;
    free(event);
}

static int host_event_record(struct device *d, void *stream, void *event, struct err *e)
{
    struct host *h = enter(d);
    const struct stream *s = stream;
    int rc = alive(h, e);
    if (rc == 0)
        *(struct event *)event = (struct event){s->id, s->given, s->knows};
    return leave(h, rc);
}

static int host_stream_after(struct device *d, void *stream, void *event, struct err *e)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    const struct event *v = event;
    int rc = alive(h, e);
    if (rc == 0 && v->stream >= 0) {
        struct op op = {.kind = OP_AFTER, .stream = v->stream, .count = v->count};
        rc = append(&s->queue, &op, e);
        if (rc == 0) {
            join(&s->knows, &v->knows);
            s->knows.done[s->id] = ++s->given;
        }
    }
    return leave(h, rc);
}

static int host_event_wait(struct device *d, void *event, struct err *e)
{
    struct host *h = enter(d);
    const struct event *v = event;
    int rc = alive(h, e);
    if (rc == 0 && v->stream >= 0) {
        complete(h, v->stream, v->count);
        join(&h->host, &v->knows);
    }
    return leave(h, rc);
}

/* ---- what is queued -------------------------------------------------------------------------- */

static int host_upload(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                       struct err *e)
{
    struct op op = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    return give(d, stream, &op, e);
}

static int host_download(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                         struct err *e)
{
    struct op op = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
    int rc = give(d, stream, &op, e);
    if (rc == 0)
        memset(to, 0xff, (size_t)bytes); /* NaN, until somebody waits for it */
    return rc;
}

static int host_clear(struct device *d, void *stream, void *p, int64_t bytes, struct err *e)
{
    struct op op = {.kind = OP_CLEAR, .to = p, .bytes = bytes};
    return give(d, stream, &op, e);
}

static int host_launch(struct device *d, void *stream, enum kernel kernel,
                       const union kernel_args *args, int64_t items, struct err *e)
{
    if (kernel < 0 || kernel >= KERNELS)
        return err_set(e, ERR_BUG, "no kernel %d", (int)kernel);
    struct op op = {.kind = OP_LAUNCH, .kernel = kernel, .args = *args, .items = items};
    return give(d, stream, &op, e);
}

static int host_convolution_run(struct device *d, void *stream, void *plan,
                                const struct convolution_spec *s,
                                const struct convolution_memory *m, struct err *e)
{
    (void)plan;
    struct op op = {.kind = OP_CONVOLUTION,
                    .spec = *s,
                    .from = m->x,
                    .w = m->w,
                    .bias = m->bias,
                    .to = m->y,
                    .second = m->second};
    return give(d, stream, &op, e);
}

static int host_record_begin(struct device *d, void *stream, struct err *e)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    int rc = alive(h, e);
    if (rc == 0 && (s->recording = calloc(1, sizeof *s->recording)) == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for a recording");
    return leave(h, rc);
}

static int host_record_end(struct device *d, void *stream, void **recording, struct err *e)
{
    struct host *h = enter(d);
    struct stream *s = stream;
    *recording = s->recording;
    s->recording = NULL;
    return leave(h, alive(h, e));
}

static int host_replay(struct device *d, void *stream, void *recording, struct err *e)
{
    struct host *h = enter(d);
    if (h->options.replays > 0 && h->replays++ >= h->options.replays)
        h->lost = true;
    leave(h, 0);
    struct op op = {.kind = OP_REPLAY, .recording = recording};
    return give(d, stream, &op, e);
}

static int host_replay_timed(struct device *d, void *stream, void *recording, int times, double *ms,
                             struct err *e)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int rc = 0;
    for (int i = 0; rc == 0 && i < times; i++)
        rc = host_replay(d, stream, recording, e);
    if (rc == 0)
        rc = host_wait(d, stream, e);
    clock_gettime(CLOCK_MONOTONIC, &end);
    *ms = (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
    return rc;
}

static void host_recording_free(struct device *d, void *recording)
{
    struct host *h = enter(d);
    struct recording *r = recording;
    complete_all(h);
    free(r->ops.op);
    free(r);
    leave(h, 0);
}

/* ---- convolutions, opening ------------------------------------------------------------------- */

static int host_convolution_plan(struct device *d, const struct convolution_spec *spec,
                                 struct convolution_made *out, struct err *e)
{
    struct host *h = enter(d);
    enum convolution_fused fused = h->options.fused;
    char key[PLAN_SPEC_BYTES];
    int rc = alive(h, e);
    if (rc == 0) {
        plan_spec_text(spec, key);
        if (plan_cache_find(h->cache, key, &fused)) {
            d->kept++;
        } else {
            d->made++;
            if (plan_cache_keeps(h->cache))
                plan_cache_keep(h->cache, key, fused, "host", 4);
        }
        *out = (struct convolution_made){.plan = d, .fused = h->options.fused};
    }
    return leave(h, rc);
}

static void host_plan_free(struct device *d, void *plan)
{
    (void)d;
    (void)plan;
}

static void host_tuned(struct device *d)
{
    plan_cache_write(((struct host *)d)->cache);
}

static void host_close(struct device *d)
{
    struct host *h = (struct host *)d;
    plan_cache_free(h->cache);
    for (int i = 0; i < BLOCKS_MAX; i++)
        free(h->block[i].memory);
    for (int i = 0; i < STREAMS_MAX; i++)
        free(h->stream[i].queue.op);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static const struct device_ops host_ops = {
    .close = host_close,
    .memory_new = host_memory_new,
    .memory_free = host_memory_free,
    .pinned_new = host_pinned_new,
    .pinned_free = host_memory_free,
    .stream_new = host_stream_new,
    .stream_free = host_stream_free,
    .upload = host_upload,
    .download = host_download,
    .clear = host_clear,
    .launch = host_launch,
    .wait = host_wait,
    .event_new = host_event_new,
    .event_free = host_event_free,
    .event_record = host_event_record,
    .stream_after = host_stream_after,
    .event_wait = host_event_wait,
    .record_begin = host_record_begin,
    .record_end = host_record_end,
    .replay = host_replay,
    .recording_free = host_recording_free,
    .replay_timed = host_replay_timed,
    .convolution_plan = host_convolution_plan,
    .convolution_free = host_plan_free,
    .convolution_run = host_convolution_run,
    .tuned = host_tuned,
};

int device_host_open(const struct host_options *o, struct device **out, struct err *e)
{
    struct host *h = calloc(1, sizeof *h);
    if (!h)
        return err_set(e, ERR_NOMEM, "no memory for a device");
    int rc = plan_cache_open(o->cache_folder, o->key, "host", "0", &h->cache, e);
    if (rc != 0) {
        free(h);
        return rc;
    }
    pthread_mutex_init(&h->lock, NULL);
    h->device.ops = &host_ops;
    h->options = *o;
    h->options.cache_folder = h->options.key = NULL; /* borrowed for the call only */
    snprintf(h->device.text, sizeof h->device.text, "host twin of the CUDA kernels");
    *out = &h->device;
    return 0;
}
