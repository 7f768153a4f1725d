/* engine_plan.c - see engine_plan.h: plans and workspaces around a program and a device */
#include "cuda/engine_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "node/base/err.h"

int cuda_estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                  struct err *e)
{
    struct device *device;
    struct program p;
    int rc = device_host_open(&(struct host_options){.fused = CONVOLUTION_ALL}, &device, e);
    if (rc != 0)
        return rc;
    rc = program_make(g, o->precision == ENGINE_F16, o->precision == ENGINE_TF32, device, &p, e);
    if (rc == 0) {
        int64_t ends = 0;
        for (int i = 0; i < p.n_inputs; i++)
            ends += p.input_count[i] * (int64_t)sizeof(float);
        for (int i = 0; i < p.n_outputs; i++)
            ends += p.output_count[i] * (int64_t)sizeof(float);
        *cost = (struct engine_cost){.macs = graph_macs(g),
                                     .plan_bytes = p.weight_bytes,
                                     .workspace_bytes = p.arena_bytes + ends * (o->stream ? 2 : 1),
                                     .compile_bytes = p.weight_bytes};
        program_fini(&p);
    }
    device->ops->close(device);
    return rc;
}

void cuda_plan_free(void *impl)
{
    struct cuda_plan *plan = impl;
    if (!plan)
        return;
    if (plan->device) {
        if (plan->weights)
            plan->device->ops->memory_free(plan->device, plan->weights);
        program_fini(&plan->program);
        plan->device->ops->close(plan->device);
    }
    pthread_mutex_destroy(&plan->mutex);
    free(plan);
}

static int upload_weights(struct cuda_plan *plan, struct err *e)
{
    struct device *d = plan->device;
    struct program *p = &plan->program;
    void *stream;
    int rc = d->ops->memory_new(d, p->weight_bytes + 16, &plan->weights, e);
    if (rc != 0)
        return rc;
    rc = d->ops->stream_new(d, &stream, e);
    if (rc != 0)
        return rc;
    rc = d->ops->upload(d, stream, plan->weights, p->weights, p->weight_bytes, e);
    if (rc == 0)
        rc = d->ops->wait(d, stream, e);
    d->ops->stream_free(d, stream);
    free(p->weights);
    p->weights = NULL;
    return rc;
}

int cuda_compile_on(cuda_open_device *open, const struct graph *g, const struct engine_options *o,
                    void **impl, struct err *e)
{
    struct cuda_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    pthread_mutex_init(&plan->mutex, NULL);
    plan->precision = o->precision;
    plan->n_slots = o->stream ? CUDA_SLOTS : 1;
    int rc = open(o, &plan->device, e);
    if (rc == 0)
        rc = program_make(g, o->precision == ENGINE_F16, o->precision == ENGINE_TF32, plan->device,
                          &plan->program, e);
    if (rc == 0) {
        plan->device->ops->tuned(plan->device);
        rc = upload_weights(plan, e);
    }
    if (rc != 0)
        cuda_plan_free(plan);
    else
        *impl = plan;
    return rc;
}

void cuda_describe(const void *impl, char *out, size_t size)
{
    static const char *const words[] = {"float", "tf32", "half"};
    const struct cuda_plan *plan = impl;
    snprintf(out, size, "cuda %s, %s", words[plan->precision], plan->device->text);
}

void cuda_tuned(const void *impl, struct engine_tuned *out)
{
    const struct cuda_plan *plan = impl;
    *out = (struct engine_tuned){plan->device->kept, plan->device->made};
}

/* ---- running --------------------------------------------------------------------------------- */

static void *address(const struct cuda_work *w, const struct cuda_slot *slot, struct place place)
{
    switch (place.region) {
    case REGION_ARENA:
        return (char *)w->arena + place.offset;
    case REGION_WEIGHTS:
        return (char *)w->plan->weights + place.offset;
    case REGION_INPUT:
        return slot->in[place.offset];
    case REGION_OUTPUT:
        return slot->out[place.offset];
    case REGION_FLAGS:
        return (char *)slot->flags + place.offset;
    default:
        return NULL;
    }
}

