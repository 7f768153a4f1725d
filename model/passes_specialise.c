/*
 * passes_specialise.c - graph_specialise(): shapes bound, constants folded, operators lowered
 *
 * Refuses, naming the node: shapes that do not fit, integers that depend on the data, results
 * above the limit of memory, and constants that grow out of proportion to the file.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/engine_ref.h"
#include "model/passes.h"
#include "model/passes_lower.h"

/* Constants that are made may have so many elements each, and a few times as many all together;
 * more only where the file itself holds as many. */
#define FOLD_FREE  ((int64_t)1 << 18)
#define FOLD_TIMES 16

int lower_refuse(struct lower *l, int code, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return err_set(l->e, code, "%s: %s", l->what, text);
}

static int no_memory(struct lower *l)
{
    return lower_refuse(l, ERR_NOMEM, "no memory");
}

struct value *lower_value(struct lower *l, int value)
{
    return &l->g->value[value];
}

bool lower_is_constant(struct lower *l, int value)
{
    return value >= 0 && l->g->value[value].constant != NULL;
}

/* A value of the file in the new graph; constants come over when they are first used. */
static int bring(struct lower *l, int old)
{
    if (l->map[old] >= 0)
        return l->map[old];
    const struct value *v = &l->from->value[old];
    if (v->constant == NULL)
        return lower_refuse(l, ERR_BUG, "input '%s' was not made", v->name);
    char *name = graph_strdup(l->g, v->name, strlen(v->name));
    int value = name ? graph_add_value(l->g, name, v->dtype) : ERR_NOMEM;
    if (value < 0)
        return no_memory(l);
    struct value *copy = lower_value(l, value);
    copy->shape = v->shape;
    copy->constant = constant_copy(l->g, v->constant);
    if (copy->constant == NULL)
        return no_memory(l);
    l->map[old] = value;
    return value;
}

int lower_in(struct lower *l, int i)
{
    return i >= l->n->n_in || l->n->in[i] < 0 ? -1 : bring(l, l->n->in[i]);
}

const struct shape *lower_shape(struct lower *l, int i)
{
    return &lower_value(l, lower_in(l, i))->shape;
}

static int check_list(struct lower *l, int value, const char *what, int max)
{
    const struct value *v = lower_value(l, value);
    if (v->constant == NULL)
        return lower_refuse(l, ERR_UNSUPPORTED, "its %s depend on the data", what);
    int64_t count = v->constant->count;
    if (v->shape.rank > 1 || count > max)
        return lower_refuse(l, ERR_INVALID, "its %s are not a list of at most %d numbers", what,
                            max);
    return (int)count;
}

int lower_ints(struct lower *l, int value, const char *what, int64_t *out, int max)
{
    int n = check_list(l, value, what, max);
    if (n >= 0 && !dtype_is_integer(lower_value(l, value)->dtype))
        return lower_refuse(l, ERR_INVALID, "its %s are not integers", what);
    int rc = n < 0 ? n : constant_load_i64(lower_value(l, value), 0, n, out, l->e);
    return rc < 0 ? rc : n;
}

int lower_floats(struct lower *l, int value, const char *what, double *out, int max)
{
    int n = check_list(l, value, what, max);
    int rc = n < 0 ? n : constant_load_f64(lower_value(l, value), 0, n, out, l->e);
    return rc < 0 ? rc : n;
}

