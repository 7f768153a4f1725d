/* program.c - see program.h: the ends of a program, and its arena */
#include "cuda/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "cuda/program_build.h"
#include "node/base/err.h"

_Static_assert((int)KACT_NONE == ACT_NONE && (int)KACT_RELU == ACT_RELU &&
                   (int)KACT_LEAKY_RELU == ACT_LEAKY_RELU && (int)KACT_TANH == ACT_TANH &&
                   (int)KACT_SIGMOID == ACT_SIGMOID && (int)KACT_CLIP == ACT_CLIP,
               "kernel_act and act_kind are one list");
_Static_assert(KERNEL_RANK == GRAPH_RANK_MAX, "views hold every rank");

/* ---- the ends -------------------------------------------------------------------------------- */

/* Looks for what is not finite in an input or output, which is row-major and float. */
static int build_finite(struct build *b, struct place in, int64_t count)
{
    int64_t part = count / b->p->batch, octets = (part + OCTET - 1) / OCTET;
    union kernel_args a = {.finite_ = {.part = (int32_t)part, .octets = (int32_t)octets}};
    int rc = build_launch(b, KERNEL_finite, &a, b->p->batch * octets);
    if (rc == 0) {
        build_point(b, FIELD(finite, in), in);
        build_point(b, FIELD(finite, out), (struct place){REGION_FLAGS, 0});
    }
    return rc;
}

static bool is_output(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->output[i] == value)
            return true;
    return false;
}

static int build_input(struct build *b, int i)
{
    int value = b->g->input[i];
    const struct shape *s = &b->g->value[value].shape;
    struct place in = {REGION_INPUT, i};
    struct build_tensor *t;
    bool seen;
    union kernel_args a;
    memset(&a, 0, sizeof a);
    if (s->rank == 4 && !is_output(b->g, value) && build_is_folded(b, value, &seen))
        return seen ? 0 : build_finite(b, in, b->p->input_count[i]);
    int rc = build_write(b, value, &t);
    if (rc != 0)
        return rc;
    if (t->nhwc) {
        a.import_ = (struct import_args){.out = {NULL, b->half},
                                         .c = (int32_t)s->dim[1],
                                         .pixels = (int32_t)(s->dim[2] * s->dim[3]),
                                         .pitch = (int32_t)t->pitch,
                                         .flag_step = b->p->batch == s->dim[0]};
        rc = build_launch(b, KERNEL_import, &a, s->dim[0] * s->dim[2] * s->dim[3] * t->octets);
        if (rc == 0) {
            build_point(b, FIELD(import, in), in);
            build_point(b, FIELD(import, out.data), build_place(b, t));
            build_point(b, FIELD(import, flags), (struct place){REGION_FLAGS, 0});
        }
        return rc;
    }
    a.copy_ = (struct copy_args){.in = {NULL, 0},
                                 .out = {NULL, b->half},
                                 .from = build_view(b, t, s),
                                 .to = build_view(b, t, s)};
    rc = build_map(b, copy, &a, shape_count(s), in, build_place(b, t));
    return rc == 0 ? build_finite(b, in, b->p->input_count[i]) : rc;
}

static int build_export(struct build *b, const struct build_tensor *t, const struct shape *s,
                        struct place out)
{
    const struct build_rest rest = t->unfinished ? t->rest : build_nothing_left(s);
    union kernel_args a = {.export_ = {.in = {NULL, b->half},
                                       .c = (int32_t)s->dim[1],
                                       .in_height = (int32_t)rest.height,
                                       .in_width = (int32_t)rest.width,
                                       .pitch = (int32_t)t->pitch,
                                       .out_height = (int32_t)s->dim[2],
                                       .out_width = (int32_t)s->dim[3],
                                       .stride = {(int32_t)rest.stride[0], (int32_t)rest.stride[1]},
                                       .pad = {(int32_t)rest.pad[0], (int32_t)rest.pad[1]},
                                       .phase_lanes = (int32_t)rest.lanes,
                                       .taps = (int32_t)rest.taps,
                                       .tap_pad = (int32_t)rest.tap_pad,
                                       .flag_step = b->p->batch == s->dim[0],
                                       .act = rest.act}};
    int rc = build_launch(b, KERNEL_export, &a,
                          s->dim[0] * s->dim[2] * s->dim[3] * build_round8(s->dim[1]) / OCTET);
    if (rc != 0)
        return rc;
    build_point(b, FIELD(export, in.data), build_place(b, t));
    build_point(b, FIELD(export, out), out);
    build_point(b, FIELD(export, bias), rest.bias);
    build_point(b, FIELD(export, flags), (struct place){REGION_FLAGS, 0});
    return 0;
}

