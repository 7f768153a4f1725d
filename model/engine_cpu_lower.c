/*
 * engine_cpu_lower.c - nodes of a lowered graph to steps of the CPU engine
 *
 * Tensors of rank 4 lie as NHWC, others row-major. A value that feeds a Concat is made in its slice
 * of it; so a skip connection costs nothing. Operators without a kernel of their own become one or
 * a few strided steps (cpu_nd.h). What cannot be done is refused here, by node.
 */
#include "model/engine_cpu_lower.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "model/cpu_conv_plan.h"
#include "model/resample.h"
#include "node/base/err.h"

/* What plans its memory is quadratic in it. */
#define STEPS_MAX 40000

/* --- places ----------------------------------------------------------------------------------- */

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory to compile the network");
}

/* An array that doubles. */
static int grow(void **array, int *cap, int used, size_t size, struct err *e)
{
    if (used < *cap)
        return 0;
    int more = *cap ? *cap * 2 : 64;
    void *p = realloc(*array, (size_t)more * size);
    if (!p)
        return no_memory(e);
    *array = p;
    *cap = more;
    return 0;
}

int lower_root(struct lower *l, enum root_kind kind, int index, size_t floats)
{
    struct cpu_plan *p = l->p;
    int rc = grow((void **)&p->root, &p->cap_roots, p->roots, sizeof *p->root, l->e);
    if (rc < 0)
        return rc;
    p->root[p->roots] =
        (struct root){.kind = kind, .index = index, .floats = floats, .first = INT_MAX, .last = -1};
    return p->roots++;
}

struct step *lower_step(struct lower *l, enum step_kind kind, const struct node *n)
{
    struct cpu_plan *p = l->p;
    if (p->steps == STEPS_MAX) {
        err_set(l->e, ERR_LIMIT,
                "node %s (%s): with it the network needs more than %d steps of the cpu engine",
                n ? n->name : "graph", n ? op_name(n->op) : "output", STEPS_MAX);
        l->failed = ERR_LIMIT;
        return NULL;
    }
    l->failed = grow((void **)&p->step, &p->cap_steps, p->steps, sizeof *p->step, l->e);
    if (l->failed < 0)
        return NULL;
    struct step *s = &p->step[p->steps++];
    *s = (struct step){.kind = kind, .name = n ? n->name : "graph", .op = n ? n->op : OP_IDENTITY};
    s->in[0].root = s->in[1].root = s->out.root = -1;
    s->weights = s->bias = -1;
    return s;
}

/* Row-major strides. */
static void strides_dense(struct place *t)
{
    ptrdiff_t step = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        t->stride[i] = step;
        step *= (ptrdiff_t)t->dim[i];
    }
}

/* NHWC, rows off multiples of 4 KiB. Returns the floats that it takes. */
static size_t strides_nhwc(struct place *t)
{
    t->stride[1] = 1;
    t->stride[3] = (ptrdiff_t)t->dim[1];
    t->stride[2] = (ptrdiff_t)(t->dim[1] * t->dim[3]);
    if (t->stride[2] % 1024 == 0 && t->dim[2] > 1)
        t->stride[2] += 16;
    t->stride[0] = t->stride[2] * (ptrdiff_t)t->dim[2];
    return (size_t)t->stride[0] * (size_t)t->dim[0];
}

static struct place place_of_shape(const struct lower *l, int value)
{
    const struct shape *s = &l->g->value[value].shape;
    struct place t = {.root = -1, .rank = s->rank};
    for (int i = 0; i < s->rank; i++)
        t.dim[i] = s->dim[i];
    if (l->p->by_image && s->rank > 0 && !l->g->value[value].constant)
        t.dim[0] = 1;
    return t;
}

size_t lower_count(const struct place *t)
{
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->dim[i];
    return n;
}

/* Gives t (sizes set) memory of its own, NHWC if it has rank 4. */
int lower_memory(struct lower *l, struct place *t, bool dense)
{
    size_t floats;
    if (t->rank == 4 && !dense) {
        floats = strides_nhwc(t);
    } else {
        strides_dense(t);
        floats = lower_count(t);
    }
    int root = lower_root(l, ROOT_ARENA, -1, cpu_round16(floats) + CPU_SLACK);
    if (root < 0)
        return root;
    t->root = root;
    t->offset = 0;
    return 0;
}

