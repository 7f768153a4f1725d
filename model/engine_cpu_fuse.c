/*
 * engine_cpu_fuse.c - which nodes need no step of their own in the CPU engine
 *
 * A convolution reads through activations, borders (Pad) and nearest upsampling that feed only
 * convolutions: they become part of how it reads. An Add whose operand is a convolution or a norm
 * becomes the end of that step, and so does a pixel shuffle by 2. What is then read by nobody is
 * not computed. A Relu that only stands between a skip connection and its Concat is left to those
 * who read the Concat, so that the skipped value is made in its slice.
 */
#include "model/engine_cpu_plan.h"

#include <stdlib.h>

#include "model/resample.h"
#include "node/base/err.h"

struct use {
    int count;    /* reads by nodes, and 1 for each graph output */
    bool convs;   /* only convolutions and transposed ones read it, as their data */
    bool forward; /* only convolutions */
};

struct cpu_act cpu_act_of(const struct act *a)
{
    switch (a->kind) {
    case ACT_NONE:
        break;
    case ACT_RELU:
        return (struct cpu_act){CPU_RELU, 0, 0};
    case ACT_LEAKY_RELU:
        return (struct cpu_act){CPU_LEAKY, a->alpha, 0};
    case ACT_TANH:
        return (struct cpu_act){CPU_TANH, 0, 0};
    case ACT_SIGMOID:
        return (struct cpu_act){CPU_SIGMOID, 0, 0};
    case ACT_CLIP:
        return (struct cpu_act){CPU_CLIP, a->lo, a->hi};
    }
    return (struct cpu_act){CPU_NONE, 0, 0};
}

static struct use *count_uses(const struct graph *g)
{
    struct use *u = calloc((size_t)g->n_values + 1, sizeof *u);
    if (!u)
        return NULL;
    for (int i = 0; i < g->n_values; i++)
        u[i].convs = u[i].forward = true;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        for (int j = 0; j < n->n_in; j++) {
            if (n->in[j] < 0)
                continue;
            struct use *v = &u[n->in[j]];
            v->count++;
            v->forward = v->forward && n->op == OP_CONV && j == 0;
            v->convs = v->convs && (n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE) && j == 0;
        }
    }
    for (int i = 0; i < g->n_outputs; i++) {
        u[g->output[i]].count++;
        u[g->output[i]].convs = u[g->output[i]].forward = false;
    }
    return u;
}

/* Does the Resize only repeat rows and columns, by whole factors? */
static bool repeats(const struct graph *g, const struct node *n, int up[2])
{
    const struct shape *in = &g->value[n->in[0]].shape, *out = &g->value[n->out[0]].shape;
    if (n->resize.mode != RESIZE_NEAREST || in->rank != 4 || in->dim[0] != out->dim[0] ||
        in->dim[1] != out->dim[1])
        return false;
    bool all = true;
    for (int axis = 2; axis < 4 && all; axis++) {
        int64_t size = in->dim[axis], to = out->dim[axis];
        if (to % size != 0 || to / size > 64)
            return false;
        up[axis - 2] = (int)(to / size);
        struct resample table;
        if (resample_init(&table, &n->resize, axis, size, to, NULL) != 0)
            return false;
        for (int64_t i = 0; i < to && all; i++)
            all = table.index[i] == (int32_t)(i / up[axis - 2]);
        resample_fini(&table);
    }
    return all;
}

/* Takes a Pad into what a convolution reads; false if that would change its meaning. */
static bool take_pad(const struct graph *g, const struct node *conv, const struct node *pad,
                     struct conv_source *s)
{
    const struct pad_attr *p = &pad->pad;
    const struct shape *in = &g->value[pad->in[0]].shape;
    if (in->rank != 4 || s->up[0] != 1 || s->up[1] != 1 || s->border != CPU_ZERO)
        return false;
    for (int i = 0; i < 4; i++)
        if (p->begin[i] < 0 || p->end[i] < 0 || (i < 2 && (p->begin[i] || p->end[i])))
            return false;
    if (p->mode == PAD_CONSTANT) {
        if (p->value != 0.0f || s->act.kind == CPU_CLIP)
            return false;
    } else {
        for (int i = 0; i < 2; i++)
            if (conv->conv.pad_begin[i] || conv->conv.pad_end[i] || s->pad[i])
                return false;
        s->border = p->mode == PAD_REFLECT ? CPU_REFLECT : CPU_EDGE;
    }
    s->pad[0] += (int)p->begin[2];
    s->pad[1] += (int)p->begin[3];
    return true;
}

static void find_source(const struct graph *g, const struct use *use, const bool *late,
                        const struct node *conv, struct conv_source *s)
{
    *s = (struct conv_source){.value = conv->in[0], .up = {1, 1}};
    for (;;) {
        int from = g->value[s->value].producer;
        if (from < 0 || !use[s->value].convs)
            return;
        const struct node *n = &g->node[from];
        if (n->op == OP_CONCAT && late[from]) {
            s->act = (struct cpu_act){CPU_RELU, 0, 0};
            return;
        }
        if (n->op == OP_ACT && s->act.kind == CPU_NONE &&
            (n->act.kind == ACT_RELU || n->act.kind == ACT_LEAKY_RELU || n->act.kind == ACT_CLIP)) {
            s->act = cpu_act_of(&n->act);
        } else if (n->op == OP_PAD && use[s->value].forward) {
            if (!take_pad(g, conv, n, s))
                return;
        } else if (n->op == OP_RESIZE && use[s->value].forward && s->up[0] == 1 && s->up[1] == 1) {
            int up[2];
            if (!repeats(g, n, up))
                return;
            s->up[0] = up[0];
            s->up[1] = up[1];
        } else {
            return;
        }
        s->value = n->in[0];
    }
}

