/* passes_util.c - see passes_util.h */
#include "model/passes_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"

int pass_no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory to rewrite the model");
}

struct node *pass_producer(struct graph *g, int value, enum op op)
{
    if (value < 0 || g->value[value].producer < 0)
        return NULL;
    struct node *n = &g->node[g->value[value].producer];
    return n->op == op ? n : NULL;
}

bool pass_is_output(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->output[i] == value)
            return true;
    return false;
}

bool pass_scalar(const struct graph *g, int value, double *out)
{
    if (value < 0)
        return false;
    const struct value *v = &g->value[value];
    return v->constant != NULL && v->dtype == DTYPE_F32 && v->constant->count == 1 &&
           constant_load_f64(v, 0, 1, out, NULL) == 0 && isfinite(*out);
}

bool pass_all_equal(const struct graph *g, int value, double *out)
{
    const struct value *v = value < 0 ? NULL : &g->value[value];
    double piece[1024];
    if (v == NULL || v->constant == NULL || v->dtype != DTYPE_F32)
        return false;
    int64_t count = v->constant->count;
    for (int64_t i = 0; i < count; i += 1024) {
        int64_t n = count - i < 1024 ? count - i : 1024;
        if (constant_load_f64(v, i, n, piece, NULL) != 0)
            return false;
        if (i == 0)
            *out = piece[0];
        for (int64_t k = 0; k < n; k++)
            if (piece[k] != *out)
                return false;
    }
    return count > 0 && isfinite(*out);
}

int pass_channels(const struct graph *g, int value, const struct shape *x, double *out,
                  struct err *e)
{
    const struct value *v = &g->value[value];
    if (value < 0 || v->constant == NULL || v->dtype != DTYPE_F32 || x->rank < 2 ||
        v->shape.rank > x->rank)
        return 0;
    int64_t C = x->dim[1];
    for (int i = 0; i < v->shape.rank; i++) {
        int axis = i + x->rank - v->shape.rank;
        if (v->shape.dim[i] != 1 && (axis != 1 || v->shape.dim[i] != C))
            return 0;
    }
    int64_t n = v->constant->count;
    int rc = constant_load_f64(v, 0, n, out, e);
    if (rc != 0)
        return rc;
    for (int64_t c = 0; c < C; c++) {
        if (n == 1)
            out[c] = out[0];
        if (!isfinite(out[c]))
            return 0;
    }
    return 1;
}

int pass_new_channels(struct graph *g, const char *name, const double *data, int64_t C,
                      struct err *e)
{
    float *f = malloc((size_t)C * sizeof *f);
    int value = f ? graph_add_value(g, name, DTYPE_F32) : ERR_NOMEM;
    for (int64_t c = 0; f != NULL && c < C; c++)
        f[c] = (float)data[c];
    if (value >= 0 && graph_set_f32(g, value, &(struct shape){.rank = 1, .dim = {C}}, f) != 0)
        value = ERR_NOMEM;
    free(f);
    return value < 0 ? pass_no_memory(e) : value;
}

int replace_init(struct replace *r, const struct graph *g, struct err *e)
{
    r->n = g->n_values;
    r->by = malloc(((size_t)r->n + 1) * sizeof *r->by);
    if (r->by == NULL)
        return pass_no_memory(e);
    for (int i = 0; i < r->n; i++)
        r->by[i] = i;
    return 0;
}

int replace_find(const struct replace *r, int value)
{
    while (value >= 0 && value < r->n && r->by[value] != value) {
        r->by[value] = r->by[value] < r->n ? r->by[r->by[value]] : r->by[value];
        value = r->by[value];
    }
    return value;
}

void replace_apply(struct replace *r, struct graph *g)
{
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->node[i].n_in; k++)
            g->node[i].in[k] = replace_find(r, g->node[i].in[k]);
    for (int i = 0; i < g->n_outputs; i++)
        g->output[i] = replace_find(r, g->output[i]);
    free(r->by);
    r->by = NULL;
    graph_index(g);
}