/* Copies n floats into the plan's constants. */
int lower_constant(struct lower *l, int value, size_t *at)
{
    const struct value *v = &l->g->value[value];
    struct cpu_plan *p = l->p;
    size_t n = (size_t)shape_count(&v->shape), need = p->constant_floats + cpu_round16(n) + 16;
    if (need > p->cap_constants) {
        size_t cap = need + need / 2;
        float *c = realloc(p->constants, cap * sizeof *c);
        if (!c)
            return no_memory(l->e);
        p->constants = c;
        p->cap_constants = cap;
    }
    int rc = constant_load_f32(v, 0, (int64_t)n, p->constants + p->constant_floats, l->e);
    if (rc < 0)
        return rc;
    *at = p->constant_floats;
    p->constant_floats += cpu_round16(n);
    return 0;
}

/* Where a value is read: made, an input, or a constant (loaded on first use). */
int lower_read(struct lower *l, int value, struct place *t)
{
    struct place *known = &l->place[value];
    if (known->root < 0) {
        const struct value *v = &l->g->value[value];
        if (!v->constant)
            return err_set(l->e, ERR_BUG, "value %s is read before it is made", v->name);
        struct place c = place_of_shape(l, value);
        size_t at;
        int rc = lower_constant(l, value, &at);
        if (rc < 0)
            return rc;
        strides_dense(&c);
        c.root = l->constants;
        c.offset = (ptrdiff_t)at;
        *known = c;
    }
    *t = *known;
    return 0;
}

/* The same as NHWC: a copy if it lies otherwise. Copies are kept for the next reader. */
int lower_read_nhwc(struct lower *l, int value, const struct node *n, struct place *t)
{
    int rc = lower_read(l, value, t);
    if (rc >= 0 && t->dim[1] == 1) /* one channel: NCHW is NHWC */
        t->stride[1] = 1;
    if (rc < 0 || t->stride[1] == 1)
        return rc;
    if (l->nhwc[value].root >= 0) {
        *t = l->nhwc[value];
        return 0;
    }
    struct place copy = *t;
    if ((rc = lower_memory(l, &copy, false)) < 0)
        return rc;
    if ((rc = lower_copy(l, n, t, &copy, NULL)) < 0)
        return rc;
    l->nhwc[value] = *t = copy;
    return 0;
}

/* Where a value is to be made: its slice of a Concat, or memory of its own. */
int lower_write(struct lower *l, int value, struct place *t)
{
    if (l->place[value].root >= 0) {
        *t = l->place[value];
        return 0;
    }
    *t = place_of_shape(l, value);
    int rc = lower_memory(l, t, false);
    if (rc == 0)
        l->place[value] = *t;
    return rc;
}

int lower_copy(struct lower *l, const struct node *n, const struct place *in,
               const struct place *out, const struct act *act)
{
    struct step *s = lower_step(l, STEP_COPY, n);
    if (!s)
        return l->failed;
    s->in[0] = *in;
    s->out = *out;
    if (act)
        s->act = cpu_act_of(act);
    return 0;
}

static bool is_dense(const struct place *t)
{
    struct place d = *t;
    strides_dense(&d);
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] > 1 && t->stride[i] != d.stride[i])
            return false;
    return true;
}

/* The same elements in the same order, in other sizes. */
int lower_reshape(struct lower *l, const struct node *n, const struct place *in,
                  const struct place *out)
{
    struct place from = *in;
    int rc;
    if (!is_dense(in) && !is_dense(out)) {
        if ((rc = lower_memory(l, &from, true)) < 0 || (rc = lower_copy(l, n, in, &from, NULL)) < 0)
            return rc;
    }
    if (is_dense(&from)) { /* seen in the output's sizes */
        struct place view = *out;
        strides_dense(&view);
        view.root = from.root;
        view.offset = from.offset;
        return lower_copy(l, n, &view, out, NULL);
    }
    struct place view = from;
    strides_dense(&view);
    view.root = out->root;
    view.offset = out->offset;
    return lower_copy(l, n, &from, &view, NULL);
}

/* --- convolutions and norms ------------------------------------------------------------------- */