static int run_step(struct cuda_work *w, const struct cuda_slot *slot, const struct step *s,
                    struct err *e)
{
    struct device *d = w->plan->device;
    if (s->kind == STEP_CLEAR)
        return d->ops->clear(d, w->stream, address(w, slot, s->clear), s->clear_bytes, e);
    if (s->kind == STEP_CONVOLUTION) {
        const struct program_convolution *c = &w->plan->program.convolution[s->convolution];
        const struct convolution_memory m = {.x = address(w, slot, s->x),
                                             .w = address(w, slot, s->w),
                                             .bias = address(w, slot, s->bias),
                                             .y = address(w, slot, s->y),
                                             .second = address(w, slot, s->second),
                                             .workspace = w->scratch};
        return d->ops->convolution_run(d, w->stream, c->made.plan, &c->spec, &m, e);
    }
    union kernel_args args = s->args;
    for (int i = 0; i < s->n_places; i++) {
        void *p = address(w, slot, s->places[i].place);
        memcpy((char *)&args + s->places[i].field, &p, sizeof p);
    }
    return d->ops->launch(d, w->stream, s->kernel, &args, s->items, e);
}

static int run_steps(struct cuda_work *w, const struct cuda_slot *slot, struct err *e)
{
    const struct program *p = &w->plan->program;
    int rc = 0;
    for (int i = 0; rc == 0 && i < p->n_steps; i++)
        rc = run_step(w, slot, &p->step[i], e);
    return rc;
}

int cuda_compute(struct cuda_work *w, struct cuda_slot *slot, struct err *e)
{
    struct device *d = w->plan->device;
    return d->ops->replay(d, w->stream, slot->recording, e);
}

int cuda_step_ms(struct cuda_work *w, const struct cuda_slot *slot, int i, int times, double *ms,
                 struct err *e)
{
    struct device *d = w->plan->device;
    void *recording = NULL;
    int rc = d->ops->record_begin(d, w->stream, e);
    if (rc != 0)
        return rc;
    for (int k = 0; rc == 0 && k < times; k++)
        rc = run_step(w, slot, &w->plan->program.step[i], e);
    int ended = d->ops->record_end(d, w->stream, &recording, rc == 0 ? e : NULL);
    if (rc == 0)
        rc = ended;
    for (int k = 0; rc == 0 && k < 3; k++) { /* the first warms up */
        double all;
        rc = d->ops->replay_timed(d, w->stream, recording, 1, &all, e);
        if (k < 2 || all / times < *ms)
            *ms = all / times;
    }
    if (recording)
        d->ops->recording_free(d, recording);
    return rc;
}

static void slot_fini(struct device *d, struct cuda_slot *s)
{
    void *const events[] = {s->uploaded, s->computed, s->downloaded};
    if (s->recording)
        d->ops->recording_free(d, s->recording);
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        if (s->in[i])
            d->ops->memory_free(d, s->in[i]);
        if (s->out[i])
            d->ops->memory_free(d, s->out[i]);
        if (s->pinned_in[i])
            d->ops->pinned_free(d, s->pinned_in[i]);
        if (s->pinned_out[i])
            d->ops->pinned_free(d, s->pinned_out[i]);
    }
    if (s->flags)
        d->ops->memory_free(d, s->flags);
    if (s->pinned_flags)
        d->ops->pinned_free(d, s->pinned_flags);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            d->ops->event_free(d, events[i]);
}

void cuda_workspace_free(void *work)
{
    struct cuda_work *w = work;
    if (!w)
        return;
    struct device *d = w->plan->device;
    void *const streams[] = {w->stream, w->upload, w->download};
    for (int i = 0; i < CUDA_SLOTS; i++)
        slot_fini(d, &w->slot[i]);
    if (w->arena)
        d->ops->memory_free(d, w->arena);
    if (w->scratch)
        d->ops->memory_free(d, w->scratch);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i])
            d->ops->stream_free(d, streams[i]);
    free(w);
}

