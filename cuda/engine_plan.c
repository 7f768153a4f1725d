/*
 * engine_plan.c - see engine_plan.h: plans and workspaces around a program and a device
 *
 * A plan owns the device, the program and the weights on the device. A workspace owns the arena,
 * pinned copies of inputs and outputs, a stream and the recording of the whole program: a run is
 * copy, replay, copy. Nothing is allocated while running.
 */
#include "cuda/engine_plan.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "cuda/program.h"
#include "node/base/err.h"

struct cuda_plan {
    struct device *device;
    struct program program;
    void *weights;
    enum engine_precision precision;
    pthread_mutex_t mutex; /* the device's handle, while something is recorded */
};

struct cuda_work {
    struct cuda_plan *plan;
    void *arena, *scratch;
    void *in[GRAPH_INPUTS_MAX], *out[GRAPH_INPUTS_MAX];               /* on the device */
    void *pinned_in[GRAPH_INPUTS_MAX], *pinned_out[GRAPH_INPUTS_MAX]; /* on the host */
    void *stream, *recording;
};

int cuda_estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                  struct err *e)
{
    struct device *device;
    struct program p;
    int rc = device_host_open(CONVOLUTION_ALL, &device, e);
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
                                     .workspace_bytes = p.arena_bytes + ends,
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
    int rc = open(o, &plan->device, e);
    if (rc == 0)
        rc = program_make(g, o->precision == ENGINE_F16, o->precision == ENGINE_TF32, plan->device,
                          &plan->program, e);
    if (rc == 0)
        rc = upload_weights(plan, e);
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

/* ---- running --------------------------------------------------------------------------------- */

static void *address(const struct cuda_work *w, struct place place)
{
    switch (place.region) {
    case REGION_ARENA:
        return (char *)w->arena + place.offset;
    case REGION_WEIGHTS:
        return (char *)w->plan->weights + place.offset;
    case REGION_INPUT:
        return w->in[place.offset];
    case REGION_OUTPUT:
        return w->out[place.offset];
    default:
        return NULL;
    }
}

static int run_step(struct cuda_work *w, const struct step *s, struct err *e)
{
    struct device *d = w->plan->device;
    if (s->kind == STEP_CLEAR)
        return d->ops->clear(d, w->stream, address(w, s->clear), s->clear_bytes, e);
    if (s->kind == STEP_CONVOLUTION) {
        const struct program_convolution *c = &w->plan->program.convolution[s->convolution];
        return d->ops->convolution_run(d, w->stream, c->plan, &c->spec, address(w, s->x),
                                       address(w, s->w), address(w, s->bias), address(w, s->y),
                                       w->scratch, e);
    }
    union kernel_args args = s->args;
    for (int i = 0; i < s->n_places; i++) {
        void *p = address(w, s->places[i].place);
        memcpy((char *)&args + s->places[i].field, &p, sizeof p);
    }
    return d->ops->launch(d, w->stream, s->kernel, &args, s->items, e);
}

static int run_steps(struct cuda_work *w, struct err *e)
{
    const struct program *p = &w->plan->program;
    int rc = 0;
    for (int i = 0; rc == 0 && i < p->n_steps; i++)
        rc = run_step(w, &p->step[i], e);
    return rc;
}

void cuda_workspace_free(void *work)
{
    struct cuda_work *w = work;
    if (!w)
        return;
    struct device *d = w->plan->device;
    if (w->recording)
        d->ops->recording_free(d, w->recording);
    if (w->arena)
        d->ops->memory_free(d, w->arena);
    if (w->scratch)
        d->ops->memory_free(d, w->scratch);
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        if (w->in[i])
            d->ops->memory_free(d, w->in[i]);
        if (w->out[i])
            d->ops->memory_free(d, w->out[i]);
        if (w->pinned_in[i])
            d->ops->pinned_free(d, w->pinned_in[i]);
        if (w->pinned_out[i])
            d->ops->pinned_free(d, w->pinned_out[i]);
    }
    if (w->stream)
        d->ops->stream_free(d, w->stream);
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

/* Runs the program once as it is (cuDNN and the kernels load what they need), then records it. */
static int record(struct cuda_work *w, struct err *e)
{
    struct device *d = w->plan->device;
    int rc = run_steps(w, e);
    if (rc == 0)
        rc = d->ops->wait(d, w->stream, e);
    if (rc == 0)
        rc = d->ops->record_begin(d, w->stream, e);
    if (rc != 0)
        return rc;
    rc = run_steps(w, e);
    void *recording = NULL;
    int ended = d->ops->record_end(d, w->stream, &recording, rc == 0 ? e : NULL);
    if (rc == 0 && ended == 0)
        w->recording = recording;
    else if (recording)
        d->ops->recording_free(d, recording);
    return rc != 0 ? rc : ended;
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
        rc = d->ops->memory_new(d, p->arena_bytes, &w->arena, e);
    if (rc == 0 && p->workspace_bytes > 0)
        rc = d->ops->memory_new(d, p->workspace_bytes, &w->scratch, e);
    if (rc == 0)
        rc = ends_new(d, p->n_inputs, p->input_count, w->in, w->pinned_in, e);
    if (rc == 0)
        rc = ends_new(d, p->n_outputs, p->output_count, w->out, w->pinned_out, e);
    if (rc == 0) {
        pthread_mutex_lock(&plan->mutex);
        rc = record(w, e);
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
    int rc = 0;
    for (int i = 0; rc == 0 && i < p->n_inputs; i++) {
        int64_t bytes = p->input_count[i] * (int64_t)sizeof(float);
        memcpy(w->pinned_in[i], in[i], (size_t)bytes);
        rc = d->ops->upload(d, w->stream, w->in[i], w->pinned_in[i], bytes, e);
    }
    if (rc == 0)
        rc = w->recording ? d->ops->replay(d, w->stream, w->recording, e) : run_steps(w, e);
    for (int i = 0; rc == 0 && i < p->n_outputs; i++)
        rc = d->ops->download(d, w->stream, w->pinned_out[i], w->out[i],
                              p->output_count[i] * (int64_t)sizeof(float), e);
    if (rc == 0)
        rc = d->ops->wait(d, w->stream, e);
    for (int i = 0; rc == 0 && i < p->n_outputs; i++)
        memcpy(out[i], w->pinned_out[i], (size_t)p->output_count[i] * sizeof(float));
    return rc;
}

/* Runs again, looking at each node's result. */
int cuda_diagnose(const void *impl, void *work, const float *const *in, float *const *out,
                  struct err *e)
{
    const struct cuda_plan *plan = impl;
    const struct program *p = &plan->program;
    struct device *d = plan->device;
    struct cuda_work *w = work;
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
    /* What an earlier run left in memory that this one has not written yet is not its fault. */
    int rc = d->ops->clear(d, w->stream, w->arena, p->arena_bytes, e);
    for (int i = 0, k = 0; rc == 0 && i < p->n_steps; i++) {
        rc = run_step(w, &p->step[i], e);
        for (; rc == 0 && k < p->n_watches && p->watch[k].after == i; k++) {
            const struct watch *look = &p->watch[k];
            rc = d->ops->download(d, w->stream, copy, address(w, look->place), look->bytes, e);
            if (rc == 0)
                rc = d->ops->wait(d, w->stream, e);
            int64_t n = look->bytes / (array.half ? 2 : 4);
            for (int64_t j = 0; rc == 0 && j < n; j++) {
                float x = load(array, j);
                if (!isfinite(x))
                    rc = err_set(e, ERR_NUMERIC, "%s in the result of node %s (cuda%s)",
                                 isnan(x) ? "NaN" : "an infinite number", look->name,
                                 array.half ? ", half: try float" : "");
            }
        }
    }
    d->ops->clear(d, w->stream, w->arena, p->arena_bytes, NULL);
    free(copy);
    return rc;
}