static int int_of(int64_t v, struct lower *l, const struct node *n, int *out)
{
    if (v > INT_MAX / 64 || v < -(INT_MAX / 64))
        return err_set(l->e, ERR_UNSUPPORTED, "node %s (%s): %lld is too large for the cpu engine",
                       n->name, op_name(n->op), (long long)v);
    *out = (int)v;
    return 0;
}

/* Index of the node whose output a fused step makes, and the other operand. */
static int end_of(const struct lower *l, int node, int *residual)
{
    int add = l->f.add[node];
    *residual = -1;
    if (add < 0)
        return node;
    const struct node *a = &l->g->node[add];
    if (a->op == OP_ADD)
        *residual = a->in[a->in[0] == l->g->node[node].out[0] ? 1 : 0];
    return add;
}

static int lower_conv(struct lower *l, int node)
{
    const struct node *n = &l->g->node[node];
    const struct conv_source *source = &l->f.source[node];
    int residual, end = end_of(l, node, &residual), rc;
    struct place in, out, other = {.root = -1};
    if ((rc = lower_read_nhwc(l, source->value, n, &in)) < 0 ||
        (residual >= 0 && (rc = lower_read_nhwc(l, residual, n, &other)) < 0) ||
        (rc = lower_write(l, l->g->node[end].out[0], &out)) < 0)
        return rc;
    struct cpu_conv_desc d = {.transposed = n->op == OP_CONV_TRANSPOSE,
                              .border = source->border,
                              .up = {source->up[0], source->up[1]},
                              .in_act = source->act,
                              .out_act = cpu_act_of(&n->act),
                              .shuffle = l->g->node[end].op != OP_DEPTH_TO_SPACE ? CPU_NO_SHUFFLE
                                         : l->g->node[end].depth.crd             ? CPU_CRD
                                                                                 : CPU_DCR,
                              .low_memory = l->low_memory,
                              .alone = l->p->alone};
    const struct shape *own = &l->g->value[n->out[0]].shape;
    const int64_t sizes[] = {in.dim[0],   in.dim[2],   in.dim[3],   in.dim[1],
                             own->dim[2], own->dim[3], own->dim[1], n->conv.group};
    int *const to[] = {&d.n, &d.h, &d.w, &d.c, &d.oh, &d.ow, &d.oc, &d.group};
    for (int i = 0; i < 8; i++)
        if ((rc = int_of(sizes[i], l, n, to[i])) < 0)
            return rc;
    for (int i = 0; i < 2; i++)
        if ((rc = int_of(n->conv.kernel[i], l, n, &d.kernel[i])) < 0 ||
            (rc = int_of(n->conv.stride[i], l, n, &d.stride[i])) < 0 ||
            (rc = int_of(n->conv.dilation[i], l, n, &d.dilation[i])) < 0 ||
            (rc = int_of(n->conv.pad_begin[i] + source->pad[i], l, n, &d.pad[i])) < 0)
            return rc;
    struct cpu_conv *conv;
    if ((rc = cpu_conv_new(&conv, &d, l->p->k, l->p->threads, NULL, l->e)) < 0) {
        err_context(l->e, "node %s (%s)", n->name, op_name(n->op));
        return rc;
    }
    struct step *s = lower_step(l, STEP_CONV, n);
    if (!s) {
        cpu_conv_free(conv);
        return l->failed;
    }
    s->conv = conv;
    s->in[0] = in;
    s->in[1] = other;
    s->out = out;
    s->weights = n->in[1];
    s->bias = n->n_in > 2 ? n->in[2] : -1;
    return 0;
}