int lower_axis(struct lower *l, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return lower_refuse(l, ERR_INVALID, "its axis %lld does not exist in %d dimensions",
                            (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return 0;
}

struct node *lower_emit(struct lower *l, enum op op, int n_in, const int *in, int n_out,
                        enum dtype t)
{
    char *name = graph_strdup(l->g, l->n->name, strlen(l->n->name));
    struct node *n = name ? graph_add_node(l->g, op, name, n_in, n_out) : NULL;
    if (n == NULL) {
        no_memory(l);
        return NULL;
    }
    for (int i = 0; i < n_in; i++)
        n->in[i] = in[i];
    for (int i = 0; i < n_out; i++) {
        const char *from =
            i < l->n->n_out && l->n->out[i] >= 0 ? l->from->value[l->n->out[i]].name : l->n->name;
        char *kept = graph_strdup(l->g, from, strlen(from));
        n->out[i] = kept ? graph_add_value(l->g, kept, t) : -1;
        if (n->out[i] < 0) {
            no_memory(l);
            return NULL;
        }
    }
    return n;
}

struct shape *lower_out_shape(struct lower *l, const struct node *n, int i)
{
    return &lower_value(l, n->out[i])->shape;
}

/* --- folding ---------------------------------------------------------------------------------- */

static int tensor_load(struct lower *l, int value, struct tensor *t)
{
    const struct value *v = lower_value(l, value);
    t->dtype = v->dtype;
    t->shape = v->shape;
    t->data = malloc((size_t)(v->constant->count + 1) * sizeof *t->data);
    if (t->data == NULL)
        return no_memory(l);
    return constant_load_f64(v, 0, v->constant->count, t->data, l->e);
}

static int tensor_store(struct lower *l, int value, const struct tensor *t)
{
    int64_t n = shape_count(&t->shape);
    int rc;
    if (dtype_is_integer(t->dtype)) {
        int64_t *data = malloc((size_t)(n + 1) * sizeof *data);
        if (data == NULL)
            return no_memory(l);
        for (int64_t i = 0; i < n; i++) {
            double v = t->data[i];
            data[i] = isnan(v)       ? 0
                      : v >= 9.2e18  ? INT64_MAX
                      : v <= -9.2e18 ? INT64_MIN
                                     : (int64_t)v;
        }
        rc = graph_set_i64(l->g, value, &t->shape, data);
        free(data);
    } else {
        float *data = malloc((size_t)(n + 1) * sizeof *data);
        if (data == NULL)
            return no_memory(l);
        for (int64_t i = 0; i < n; i++)
            data[i] = (float)t->data[i];
        rc = graph_set_f32(l->g, value, &t->shape, data);
        free(data);
    }
    return rc ? no_memory(l) : 0;
}

/* Evaluates the last node, whose inputs are constant, and takes it away again. */
static int fold(struct lower *l, const struct node *n)
{
    struct tensor *t = calloc((size_t)(n->n_in + n->n_out), sizeof *t);
    const struct tensor **in = calloc((size_t)n->n_in + 1, sizeof *in);
    struct tensor **out = calloc((size_t)n->n_out + 1, sizeof *out);
    int64_t read = 0, made = 0;
    int rc = t && in && out ? 0 : no_memory(l);
    for (int i = 0; i < n->n_in && rc == 0; i++)
        if (n->in[i] >= 0)
            read += lower_value(l, n->in[i])->constant->count;
    for (int i = 0; i < n->n_out && rc == 0; i++) {
        int64_t count = shape_count(lower_out_shape(l, n, i));
        if (count < 0 || __builtin_add_overflow(made, count, &made))
            made = INT64_MAX / 4;
    }
    int64_t limit = FOLD_FREE + 2 * l->file_elements;
    l->folded_elements += made > read ? made : read;
    if (rc == 0 && (made > limit || l->folded_elements > FOLD_TIMES * limit))
        rc = lower_refuse(l, ERR_LIMIT, "it makes a constant that is too large");
    for (int i = 0; i < n->n_in && rc == 0; i++)
        if (n->in[i] >= 0) {
            rc = tensor_load(l, n->in[i], &t[i]);
            in[i] = &t[i];
        }
    for (int i = 0; i < n->n_out && rc == 0; i++) {
        struct tensor *y = out[i] = &t[n->n_in + i];
        y->shape = *lower_out_shape(l, n, i);
        y->dtype = lower_value(l, n->out[i])->dtype;
        y->data = calloc((size_t)shape_count(&y->shape) + 1, sizeof *y->data);
        if (y->data == NULL)
            rc = no_memory(l);
    }
    if (rc == 0 && (rc = ref_eval(n, in, out, l->e)) != 0)
        err_context(l->e, "%s", l->what);
    for (int i = 0; i < n->n_out && rc == 0; i++)
        rc = tensor_store(l, n->out[i], out[i]);
    for (int i = 0; t != NULL && i < n->n_in + n->n_out; i++)
        free(t[i].data);
    free(t);
    free(in);
    free(out);
    l->g->n_nodes--;
    return rc;
}

int lower_finish(struct lower *l, const struct node *n)
{
    bool constant = true;
    for (int i = 0; i < n->n_in; i++)
        constant = constant && (n->in[i] < 0 || lower_is_constant(l, n->in[i]));
    if (constant)
        return fold(l, n);
    if (n->op > OP_LOWERED_END)
        return lower_refuse(l, ERR_UNSUPPORTED, "it depends on the data, which is not supported");
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && lower_value(l, n->in[i])->dtype != DTYPE_F32)
            return lower_refuse(l, ERR_UNSUPPORTED, "its input %d holds integers", i + 1);
    for (int i = 0; i < n->n_out; i++) {
        const struct shape *s = lower_out_shape(l, n, i);
        char text[128];
        int64_t count = shape_count(s), bytes;
        if (lower_value(l, n->out[i])->dtype != DTYPE_F32)
            return lower_refuse(l, ERR_UNSUPPORTED, "it makes integers that depend on the data");
        for (int d = 0; d < s->rank; d++)
            if (s->dim[d] < 1)
                return lower_refuse(l, ERR_INVALID, "its output would have the shape %s",
                                    shape_text(s, text, sizeof text));
        if (count < 0 || __builtin_mul_overflow(count, (int64_t)sizeof(float), &bytes) ||
            __builtin_add_overflow(l->activation_bytes, bytes, &l->activation_bytes) ||
            l->activation_bytes > l->max_activation_bytes)
            return lower_refuse(
                l, ERR_LIMIT,
                "with its output of %s the network needs more than %lld bytes: give "
                "smaller inputs or a smaller batch",
                shape_text(s, text, sizeof text), (long long)l->max_activation_bytes);
    }
    return 0;
}

int lower_work(struct lower *l, int64_t *sum, int64_t most, const int64_t *factor, int n,
               const char *what)
{
    int64_t work = 1;
    bool fits = true;
    for (int i = 0; i < n; i++)
        fits = fits && !__builtin_mul_overflow(work, factor[i], &work);
    if (!fits || work > most - *sum)
        return lower_refuse(l, ERR_LIMIT,
                            "with it the network needs more than %lld %s: give smaller inputs or a "
                            "smaller batch",
                            (long long)most, what);
    *sum += work;
    return 0;
}

int lower_done(struct lower *l, const struct node *n)
{
    struct node kept = *n; /* finishing may take the node away */
    int rc = lower_finish(l, n);
    for (int i = 0; rc == 0 && i < kept.n_out && i < l->n->n_out; i++)
        if (l->n->out[i] >= 0)
            l->map[l->n->out[i]] = kept.out[i];
    return rc;
}

int lower_alias(struct lower *l, int value)
{
    l->map[l->n->out[0]] = value;
    return 0;
}

int lower_scalar(struct lower *l, double x, enum dtype t)
{
    int value = graph_add_value(l->g, "constant", t);
    if (value < 0)
        return no_memory(l);
    float f = (float)x;
    int64_t i = (int64_t)x;
    struct shape s = {.rank = 0};
    int rc = dtype_is_integer(t) ? graph_set_i64(l->g, value, &s, &i)
                                 : graph_set_f32(l->g, value, &s, &f);
    return rc ? no_memory(l) : value;
}

int shape_broadcast(const struct shape *a, const struct shape *b, struct shape *out)
{
    out->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 0; i < out->rank; i++) {
        int j = i - (out->rank - a->rank), k = i - (out->rank - b->rank);
        int64_t p = j < 0 ? 1 : a->dim[j], q = k < 0 ? 1 : b->dim[k];
        if (p != q && p != 1 && q != 1)
            return ERR_INVALID;
        out->dim[i] = p == 1 ? q : p;
    }
    return 0;
}