static int build_output(struct build *b, int i)
{
    int value = b->g->output[i];
    const struct shape *s = &b->g->value[value].shape;
    struct place out = {REGION_OUTPUT, i};
    struct build_tensor *t;
    int rc = build_read(b, value, &t);
    if (rc != 0)
        return rc;
    if (t->nhwc)
        return build_export(b, t, s, out);
    union kernel_args a = {.copy_ = {.in = {NULL, b->half},
                                     .out = {NULL, 0},
                                     .from = build_view(b, t, s),
                                     .to = build_view(b, t, s)}};
    rc = build_map(b, copy, &a, shape_count(s), build_place(b, t), out);
    return rc == 0 ? build_finite(b, out, b->p->output_count[i]) : rc;
}

/* The first dimension that all inputs and outputs share, or 1. */
static int64_t common_batch(const struct graph *g)
{
    int64_t batch = 0;
    for (int i = 0; i < g->n_inputs + g->n_outputs; i++) {
        int value = i < g->n_inputs ? g->input[i] : g->output[i - g->n_inputs];
        const struct shape *s = &g->value[value].shape;
        int64_t first = s->rank > 0 ? s->dim[0] : 1;
        if (batch != 0 && first != batch)
            return 1;
        batch = first;
    }
    return batch > 0 ? batch : 1;
}

static int build_flags_cleared(struct build *b)
{
    struct step *s = build_step(b);
    if (!s)
        return ERR_NOMEM;
    s->kind = STEP_CLEAR;
    s->clear = (struct place){REGION_FLAGS, 0};
    s->clear_bytes = b->p->batch * (int64_t)sizeof(int32_t);
    return 0;
}

/* Notes where the node's results lie, for diagnosis. What a norm leaves to the Add that reads it is
 * looked at as that Add's. */
static int add_watches(struct build *b, const struct node *n)
{
    struct program *p = b->p;
    for (int i = 0; i < n->n_out; i++) {
        const struct build_tensor *t = n->out[i] < 0 ? NULL : &b->tensor[n->out[i]];
        if (!t || !t->made || t->buffer < 0)
            continue;
        void *list = p->watch;
        int rc = build_grow(b, &list, p->n_watches, &p->cap_watches, sizeof *p->watch);
        p->watch = list;
        if (rc != 0)
            return rc;
        const struct shape *s = &b->g->value[n->out[i]].shape;
        int64_t span = shape_count(s);
        if (t->unfinished) {
            span = s->dim[0] * t->rest.height * t->rest.width * t->pitch;
        } else if (t->nhwc) {
            int64_t row = t->row ? t->row : s->dim[3], image = t->row ? t->image : row * s->dim[2];
            int64_t last = (s->dim[0] - 1) * image + (s->dim[2] - 1) * row + s->dim[3] - 1;
            span = last * t->pitch + t->octets * OCTET;
        }
        struct watch *w = &p->watch[p->n_watches++];
        *w = (struct watch){.after = p->n_steps - 1,
                            .place = build_place(b, t),
                            .bytes = span * build_element_bytes(b)};
        snprintf(w->name, sizeof w->name, "%s (%s)", n->name, op_name(n->op));
    }
    return 0;
}

/* ---- the arena ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    const struct build_buffer *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes)
        return (*x)->bytes < (*y)->bytes ? 1 : -1;
    return (*x)->first - (*y)->first;
}

static int by_offset(const void *a, const void *b)
{
    const struct build_buffer *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Largest first, each at the lowest offset where it meets no buffer that lives at the same time. */
