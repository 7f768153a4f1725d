/*
 * engine_ref.c - the reference engine: slow, plain, the oracle for the others
 *
 * Every operator by its definition, every value in double, node after node on one thread, looking
 * for NaN and infinity after each. Weights are read when they are needed and values freed after
 * their last use, so unlike other engines it allocates while running.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/engine.h"
#include "model/engine_ref.h"

static int64_t largest_working_set(const struct graph *g)
{
    return graph_activation_bytes(g) * 2; /* doubles; an upper bound */
}

static int ref_estimate(const struct graph *g, const struct engine_options *o,
                        struct engine_cost *cost, struct err *e)
{
    (void)o;
    (void)e;
    cost->macs = graph_macs(g);
    cost->plan_bytes = (int64_t)g->n_nodes * (int64_t)sizeof(struct node);
    cost->workspace_bytes = largest_working_set(g);
    return 0;
}

static int ref_compile(const struct graph *g, const struct engine_options *o, void **impl,
                       struct err *e)
{
    if (o->precision != ENGINE_F32)
        return err_set(e, ERR_UNSUPPORTED, "the reference engine computes in float32 only");
    union {
        const struct graph *g;
        void *p;
    } kept = {.g = g}; /* the plan keeps the graph alive */
    *impl = kept.p;
    return 0;
}

static void ref_describe(const void *impl, char *out, size_t size)
{
    (void)impl;
    snprintf(out, size, "ref, 1 thread");
}

static void ref_plan_free(void *impl)
{
    (void)impl;
}

struct ref_work {
    int *uses; /* left of each value */
    struct tensor *t;
    int n_values;
};

static void ref_workspace_free(void *work)
{
    struct ref_work *w = work;
    if (w == NULL)
        return;
    free(w->uses);
    free(w->t);
    free(w);
}

static int ref_workspace_new(const void *impl, void **work, struct err *e)
{
    const struct graph *g = impl;
    struct ref_work *w = calloc(1, sizeof *w);
    if (w != NULL) {
        w->n_values = g->n_values;
        w->uses = calloc((size_t)g->n_values + 1, sizeof *w->uses);
        w->t = calloc((size_t)g->n_values + 1, sizeof *w->t);
    }
    if (w == NULL || w->uses == NULL || w->t == NULL) {
        ref_workspace_free(w);
        return err_set(e, ERR_NOMEM, "no memory for a workspace");
    }
    *work = w;
    return 0;
}

static int make_room(const struct graph *g, struct ref_work *w, int value, struct err *e)
{
    const struct value *v = &g->value[value];
    struct tensor *t = &w->t[value];
    t->dtype = v->dtype;
    t->shape = v->shape;
    t->data = malloc((size_t)shape_count(&v->shape) * sizeof *t->data);
    if (t->data == NULL)
        return err_set(e, ERR_NOMEM, "no memory for %lld elements of '%s'",
                       (long long)shape_count(&v->shape), v->name);
    return 0;
}

static void release(struct ref_work *w, int value)
{
    if (--w->uses[value] > 0)
        return;
    free(w->t[value].data);
    w->t[value].data = NULL;
}

static int check_finite(const struct graph *g, const struct node *n, const struct tensor *t,
                        struct err *e)
{
    int64_t count = shape_count(&t->shape);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite((float)t->data[i]))
            return err_set(e, ERR_NUMERIC,
                           "node '%s' (%s) makes NaN or infinity at element %lld of '%s'", n->name,
                           op_name(n->op), (long long)i, g->value[n->out[0]].name);
    return 0;
}

static int run_node(const struct graph *g, struct ref_work *w, const struct node *n, struct err *e)
{
    const struct tensor **in = calloc((size_t)n->n_in + 1, sizeof *in);
    struct tensor **out = calloc((size_t)n->n_out + 1, sizeof *out);
    int rc = in && out ? 0 : err_set(e, ERR_NOMEM, "no memory for node '%s'", n->name);
    for (int i = 0; i < n->n_in && rc == 0; i++) {
        int value = n->in[i];
        if (value < 0)
            continue;
        in[i] = &w->t[value];
        if (w->t[value].data == NULL && (rc = make_room(g, w, value, e)) == 0)
            rc = constant_load_f64(&g->value[value], 0, shape_count(&w->t[value].shape),
                                   w->t[value].data, e);
    }
    for (int i = 0; i < n->n_out && rc == 0; i++) {
        rc = make_room(g, w, n->out[i], e);
        out[i] = &w->t[n->out[i]];
    }
    if (rc == 0 && (rc = ref_eval(n, in, out, e)) != 0)
        err_context(e, "node '%s'", n->name);
    for (int i = 0; i < n->n_out && rc == 0; i++)
        rc = check_finite(g, n, out[i], e);
    for (int i = 0; i < n->n_in && rc == 0; i++)
        if (n->in[i] >= 0)
            release(w, n->in[i]);
    for (int i = 0; i < n->n_out && rc == 0; i++)
        if (w->uses[n->out[i]] == 0)
            release(w, n->out[i]);
    free(in);
    free(out);
    return rc;
}

static int ref_run(const void *impl, void *work, const float *const *in, float *const *out,
                   struct err *e)
{
    const struct graph *g = impl;
    struct ref_work *w = work;
    int rc = 0;
    for (int i = 0; i < g->n_values; i++)
        w->uses[i] = g->value[i].n_uses;
    for (int i = 0; i < g->n_inputs && rc == 0; i++) {
        int value = g->input[i];
        int64_t n = shape_count(&g->value[value].shape);
        if ((rc = make_room(g, w, value, e)) == 0)
            for (int64_t k = 0; k < n; k++)
                w->t[value].data[k] = (double)in[i][k];
    }
    for (int i = 0; i < g->n_nodes && rc == 0; i++)
        rc = run_node(g, w, &g->node[i], e);
    for (int i = 0; i < g->n_outputs && rc == 0; i++) {
        const struct tensor *t = &w->t[g->output[i]];
        int64_t n = shape_count(&t->shape);
        for (int64_t k = 0; k < n; k++)
            out[i][k] = (float)t->data[k];
    }
    for (int i = 0; i < g->n_values; i++) {
        free(w->t[i].data);
        w->t[i].data = NULL;
    }
    return rc;
}

const struct engine engine_ref = {
    .name = "ref",
    .keeps_graph = true,
    .estimate = ref_estimate,
    .compile = ref_compile,
    .describe = ref_describe,
    .plan_free = ref_plan_free,
    .workspace_new = ref_workspace_new,
    .workspace_free = ref_workspace_free,
    .run = ref_run,
};
