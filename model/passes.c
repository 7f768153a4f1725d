/* passes.c - graph_lower(), the order of the passes, and the two plainest of them */
#include "model/passes.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

static void record(const struct graph *g, const char *name, int changes, struct pass_report *r)
{
    if (r == NULL || r->n == PASS_MAX)
        return;
    r->pass[r->n].name = name;
    r->pass[r->n].changes = changes;
    r->pass[r->n].after = (struct pass_figures){
        .nodes = g->n_nodes,
        .macs = graph_macs(g),
        .parameters = graph_parameters(g),
        .activation_bytes = graph_activation_bytes(g),
    };
    r->n++;
}

static int optimise(struct graph *g, struct pass_report *report, struct err *e)
{
    static const struct {
        const char *name;
        int (*run)(struct graph *, struct err *);
    } passes[] = {
        {"repeats", pass_repeats},
        {"layout", pass_layout},
        {"patterns", pass_patterns},
        {"crop", pass_crop},
        {"fold affine", pass_fold_affine},
        {"fuse activation", pass_fuse_act},
        {"simplify", pass_simplify},
        {"fuse what simplified", pass_fuse_act},
        {"sweep", pass_sweep},
    };
    for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
        int changes = passes[i].run(g, e);
        if (changes < 0)
            return changes;
        int rc = pass_sweep(g, e);
        if (rc < 0)
            return rc;
        record(g, passes[i].name, changes, report);
    }
    return 0;
}

int graph_lower(const struct graph *g, const struct shape *shape, int64_t max_activation_bytes,
                struct graph **out, struct pass_report *report, struct err *e)
{
    struct graph *lowered;
    *out = NULL;
    if (report != NULL)
        report->n = 0;
    int rc = graph_specialise(g, shape, max_activation_bytes, &lowered, e);
    if (rc != 0)
        return rc;
    record(lowered, "specialise", 0, report);
    rc = optimise(lowered, report, e);
    if (rc != 0) {
        graph_free(lowered);
        return rc;
    }
    *out = lowered;
    return 0;
}

int pass_sweep(struct graph *g, struct err *e)
{
    int removed = 0, kept = 0;
    bool *needed = calloc((size_t)g->n_values + 1, sizeof *needed);
    if (needed == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a pass");
    for (int i = 0; i < g->n_outputs; i++)
        needed[g->output[i]] = true;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        struct node *n = &g->node[i];
        bool used = false;
        for (int k = 0; k < n->n_out; k++)
            used = used || needed[n->out[k]];
        if (!used) {
            n->op = OP_COUNT; /* marked */
            removed++;
            continue;
        }
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0)
                needed[n->in[k]] = true;
    }
    for (int i = 0; i < g->n_nodes; i++)
        if (g->node[i].op != OP_COUNT)
            g->node[kept++] = g->node[i];
    g->n_nodes = kept;
    free(needed);
    graph_index(g);
    return removed;
}