static int plan_memory(struct build *b)
{
    int n = b->n_buffers;
    struct build_buffer **order = calloc((size_t)n + 1, sizeof *order);
    struct build_buffer **near = calloc((size_t)n + 1, sizeof *near);
    int rc = order && near ? 0 : build_no_memory(b);
    for (int i = 0; rc == 0 && i < n; i++)
        order[i] = &b->buffer[i];
    if (rc == 0)
        qsort(order, (size_t)n, sizeof *order, by_size);
    int64_t end = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        struct build_buffer *x = order[i];
        int m = 0;
        for (int k = 0; k < i; k++)
            if (order[k]->first <= x->last && x->first <= order[k]->last)
                near[m++] = order[k];
        qsort(near, (size_t)m, sizeof *near, by_offset);
        x->offset = 0;
        for (int k = 0; k < m; k++)
            if (near[k]->offset < x->offset + x->bytes &&
                x->offset < near[k]->offset + near[k]->bytes)
                x->offset = near[k]->offset + near[k]->bytes;
        if (x->offset + x->bytes > end)
            end = x->offset + x->bytes;
    }
    b->p->arena_bytes = end;
    free(order);
    free(near);
    return rc;
}

static void settle(const struct build *b, struct place *place)
{
    if (place->region != REGION_ARENA)
        return;
    const struct build_buffer *buffer = &b->buffer[place->offset >> BUFFER_SHIFT];
    place->offset = buffer->offset + (place->offset & (((int64_t)1 << BUFFER_SHIFT) - 1));
}

static void settle_steps(const struct build *b)
{
    for (int i = 0; i < b->p->n_steps; i++) {
        struct step *s = &b->p->step[i];
        for (int k = 0; k < s->n_places; k++)
            settle(b, &s->places[k].place);
        settle(b, &s->x);
        settle(b, &s->w);
        settle(b, &s->bias);
        settle(b, &s->y);
        settle(b, &s->second);
        settle(b, &s->clear);
    }
    for (int i = 0; i < b->p->n_watches; i++)
        settle(b, &b->p->watch[i].place);
}

/* Convolution steps are added by program_convolution.c; their buffers count as touched. */
static void touch_convolutions(struct build *b)
{
    int kept = b->p->n_steps;
    for (int i = 0; i < kept; i++) {
        const struct step *s = &b->p->step[i];
        if (s->kind != STEP_CONVOLUTION)
            continue;
        struct place of[3] = {s->x, s->y, s->second};
        for (int k = 0; k < 3; k++) {
            if (of[k].region != REGION_ARENA)
                continue;
            struct build_buffer *buffer = &b->buffer[of[k].offset >> BUFFER_SHIFT];
            if (buffer->first < 0 || buffer->first > i)
                buffer->first = i;
            if (buffer->last < i)
                buffer->last = i;
        }
    }
}

int program_make(const struct graph *g, bool half, bool tf32, struct device *device,
                 struct program *out, struct err *e)
{
    struct program p = {.device = device, .n_inputs = g->n_inputs, .n_outputs = g->n_outputs};
    struct build b = {.g = g, .p = &p, .half = half, .tf32 = tf32, .node = -1, .e = e};
    int rc = 0;
    if (!g->lowered)
        return err_set(e, ERR_BUG, "the graph is not lowered");
    b.tensor = calloc((size_t)g->n_values + 1, sizeof *b.tensor);
    if (!b.tensor)
        return build_no_memory(&b);
    p.batch = common_batch(g);
    rc = build_flags_cleared(&b);
    for (int i = 0; rc == 0 && i < g->n_inputs; i++) {
        p.input_count[i] = shape_count(&g->value[g->input[i]].shape);
        rc = build_input(&b, i);
    }
    for (int i = 0; rc == 0 && i < g->n_nodes; i++) {
        b.node = i;
        rc = build_node(&b, &g->node[i]);
        if (rc == 0)
            rc = add_watches(&b, &g->node[i]);
    }
    b.node = -1;
    for (int i = 0; rc == 0 && i < g->n_outputs; i++) {
        p.output_count[i] = shape_count(&g->value[g->output[i]].shape);
        rc = build_output(&b, i);
    }
    if (rc == 0) {
        touch_convolutions(&b);
        rc = plan_memory(&b);
    }
    if (rc == 0)
        settle_steps(&b);
    for (int i = 0; i < p.n_convolutions; i++)
        if (p.convolution[i].made.workspace_bytes > p.workspace_bytes)
            p.workspace_bytes = p.convolution[i].made.workspace_bytes;
    free(b.tensor);
    free(b.buffer);
    if (rc != 0)
        program_fini(&p);
    else
        *out = p;
    return rc;
}

void program_fini(struct program *p)
{
    for (int i = 0; i < p->n_convolutions; i++)
        p->device->ops->convolution_free(p->device, p->convolution[i].made.plan);
    free(p->convolution);
    free(p->watch);
    free(p->step);
    free(p->weights);
    *p = (struct program){0};
}