static int ends_new(struct device *d, int n, const int64_t *count, void **device_side,
                    void **host_side, struct err *e)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        int64_t bytes = count[i] * (int64_t)sizeof(float);
        rc = d->ops->memory_new(d, bytes, &device_side[i], e);
        if (rc == 0)
            rc = d->ops->pinned_new(d, bytes, &host_side[i], e);
    }
    return rc;
}

/* Records the program from a slot's inputs to its outputs. */
static int record(struct cuda_work *w, struct cuda_slot *slot, struct err *e)
{
    struct device *d = w->plan->device;
    int rc = d->ops->record_begin(d, w->stream, e);
    if (rc != 0)
        return rc;
    rc = run_steps(w, slot, e);
    int ended = d->ops->record_end(d, w->stream, &slot->recording, rc == 0 ? e : NULL);
    return rc != 0 ? rc : ended;
}

static int slot_make(struct cuda_work *w, struct cuda_slot *slot, struct err *e)
{
    const struct program *p = &w->plan->program;
    struct device *d = w->plan->device;
    int rc = ends_new(d, p->n_inputs, p->input_count, slot->in, slot->pinned_in, e);
    if (rc == 0)
        rc = ends_new(d, p->n_outputs, p->output_count, slot->out, slot->pinned_out, e);
    int64_t flag_bytes = p->batch * (int64_t)sizeof(int32_t);
    void *flags = NULL, *pinned = NULL;
    if (rc == 0)
        rc = d->ops->memory_new(d, flag_bytes, &flags, e);
    if (rc == 0)
        rc = d->ops->pinned_new(d, flag_bytes, &pinned, e);
    slot->flags = flags;
    slot->pinned_flags = pinned;
    if (rc == 0)
        rc = d->ops->event_new(d, &slot->uploaded, e);
    if (rc == 0)
        rc = d->ops->event_new(d, &slot->computed, e);
    if (rc == 0)
        rc = d->ops->event_new(d, &slot->downloaded, e);
    return rc;
}

int cuda_workspace_new(const void *impl, void **work, struct err *e)
{
    struct cuda_plan *plan = (struct cuda_plan *)(uintptr_t)impl;
    const struct program *p = &plan->program;
    struct device *d = plan->device;
    struct cuda_work *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "no memory for a workspace");
    w->plan = plan;
    int rc = d->ops->stream_new(d, &w->stream, e);
    if (rc == 0)
        rc = d->ops->stream_new(d, &w->upload, e);
    if (rc == 0)
        rc = d->ops->stream_new(d, &w->download, e);
    if (rc == 0)
        rc = d->ops->memory_new(d, p->arena_bytes, &w->arena, e);
    if (rc == 0 && p->workspace_bytes > 0)
        rc = d->ops->memory_new(d, p->workspace_bytes, &w->scratch, e);
    for (int i = 0; rc == 0 && i < plan->n_slots; i++)
        rc = slot_make(w, &w->slot[i], e);
    if (rc == 0) {
        pthread_mutex_lock(&plan->mutex);
        /* Once as it is: cuDNN and the kernels load what they need, which no recording may do. */
        rc = run_steps(w, &w->slot[0], e);
        if (rc == 0)
            rc = d->ops->wait(d, w->stream, e);
        for (int i = 0; rc == 0 && i < plan->n_slots; i++)
            rc = record(w, &w->slot[i], e);
        pthread_mutex_unlock(&plan->mutex);
    }
    if (rc != 0)
        cuda_workspace_free(w);
    else
        *work = w;
    return rc;
}