/*
 * Relu(a), Relu(b), … side by side that only convolutions read: they read through a Relu, which
 * changes nothing where there was one, and a value that others read too needs no second copy.
 */
static void read_through(const struct graph *g, const struct use *use, int concat, struct fusion *f)
{
    const struct node *n = &g->node[concat];
    if (!use[n->out[0]].convs)
        return;
    for (int i = 0; i < n->n_in; i++) {
        int from = g->value[n->in[i]].producer;
        if (from < 0 || g->node[from].act.kind != ACT_RELU)
            return;
    }
    for (int i = 0; i < n->n_in; i++) {
        int from = g->value[n->in[i]].producer;
        if (g->node[from].op == OP_ACT && use[n->in[i]].count == 1)
            f->late[from] = f->late[concat] = true;
    }
}

/* Finds the operand of an Add that can end in it. */
static void host_add(const struct graph *g, const struct use *use, int add, struct fusion *f)
{
    const struct node *n = &g->node[add];
    const struct value *out = &g->value[n->out[0]];
    if (out->shape.rank != 4 || n->act.kind != ACT_NONE || n->in[0] == n->in[1])
        return;
    for (int i = 0; i < 2; i++) {
        const struct value *mine = &g->value[n->in[i]], *other = &g->value[n->in[1 - i]];
        if (mine->producer < 0 || use[n->in[i]].count != 1 || other->constant ||
            !shape_equal(&mine->shape, &out->shape) || !shape_equal(&other->shape, &out->shape))
            continue;
        const struct node *m = &g->node[mine->producer];
        bool conv = m->op == OP_CONV || m->op == OP_CONV_TRANSPOSE;
        if ((conv && m->act.kind == ACT_NONE) || m->op == OP_INSTANCE_NORM) {
            f->add[mine->producer] = add;
            f->host[add] = mine->producer;
            return;
        }
    }
}

/* A pixel shuffle by 2 that alone reads a convolution becomes how that writes. */
static void host_shuffle(const struct graph *g, const struct use *use, int node, struct fusion *f)
{
    const struct node *n = &g->node[node];
    int from = g->value[n->in[0]].producer;
    if (n->depth.block != 2 || from < 0 || use[n->in[0]].count != 1)
        return;
    const struct node *m = &g->node[from];
    if (m->op != OP_CONV || m->conv.group != 1)
        return;
    f->add[from] = node;
    f->host[node] = from;
}

static int mark_live(const struct graph *g, struct fusion *f)
{
    bool *read = calloc((size_t)g->n_values + 1, sizeof *read);
    if (!read)
        return ERR_NOMEM;
    for (int i = 0; i < g->n_outputs; i++)
        read[g->output[i]] = true;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const struct node *n = &g->node[i];
        for (int j = 0; j < n->n_out; j++)
            f->live[i] = f->live[i] || (n->out[j] >= 0 && read[n->out[j]]);
        if (!f->live[i])
            continue;
        bool conv = n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE;
        for (int j = conv ? 1 : 0; j < n->n_in; j++)
            if (n->in[j] >= 0)
                read[n->in[j]] = true;
        if (conv)
            read[f->source[i].value] = true;
    }
    free(read);
    return 0;
}

int cpu_fuse(const struct graph *g, bool low_memory, struct fusion *f, struct err *e)
{
    size_t n = (size_t)g->n_nodes + 1;
    struct use *use = count_uses(g);
    int rc = 0;
    f->source = calloc(n, sizeof *f->source);
    f->add = calloc(n, sizeof *f->add);
    f->host = calloc(n, sizeof *f->host);
    f->live = calloc(n, sizeof *f->live);
    f->late = calloc(n, sizeof *f->late);
    if (!use || !f->source || !f->add || !f->host || !f->live || !f->late) {
        rc = ERR_NOMEM;
        goto out;
    }
    for (int i = 0; i < g->n_nodes; i++)
        f->add[i] = f->host[i] = -1;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *m = &g->node[i];
        if (m->op == OP_CONV || m->op == OP_CONV_TRANSPOSE)
            find_source(g, use, f->late, m, &f->source[i]);
        if (m->op == OP_CONCAT && !low_memory) /* a slice lives longer than a copy into it */
            read_through(g, use, i, f);
        if (m->op == OP_ADD)
            host_add(g, use, i, f);
        if (m->op == OP_DEPTH_TO_SPACE)
            host_shuffle(g, use, i, f);
    }
    rc = mark_live(g, f);
out:
    free(use);
    if (rc != 0) {
        cpu_fusion_free(f);
        err_set(e, rc, "no memory to compile %d nodes", g->n_nodes);
    }
    return rc;
}

void cpu_fusion_free(struct fusion *f)
{
    free(f->source);
    free(f->add);
    free(f->host);
    free(f->live);
    free(f->late);
    *f = (struct fusion){0};
}

int64_t cpu_pad_source(enum pad_mode mode, int64_t i, int64_t begin, int64_t size)
{
    int64_t v = i - begin;
    if (v >= 0 && v < size)
        return v;
    if (mode == PAD_CONSTANT)
        return -1;
    if (mode == PAD_EDGE || size == 1)
        return v < 0 ? 0 : size - 1;
    while (v < 0 || v >= size)
        v = v < 0 ? -v : 2 * (size - 1) - v;
    return v;
}
