/*
 * stack.c - a stack of images through a plan: see cuda_run_stack() in engine_plan.h
 *
 * Three streams: copies to the device, computing, copies back. Batch k lives in slot k mod n. What
 * keeps one batch of a slot from the next, where * is the host:
 *
 *     *fill k          after upload of k-n        (its pinned memory was being read)
 *      upload k        after compute of k-n       (its device memory was being read)
 *      compute k       after upload of k, download of k-n
 *     *take k-n        after download of k-n
 *      download k      after compute of k, take of k-n   (its pinned memory was being read)
 *
 * so that with two slots the host fills and takes while a batch is computed, and both copies run
 * beside it. Of a last batch that is not full only the images that are there are copied; the other
 * lanes hold what they held.
 */
#include "cuda/device.h"
#include "cuda/engine_plan.h"
#include "node/base/err.h"

struct run {
    struct cuda_work *w;
    const struct device_ops *ops;
    struct device *d;
    const struct engine_stack *stack;
    int64_t batch, batches, *bad;
    struct err *e;
};

static struct cuda_slot *slot_of(const struct run *r, int64_t k)
{
    return &r->w->slot[k % r->w->plan->n_slots];
}

/* Images in batch k. */
static int64_t images_in(const struct run *r, int64_t k)
{
    int64_t left = r->stack->images - k * r->batch;
    return left < r->batch ? left : r->batch;
}

static int fill(const struct run *r, int64_t k)
{
    const struct program *p = &r->w->plan->program;
    const struct cuda_slot *s = slot_of(r, k);
    int rc = r->ops->event_wait(r->d, s->uploaded, r->e);
    for (int64_t j = 0; rc == 0 && j < images_in(r, k); j++) {
        float *in[GRAPH_INPUTS_MAX];
        for (int i = 0; i < p->n_inputs; i++)
            in[i] = (float *)s->pinned_in[i] + j * (p->input_count[i] / r->batch);
        rc = r->stack->fill(r->stack->ctx, k * r->batch + j, in, r->e);
    }
    return rc;
}

static int upload(const struct run *r, int64_t k)
{
    const struct program *p = &r->w->plan->program;
    struct cuda_slot *s = slot_of(r, k);
    int rc = r->ops->stream_after(r->d, r->w->upload, s->computed, r->e);
    for (int i = 0; rc == 0 && i < p->n_inputs; i++)
        rc = r->ops->upload(
            r->d, r->w->upload, s->in[i], s->pinned_in[i],
            images_in(r, k) * (p->input_count[i] / r->batch) * (int64_t)sizeof(float), r->e);
    return rc != 0 ? rc : r->ops->event_record(r->d, r->w->upload, s->uploaded, r->e);
}

static int compute(const struct run *r, int64_t k)
{
    struct cuda_slot *s = slot_of(r, k);
    int rc = r->ops->stream_after(r->d, r->w->stream, s->uploaded, r->e);
    if (rc == 0)
        rc = r->ops->stream_after(r->d, r->w->stream, s->downloaded, r->e);
    if (rc == 0)
        rc = cuda_compute(r->w, s, r->e);
    return rc != 0 ? rc : r->ops->event_record(r->d, r->w->stream, s->computed, r->e);
}

static int take(const struct run *r, int64_t k)
{
    const struct program *p = &r->w->plan->program;
    const struct cuda_slot *s = slot_of(r, k);
    int rc = r->ops->event_wait(r->d, s->downloaded, r->e);
    for (int64_t j = 0; rc == 0 && j < images_in(r, k); j++) {
        const float *out[GRAPH_INPUTS_MAX];
        for (int i = 0; i < p->n_outputs; i++)
            out[i] = (const float *)s->pinned_out[i] + j * (p->output_count[i] / r->batch);
        if (s->pinned_flags[j] != 0) {
            rc = err_set(r->e, ERR_NUMERIC, "NaN or infinity in what went in or came out");
            *r->bad = k * r->batch + j;
        } else {
            rc = r->stack->take(r->stack->ctx, k * r->batch + j, out, r->e);
        }
    }
    return rc;
}

static int download(const struct run *r, int64_t k)
{
    const struct program *p = &r->w->plan->program;
    struct cuda_slot *s = slot_of(r, k);
    int rc = r->ops->stream_after(r->d, r->w->download, s->computed, r->e);
    for (int i = 0; rc == 0 && i < p->n_outputs; i++)
        rc = r->ops->download(
            r->d, r->w->download, s->pinned_out[i], s->out[i],
            images_in(r, k) * (p->output_count[i] / r->batch) * (int64_t)sizeof(float), r->e);
    if (rc == 0)
        rc = r->ops->download(r->d, r->w->download, s->pinned_flags, s->flags,
                              p->batch * (int64_t)sizeof(int32_t), r->e);
    return rc != 0 ? rc : r->ops->event_record(r->d, r->w->download, s->downloaded, r->e);
}

int cuda_run_stack(const void *impl, void *work, const struct engine_stack *stack, int64_t batch,
                   int64_t *bad, struct err *e)
{
    const struct cuda_plan *plan = impl;
    struct cuda_work *w = work;
    struct run r = {.w = w,
                    .ops = plan->device->ops,
                    .d = plan->device,
                    .stack = stack,
                    .batch = batch,
                    .batches = (stack->images + batch - 1) / batch,
                    .bad = bad,
                    .e = e};
    int64_t slots = plan->n_slots;
    int rc = 0;
    for (int64_t k = 0; rc == 0 && k < r.batches + slots; k++) {
        bool goes = k < r.batches;
        if (goes)
            rc = fill(&r, k);
        if (rc == 0 && goes)
            rc = upload(&r, k);
        if (rc == 0 && goes)
            rc = compute(&r, k);
        if (rc == 0 && k >= slots && k - slots < r.batches)
            rc = take(&r, k - slots);
        if (rc == 0 && goes)
            rc = download(&r, k);
    }
    /* After a failure the slots must be at rest before anybody uses them again. */
    if (rc != 0) {
        r.ops->wait(r.d, w->upload, NULL);
        r.ops->wait(r.d, w->stream, NULL);
        r.ops->wait(r.d, w->download, NULL);
    }
    return rc;
}