/* --- inputs and outputs ----------------------------------------------------------------------- */

static int bind_inputs(struct lower *l, const struct shape *shape)
{
    const struct graph *from = l->from;
    struct graph *g = l->g;
    char want[128], got[128];
    for (int i = 0; i < from->n_inputs; i++) {
        const struct value *v = &from->value[from->input[i]];
        bool fits = (v->shape.rank < 0 || v->shape.rank == shape[i].rank) && shape[i].rank >= 0 &&
                    shape[i].rank <= GRAPH_RANK_MAX;
        for (int d = 0; fits && d < shape[i].rank; d++)
            fits = shape[i].dim[d] >= 1 &&
                   (v->shape.rank < 0 || v->shape.dim[d] < 0 || v->shape.dim[d] == shape[i].dim[d]);
        if (!fits || shape_count(&shape[i]) < 0)
            return err_set(l->e, ERR_INVALID, "input '%s' must be %s, is %s", v->name,
                           shape_text(&v->shape, want, sizeof want),
                           shape_text(&shape[i], got, sizeof got));
        /* Dimensions of one name are one number. */
        for (int d = 0; v->shape.rank >= 0 && d < v->shape.rank; d++)
            for (int k = 0; v->symbol[d] != NULL && k <= i; k++) {
                const struct value *w = &from->value[from->input[k]];
                for (int c = 0; c < w->shape.rank; c++)
                    if (w->symbol[c] != NULL && strcmp(w->symbol[c], v->symbol[d]) == 0 &&
                        shape[k].dim[c] != shape[i].dim[d])
                        return err_set(l->e, ERR_INVALID,
                                       "dimension '%.64s' is %lld in input '%s' and %lld in '%s'",
                                       v->symbol[d], (long long)shape[k].dim[c], w->name,
                                       (long long)shape[i].dim[d], v->name);
            }
        char *name = graph_strdup(g, v->name, strlen(v->name));
        int value = name ? graph_add_value(g, name, DTYPE_F32) : ERR_NOMEM;
        if (value < 0)
            return no_memory(l);
        lower_value(l, value)->shape = shape[i];
        l->map[from->input[i]] = value;
        g->input[g->n_inputs++] = value;
    }
    return 0;
}