/* Affine and instance norm. A norm of another rank than 4 is one of (N, C, rest, 1). */
static int lower_channels(struct lower *l, int node, enum step_kind kind)
{
    const struct node *n = &l->g->node[node];
    int residual = -1, end = kind == STEP_NORM ? end_of(l, node, &residual) : node, rc;
    struct place in, out, other = {.root = -1};
    bool image = l->g->value[n->in[0]].shape.rank == 4;
    size_t scale, shift;
    if ((rc = lower_constant(l, n->in[1], &scale)) < 0 ||
        (rc = lower_constant(l, n->in[2], &shift)) < 0)
        return rc;
    if (image)
        rc = lower_read_nhwc(l, n->in[0], n, &in);
    else
        rc = lower_read(l, n->in[0], &in);
    if (rc < 0 || (residual >= 0 && (rc = lower_read_nhwc(l, residual, n, &other)) < 0) ||
        (rc = lower_write(l, l->g->node[end].out[0], &out)) < 0)
        return rc;
    struct place from = in, to = out;
    if (!image) {
        struct place flat = {.rank = 4, .dim = {in.dim[0], in.rank > 1 ? in.dim[1] : 1, 1, 1}};
        flat.dim[2] = (int64_t)(lower_count(&in) / (size_t)(flat.dim[0] * flat.dim[1]));
        from = to = flat;
        if ((rc = lower_memory(l, &from, false)) < 0 || (rc = lower_memory(l, &to, false)) < 0 ||
            (rc = lower_reshape(l, n, &in, &from)) < 0)
            return rc;
    }
    struct step *s = lower_step(l, kind, n);
    if (!s)
        return l->failed;
    s->in[0] = from;
    s->in[1] = other;
    s->out = to;
    s->act = cpu_act_of(&n->act);
    s->scale = scale;
    s->shift = shift;
    s->epsilon = kind == STEP_NORM ? n->norm.epsilon : 0;
    return image ? 0 : lower_reshape(l, n, &to, &out);
}

/* --- whole graph ------------------------------------------------------------------------------ */

static int lower_node(struct lower *l, int i)
{
    const struct node *n = &l->g->node[i];
    switch (n->op) {
    case OP_CONV:
    case OP_CONV_TRANSPOSE:
        return lower_conv(l, i);
    case OP_AFFINE:
        return lower_channels(l, i, STEP_AFFINE);
    case OP_INSTANCE_NORM:
        return lower_channels(l, i, STEP_NORM);
    default:
        return lower_plain(l, n);
    }
}

/* Is a Concat's value v free to be made in a slice of it? */
static bool may_alias(const struct lower *l, int value)
{
    const struct value *v = &l->g->value[value];
    return !v->constant && v->producer >= 0 && l->place[value].root < 0;
}

/* Is a Concat's value itself the beginning of one that is placed? Then it lies there. */
static bool is_prefix(struct lower *l, const struct node *n)
{
    const struct place *first = &l->place[n->in[0]];
    if (first->root < 0 || l->g->value[n->in[0]].producer < 0)
        return false;
    ptrdiff_t at = first->offset;
    for (int j = 0; j < n->n_in; j++) {
        const struct place *p = &l->place[n->in[j]];
        if (p->root != first->root || p->offset != at)
            return false;
        for (int d = 0; d < p->rank; d++)
            if (p->stride[d] != first->stride[d])
                return false;
        at += p->stride[n->axis] * (ptrdiff_t)p->dim[n->axis];
    }
    struct place whole = place_of_shape(l, n->out[0]);
    memcpy(whole.stride, first->stride, sizeof whole.stride);
    whole.root = first->root;
    whole.offset = first->offset;
    l->place[n->out[0]] = whole;
    return true;
}

static int alias_concat(struct lower *l, const struct node *n)
{
    struct place whole;
    if (l->place[n->out[0]].root < 0 && n->n_in > 0 && is_prefix(l, n))
        return 0;
    int rc = lower_write(l, n->out[0], &whole);
    if (rc < 0)
        return rc;
    ptrdiff_t at = whole.offset;
    for (int j = 0; j < n->n_in; j++) {
        struct place part = place_of_shape(l, n->in[j]);
        memcpy(part.stride, whole.stride, sizeof part.stride);
        part.root = whole.root;
        part.offset = at;
        at += whole.stride[n->axis] * (ptrdiff_t)part.dim[n->axis];
        if (!may_alias(l, n->in[j]))
            continue;
        l->place[n->in[j]] = part;
        const struct value *v = &l->g->value[n->in[j]];
        int before = l->f.late[v->producer] ? l->g->node[v->producer].in[0] : -1;
        if (before >= 0 && may_alias(l, before))
            l->place[before] = part;
    }
    return 0;
}

