/*
 * engine.c - see engine.h; what all engines have in common
 *
 * Lowers the graph, keeps shapes and names, looks for NaN and infinity on both sides of a run.
 */
#include "model/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/passes.h"

#define ENGINES_MAX              8
#define DEFAULT_ACTIVATION_BYTES ((int64_t)16 << 30)

static const struct engine *engines[ENGINES_MAX] = {&engine_ref, &engine_cpu};
static int n_engines = 2;

const struct engine *engine_find(const char *name)
{
    for (int i = 0; i < n_engines; i++)
        if (strcmp(engines[i]->name, name) == 0)
            return engines[i];
    return NULL;
}

int engine_register(const struct engine *engine, struct err *e)
{
    if (engine_find(engine->name) != NULL)
        return err_set(e, ERR_EXISTS, "engine '%s' is registered already", engine->name);
    if (n_engines == ENGINES_MAX)
        return err_set(e, ERR_LIMIT, "more than %d engines", ENGINES_MAX);
    engines[n_engines++] = engine;
    return 0;
}

struct plan {
    const struct engine *engine;
    void *impl;
    struct graph *graph; /* kept for engines that ask for it */
    int n_in, n_out;
    struct shape in[GRAPH_INPUTS_MAX], out[GRAPH_INPUTS_MAX];
    char *in_name[GRAPH_INPUTS_MAX], *out_name[GRAPH_INPUTS_MAX];
    char text[160];
};

struct workspace {
    const struct plan *plan;
    void *work;
};

static int lower(const struct graph *g, const struct shape *shape, const struct engine_options *o,
                 struct graph **out, struct err *e)
{
    int64_t max = o->max_activation_bytes ? o->max_activation_bytes : DEFAULT_ACTIVATION_BYTES;
    return graph_lower(g, shape, max, out, NULL, e);
}

int engine_estimate(const struct engine *engine, const struct graph *g, const struct shape *shape,
                    const struct engine_options *o, struct engine_cost *cost, struct err *e)
{
    static const struct engine_options none;
    struct graph *lowered;
    int rc = lower(g, shape, o ? o : &none, &lowered, e);
    if (rc != 0)
        return rc;
    memset(cost, 0, sizeof *cost);
    rc = engine->estimate(lowered, o ? o : &none, cost, e);
    graph_free(lowered);
    return rc;
}

static int keep_names(struct plan *p, const struct graph *g)
{
    p->n_in = g->n_inputs;
    p->n_out = g->n_outputs;
    for (int i = 0; i < p->n_in; i++) {
        p->in[i] = g->value[g->input[i]].shape;
        if ((p->in_name[i] = strdup(g->value[g->input[i]].name)) == NULL)
            return ERR_NOMEM;
    }
    for (int i = 0; i < p->n_out; i++) {
        p->out[i] = g->value[g->output[i]].shape;
        if ((p->out_name[i] = strdup(g->value[g->output[i]].name)) == NULL)
            return ERR_NOMEM;
    }
    return 0;
}

int engine_compile(const struct engine *engine, const struct graph *g, const struct shape *shape,
                   const struct engine_options *o, struct plan **out, struct err *e)
{
    static const struct engine_options none;
    struct graph *lowered = NULL;
    *out = NULL;
    o = o ? o : &none;
    struct plan *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    p->engine = engine;
    int rc = lower(g, shape, o, &lowered, e);
    if (rc == 0 && (rc = keep_names(p, lowered)) != 0)
        err_set(e, rc, "no memory for a plan");
    if (rc == 0)
        rc = engine->compile(lowered, o, &p->impl, e);
    if (rc != 0)
        p->impl = NULL;
    else
        engine->describe(p->impl, p->text, sizeof p->text);
    if (engine->keeps_graph)
        p->graph = lowered;
    else
        graph_free(lowered);
    if (rc != 0) {
        engine_plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void engine_plan_free(struct plan *p)
{
    if (p == NULL)
        return;
    if (p->impl != NULL)
        p->engine->plan_free(p->impl);
    graph_free(p->graph);
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        free(p->in_name[i]);
        free(p->out_name[i]);
    }
    free(p);
}

int engine_plan_inputs(const struct plan *p)
{
    return p->n_in;
}

int engine_plan_outputs(const struct plan *p)
{
    return p->n_out;
}

const struct shape *engine_plan_input_shape(const struct plan *p, int i)
{
    return &p->in[i];
}

const struct shape *engine_plan_output_shape(const struct plan *p, int i)
{
    return &p->out[i];
}

const char *engine_plan_output_name(const struct plan *p, int i)
{
    return p->out_name[i];
}

const char *engine_plan_text(const struct plan *p)
{
    return p->text;
}

int engine_workspace_new(const struct plan *p, struct workspace **out, struct err *e)
{
    *out = NULL;
    struct workspace *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a workspace");
    w->plan = p;
    int rc = p->engine->workspace_new(p->impl, &w->work, e);
    if (rc != 0) {
        free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void engine_workspace_free(struct workspace *w)
{
    if (w == NULL)
        return;
    w->plan->engine->workspace_free(w->work);
    free(w);
}

/* Index of the first element that is NaN or infinite, -1 if none is. */
static int64_t first_bad(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n;) {
        int64_t stop = i + 4096 < n ? i + 4096 : n;
        uint32_t bad = 0;
        for (int64_t k = i; k < stop; k++) {
            uint32_t bits;
            memcpy(&bits, x + k, sizeof bits);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        for (; bad && i < stop; i++)
            if (!isfinite(x[i]))
                return i;
        i = stop;
    }
    return -1;
}

int engine_run(const struct plan *p, struct workspace *w, const float *const *in, float *const *out,
               struct err *e)
{
    for (int i = 0; i < p->n_in; i++) {
        int64_t at = first_bad(in[i], shape_count(&p->in[i]));
        if (at >= 0)
            return err_set(e, ERR_NUMERIC, "input '%s' holds NaN or infinity at element %lld",
                           p->in_name[i], (long long)at);
    }
    int rc = p->engine->run(p->impl, w->work, in, out, e);
    for (int i = 0; i < p->n_out && rc == 0; i++) {
        if (first_bad(out[i], shape_count(&p->out[i])) < 0)
            continue;
        if (p->engine->diagnose != NULL)
            rc = p->engine->diagnose(p->impl, w->work, in, out, e);
        if (rc == 0)
            rc = err_set(e, ERR_NUMERIC, "output '%s' of the network holds NaN or infinity",
                         p->out_name[i]);
    }
    return rc;
}