/* Is output i, made as `value`, what the file says it is? */
static int check_declared(struct lower *l, int i, int value)
{
    const struct shape *said = &l->from->declared[i].shape, *found = &lower_value(l, value)->shape;
    char p[128], q[128];
    if (dtype_is_integer(l->from->declared[i].dtype))
        return lower_refuse(l, ERR_INVALID, "it is declared to hold integers and holds floats");
    bool fits = said->rank < 0 || said->rank == found->rank;
    for (int d = 0; fits && d < said->rank; d++)
        fits = said->dim[d] < 0 || said->dim[d] == found->dim[d];
    return fits ? 0
                : lower_refuse(l, ERR_INVALID, "it is declared to be %s and is %s",
                               shape_text(said, p, sizeof p), shape_text(found, q, sizeof q));
}

/* Every output gets a value of its own that a node makes. */
static int bind_outputs(struct lower *l)
{
    struct graph *g = l->g;
    int rc;
    for (int i = 0; i < l->from->n_outputs; i++) {
        int old = l->from->output[i];
        const struct value *was = &l->from->value[old];
        snprintf(l->what, sizeof l->what, "graph output '%.100s'", was->name);
        int value = bring(l, old);
        if (value < 0)
            return value;
        if (lower_value(l, value)->dtype != DTYPE_F32)
            return lower_refuse(l, ERR_UNSUPPORTED, "it holds integers");
        if (lower_is_constant(l, value))
            return lower_refuse(l, ERR_UNSUPPORTED, "it does not depend on any input");
        if (l->from->declared != NULL && (rc = check_declared(l, i, value)) != 0)
            return rc;
        bool own = true;
        for (int k = 0; k < g->n_inputs; k++)
            own = own && g->input[k] != value;
        for (int k = 0; k < g->n_outputs; k++)
            own = own && g->output[k] != value;
        if (!own) {
            struct node copied = {.name = was->name, .n_out = 1, .out = &old};
            const struct node *before = l->n;
            l->n = &copied;
            struct node *n = lower_emit(l, OP_RESHAPE, 1, &value, 1, DTYPE_F32);
            l->n = before;
            if (n == NULL)
                return l->e->code;
            *lower_out_shape(l, n, 0) = lower_value(l, value)->shape;
            if ((rc = lower_finish(l, n)) != 0)
                return rc;
            value = n->out[0];
        }
        char *name = graph_strdup(g, was->name, strlen(was->name));
        if (name == NULL)
            return no_memory(l);
        lower_value(l, value)->name = name;
        g->output[g->n_outputs++] = value;
    }
    return 0;
}