/* Most inputs first, and of those the last node. */
static int by_inputs(const void *a, const void *b)
{
    const struct node *x = *(const struct node *const *)a, *y = *(const struct node *const *)b;
    if (x->n_in != y->n_in)
        return x->n_in < y->n_in ? 1 : -1;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Places the inputs of Concats into their outputs. Longest first, so that the Concats of a dense
 * block (x, x1), (x, x1, x2) … all are the beginning of the last. */
static int alias_concats(struct lower *l)
{
    const struct node **order = malloc(((size_t)l->g->n_nodes + 1) * sizeof *order);
    if (!order)
        return no_memory(l->e);
    size_t n = 0;
    int rc = 0;
    for (int i = 0; i < l->g->n_nodes; i++)
        if (l->g->node[i].op == OP_CONCAT && l->f.live[i])
            order[n++] = &l->g->node[i];
    qsort(order, n, sizeof *order, by_inputs);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = alias_concat(l, order[i]);
    free(order);
    return rc;
}

static int place_inputs(struct lower *l)
{
    struct cpu_plan *p = l->p;
    int rc = lower_root(l, ROOT_CONSTANT, -1, 0);
    if (rc < 0)
        return rc;
    l->constants = rc;
    p->n_inputs = l->g->n_inputs;
    p->n_outputs = l->g->n_outputs;
    p->input_floats = calloc((size_t)p->n_inputs + 1, sizeof *p->input_floats);
    p->output_floats = calloc((size_t)p->n_outputs + 1, sizeof *p->output_floats);
    if (!p->input_floats || !p->output_floats)
        return no_memory(l->e);
    for (int i = 0; i < p->n_inputs; i++) {
        struct place t = place_of_shape(l, l->g->input[i]);
        strides_dense(&t);
        p->input_floats[i] = lower_count(&t);
        if ((rc = lower_root(l, ROOT_INPUT, i, p->input_floats[i])) < 0)
            return rc;
        t.root = rc;
        l->place[l->g->input[i]] = t;
    }
    return 0;
}

static int place_outputs(struct lower *l)
{
    for (int i = 0; i < l->g->n_outputs; i++) {
        struct place from, to = place_of_shape(l, l->g->output[i]);
        int rc = lower_read(l, l->g->output[i], &from);
        if (rc < 0)
            return rc;
        to.dim[0] = to.rank > 0 ? from.dim[0] : 0;
        strides_dense(&to);
        l->p->output_floats[i] = lower_count(&to);
        if ((to.root = lower_root(l, ROOT_OUTPUT, i, l->p->output_floats[i])) < 0)
            return to.root;
        if ((rc = lower_copy(l, NULL, &from, &to, NULL)) < 0)
            return rc;
    }
    return 0;
}

/* The steps outlive the graph: names are copied. */
static int keep_names(struct cpu_plan *p, struct err *e)
{
    size_t bytes = 1;
    for (int i = 0; i < p->steps; i++)
        bytes += strlen(p->step[i].name) + 1;
    char *at = p->names = malloc(bytes);
    if (!at)
        return no_memory(e);
    for (int i = 0; i < p->steps; i++) {
        size_t n = strlen(p->step[i].name) + 1;
        memcpy(at, p->step[i].name, n);
        p->step[i].name = at;
        at += n;
    }
    return 0;
}

int cpu_plan_lower(const struct graph *g, struct cpu_plan *p, bool low_memory, struct err *e)
{
    struct lower l = {.g = g, .p = p, .e = e, .low_memory = low_memory};
    int rc = cpu_fuse(g, low_memory, &l.f, e);
    if (rc < 0)
        return rc;
    l.place = calloc((size_t)g->n_values + 1, sizeof *l.place);
    l.nhwc = calloc((size_t)g->n_values + 1, sizeof *l.nhwc);
    if (!l.place || !l.nhwc) {
        rc = no_memory(e);
        goto out;
    }
    for (int i = 0; i < g->n_values; i++)
        l.place[i].root = l.nhwc[i].root = -1;
    if ((rc = place_inputs(&l)) < 0 || (rc = alias_concats(&l)) < 0)
        goto out;
    for (int i = 0; i < g->n_nodes; i++) {
        if (!l.f.live[i] || l.f.add[i] >= 0)
            continue; /* one that ends in an Add is done where the Add stands */
        rc = lower_node(&l, l.f.host[i] >= 0 ? l.f.host[i] : i);
        if (rc < 0)
            goto out;
    }
    if ((rc = place_outputs(&l)) < 0)
        goto out;
    p->macs = graph_macs(g);
    rc = keep_names(p, e);
out:
    free(l.place);
    free(l.nhwc);
    cpu_fusion_free(&l.f);
    return rc;
}