int cuda_run(const void *impl, void *work, const float *const *in, float *const *out, struct err *e)
{
    const struct cuda_plan *plan = impl;
    const struct program *p = &plan->program;
    struct device *d = plan->device;
    struct cuda_work *w = work;
    struct cuda_slot *slot = &w->slot[0];
    int rc = 0;
    for (int i = 0; rc == 0 && i < p->n_inputs; i++) {
        int64_t bytes = p->input_count[i] * (int64_t)sizeof(float);
        memcpy(slot->pinned_in[i], in[i], (size_t)bytes);
        rc = d->ops->upload(d, w->stream, slot->in[i], slot->pinned_in[i], bytes, e);
    }
    if (rc == 0)
        rc = cuda_compute(w, slot, e);
    for (int i = 0; rc == 0 && i < p->n_outputs; i++)
        rc = d->ops->download(d, w->stream, slot->pinned_out[i], slot->out[i],
                              p->output_count[i] * (int64_t)sizeof(float), e);
    if (rc == 0)
        rc = d->ops->download(d, w->stream, slot->pinned_flags, slot->flags,
                              p->batch * (int64_t)sizeof(int32_t), e);
    /* After a failure, too: the next run writes to what may still be copied from. */
    int waited = d->ops->wait(d, w->stream, rc == 0 ? e : NULL);
    if (rc == 0)
        rc = waited;
    for (int i = 0; rc == 0 && i < p->n_outputs; i++)
        memcpy(out[i], slot->pinned_out[i], (size_t)p->output_count[i] * sizeof(float));
    for (int64_t i = 0; rc == 0 && i < p->batch; i++)
        if (slot->pinned_flags[i] != 0)
            rc = err_set(e, ERR_NUMERIC, "NaN or infinity in what went in or came out");
    return rc;
}

/* Looks at a node's result, which is on the host now. */
static int look_at(const struct watch *look, struct kernel_array array, struct err *e)
{
    int64_t n = look->bytes / (array.half ? 2 : 4);
    for (int64_t j = 0; j < n; j++) {
        float x = load(array, j);
        if (!isfinite(x))
            return err_set(e, ERR_NUMERIC, "%s in the result of node %s (cuda%s)",
                           isnan(x) ? "NaN" : "an infinite number", look->name,
                           array.half ? ", half: try float" : "");
    }
    return 0;
}

/* Runs again, looking at each node's result. */
int cuda_diagnose(const void *impl, void *work, const float *const *in, float *const *out,
                  struct err *e)
{
    struct cuda_plan *plan = (struct cuda_plan *)(uintptr_t)impl;
    const struct program *p = &plan->program;
    struct device *d = plan->device;
    struct cuda_work *w = work;
    const struct cuda_slot *slot = &w->slot[0];
    int64_t largest = 16;
    (void)in; /* still on the device */
    (void)out;
    for (int i = 0; i < p->n_watches; i++)
        if (p->watch[i].bytes > largest)
            largest = p->watch[i].bytes;
    void *copy = malloc((size_t)largest);
    if (!copy)
        return err_set(e, ERR_NOMEM, "no memory to look for the first layer that is not finite");
    struct kernel_array array = {copy, plan->precision == ENGINE_F16};
    pthread_mutex_lock(&plan->mutex);
    /* What an earlier run left in memory that this one has not written yet is not its fault. */
    int rc = d->ops->clear(d, w->stream, w->arena, p->arena_bytes, e);
    for (int i = 0, k = 0; rc == 0 && i < p->n_steps; i++) {
        rc = run_step(w, slot, &p->step[i], e);
        for (; rc == 0 && k < p->n_watches && p->watch[k].after == i; k++) {
            const struct watch *look = &p->watch[k];
            rc =
                d->ops->download(d, w->stream, copy, address(w, slot, look->place), look->bytes, e);
            if (rc == 0)
                rc = d->ops->wait(d, w->stream, e);
            if (rc == 0)
                rc = look_at(look, array, e);
        }
    }
    d->ops->clear(d, w->stream, w->arena, p->arena_bytes, NULL);
    d->ops->wait(d, w->stream, NULL); /* it may still be copying to `copy` */
    pthread_mutex_unlock(&plan->mutex);
    free(copy);
    return rc;
}