static int copy_facts(struct lower *l)
{
    const struct graph *from = l->from;
    struct graph *g = l->g;
    g->opset = from->opset;
    g->ir_version = from->ir_version;
    g->producer = graph_strdup(g, from->producer ? from->producer : "",
                               from->producer ? strlen(from->producer) : 0);
    g->input = graph_alloc(g, GRAPH_INPUTS_MAX * sizeof *g->input);
    g->output = graph_alloc(g, GRAPH_INPUTS_MAX * sizeof *g->output);
    if (g->producer == NULL || g->input == NULL || g->output == NULL)
        return no_memory(l);
    return 0;
}

/* Which nodes does an output need? The others are not lowered and cannot fail. */
static bool *needed_nodes(const struct graph *g)
{
    bool *node = calloc((size_t)g->n_nodes + 1, sizeof *node);
    bool *value = calloc((size_t)g->n_values + 1, sizeof *value);
    for (int i = 0; node && value && i < g->n_outputs; i++)
        value[g->output[i]] = true;
    for (int i = g->n_nodes - 1; node && value && i >= 0; i--) {
        for (int j = 0; j < g->node[i].n_out; j++)
            if (g->node[i].out[j] >= 0 && value[g->node[i].out[j]])
                node[i] = true;
        for (int j = 0; node[i] && j < g->node[i].n_in; j++)
            if (g->node[i].in[j] >= 0)
                value[g->node[i].in[j]] = true;
    }
    if (value == NULL) {
        free(node);
        node = NULL;
    }
    free(value);
    return node;
}

int graph_specialise(const struct graph *from, const struct shape *shape,
                     int64_t max_activation_bytes, struct graph **out, struct err *e)
{
    struct err own = {0};
    struct lower l = {
        .from = from,
        .max_activation_bytes = max_activation_bytes,
        .e = e ? e : &own,
        .what = "the graph",
    };
    bool *needed = NULL;
    int rc = 0;
    *out = NULL;
    l.g = graph_new();
    l.map = malloc(((size_t)from->n_values + 1) * sizeof *l.map);
    needed = needed_nodes(from);
    if (l.g == NULL || l.map == NULL || needed == NULL) {
        rc = no_memory(&l);
        goto out;
    }
    source_hold(from->source);
    l.g->source = from->source;
    for (int i = 0; i < from->n_values; i++) {
        l.map[i] = -1;
        if (from->value[i].constant != NULL)
            l.file_elements += from->value[i].constant->count;
    }
    if ((rc = copy_facts(&l)) != 0 || (rc = bind_inputs(&l, shape)) != 0)
        goto out;
    for (int i = 0; i < from->n_nodes && rc == 0; i++) {
        if (!needed[i])
            continue;
        l.n = &from->node[i];
        snprintf(l.what, sizeof l.what, "node '%.100s' (%s)", l.n->name, op_name(l.n->op));
        rc = lower_node(&l);
    }
    if (rc != 0 || (rc = bind_outputs(&l)) != 0)
        goto out;
    graph_index(l.g);
    l.g->lowered = true;
    rc = pass_sweep(l.g, l.e);
out:
    free(l.map);
    free(needed);
    if (rc < 0) {
        graph_free(l.g);
        return rc;
    }
    *out = l.g;
    return 0;
}
