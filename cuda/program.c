/* program.c - see program.h: tensors, buffers, weights, steps and the arena */
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

/* Items and elements are counted in 32 bits in places; larger tensors are refused. */
#define ELEMENTS_MAX INT32_MAX

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

int64_t build_round8(int64_t n)
{
    return round_up(n, OCTET);
}

int build_fail(struct build *b, const char *why)
{
    const struct node *n = &b->g->node[b->node];
    return err_set(b->e, ERR_UNSUPPORTED, "cuda cannot run node %s (%s): %s", n->name,
                   op_name(n->op), why);
}

int64_t build_element_bytes(const struct build *b)
{
    return b->half ? 2 : 4;
}

static int no_memory(struct build *b)
{
    return err_set(b->e, ERR_NOMEM, "no memory for a program");
}

/* Makes room for one more of `size` bytes. */
static int grow(struct build *b, void **list, int n, int *cap, size_t size)
{
    if (n < *cap)
        return 0;
    int want = *cap ? *cap * 2 : 64;
    void *more = realloc(*list, (size_t)want * size);
    if (!more)
        return no_memory(b);
    *list = more;
    *cap = want;
    return 0;
}

int build_buffer(struct build *b, int64_t bytes)
{
    void *list = b->buffer;
    int rc = grow(b, &list, b->n_buffers, &b->cap_buffers, sizeof *b->buffer);
    b->buffer = list;
    if (rc != 0)
        return rc;
    b->buffer[b->n_buffers] =
        (struct build_buffer){.bytes = round_up(bytes, ALIGN), .first = -1, .last = -1};
    return b->n_buffers++;
}

int build_weights(struct build *b, const void *bytes, int64_t n, int64_t *offset)
{
    struct program *p = b->p;
    int64_t at = round_up(p->weight_bytes, ALIGN);
    if (at + n > p->weight_cap) {
        int64_t cap = (at + n) * 2;
        uint8_t *more = realloc(p->weights, (size_t)cap);
        if (!more)
            return no_memory(b);
        p->weights = more;
        p->weight_cap = cap;
    }
    memset(p->weights + p->weight_bytes, 0, (size_t)(at - p->weight_bytes));
    memcpy(p->weights + at, bytes, (size_t)n);
    p->weight_bytes = at + n;
    *offset = at;
    return 0;
}

static void layout(const struct shape *s, struct build_tensor *t)
{
    t->nhwc = s->rank == 4;
    if (t->nhwc) {
        t->octets = round_up(s->dim[1], OCTET) / OCTET;
        t->pitch = t->octets * OCTET;
        t->owns_lanes = true;
    }
}

static int64_t stored_elements(const struct shape *s, const struct build_tensor *t)
{
    return t->nhwc ? s->dim[0] * s->dim[2] * s->dim[3] * t->pitch : shape_count(s);
}

/* A constant operand: elements in the layout of a tensor of its shape. */
static int store_constant(struct build *b, int value, struct build_tensor *t)
{
    const struct value *v = &b->g->value[value];
    layout(&v->shape, t);
    int64_t count = shape_count(&v->shape), stored = stored_elements(&v->shape, t);
    if (stored > ELEMENTS_MAX)
        return build_fail(b, "a constant is too large");
    float *plain = malloc(sizeof(float) * (size_t)(count + 1));
    void *image = calloc((size_t)stored + 1, (size_t)build_element_bytes(b));
    int rc = plain && image ? constant_load_f32(v, 0, count, plain, b->e) : no_memory(b);
    if (rc == 0) {
        struct kernel_array out = {image, b->half};
        struct kernel_view view = build_view(b, t, &v->shape);
        view.offset = 0;
        for (int64_t i = 0; i < count; i++)
            store(out, view_at(&view, i), plain[i]);
        rc = build_weights(b, image, stored * build_element_bytes(b), &t->offset);
    }
    free(plain);
    free(image);
    t->buffer = -1;
    t->made = rc == 0;
    return rc;
}

int build_read(struct build *b, int value, struct build_tensor **out)
{
    struct build_tensor *t = &b->tensor[value];
    if (!t->made) {
        if (!b->g->value[value].constant)
            return err_set(b->e, ERR_BUG, "value %s is read before it is made",
                           b->g->value[value].name);
        int rc = store_constant(b, value, t);
        if (rc != 0)
            return rc;
    }
    if (t->row != 0)
        return err_set(b->e, ERR_BUG, "value %s is read as if it were by itself",
                       b->g->value[value].name);
    *out = t;
    return 0;
}

/* The concat along channels into which a value can be written at once, or NULL. */
static const struct node *home_of(struct build *b, int value, int64_t *channel)
{
    const struct graph *g = b->g;
    for (int i = b->node + 1; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        if (n->op != OP_CONCAT || n->axis != 1 || g->value[n->out[0]].shape.rank != 4)
            continue;
        int64_t at = 0;
        for (int k = 0; k < n->n_in; k++) {
            int64_t c = g->value[n->in[k]].shape.dim[1];
            if (n->in[k] == value)
                break;
            at += c;
        }
        for (int k = 0, seen = 0; k < n->n_in; k++) {
            seen += n->in[k] == value;
            /* a value twice in one concat has one home only */
            if (n->in[k] == value && seen == 1 && at % OCTET == 0 &&
                g->value[value].shape.dim[1] % OCTET == 0) {
                *channel = at;
                return n;
            }
        }
    }
    return NULL;
}

static int add_clear(struct build *b, const struct build_tensor *t, int64_t n, int64_t pixels);

int build_write(struct build *b, int value, struct build_tensor **out)
{
    const struct shape *s = &b->g->value[value].shape;
    struct build_tensor *t = &b->tensor[value];
    if (t->made) { /* its concat made it a place */
        *out = t;
        return 0;
    }
    layout(s, t);
    if (stored_elements(s, t) > ELEMENTS_MAX)
        return build_fail(b, "a tensor has more than 2^31 elements");
    int64_t channel = 0;
    const struct node *home = t->nhwc ? home_of(b, value, &channel) : NULL;
    if (home) {
        struct build_tensor *whole;
        int rc = build_write_elements(b, home->out[0], &whole);
        if (rc != 0)
            return rc;
        t->buffer = whole->buffer;
        t->offset = whole->offset + channel;
        t->pitch = whole->pitch;
        t->owns_lanes = false;
    } else {
        int id = build_buffer(b, stored_elements(s, t) * build_element_bytes(b));
        if (id < 0)
            return id;
        t->buffer = id;
        t->offset = 0;
    }
    t->made = true;
    *out = t;
    return 0;
}

int build_write_elements(struct build *b, int value, struct build_tensor **out)
{
    const struct shape *s = &b->g->value[value].shape;
    bool fresh = !b->tensor[value].made;
    int rc = build_write(b, value, out);
    /* Spare lanes meet zero weights, so they must hold numbers; memory is reused. */
    if (rc == 0 && fresh && (*out)->owns_lanes && s->dim[1] % OCTET != 0)
        rc = add_clear(b, *out, s->dim[0], s->dim[2] * s->dim[3]);
    return rc;
}

int build_temporary(struct build *b, int64_t n, int64_t pixels, int64_t c, struct build_tensor *out)
{
    struct shape s = {.rank = 4, .dim = {n, c, pixels, 1}};
    *out = (struct build_tensor){0};
    layout(&s, out);
    if (stored_elements(&s, out) > ELEMENTS_MAX)
        return build_fail(b, "a tensor has more than 2^31 elements");
    int id = build_buffer(b, stored_elements(&s, out) * build_element_bytes(b));
    if (id < 0)
        return id;
    out->buffer = id;
    out->made = true;
    return 0;
}

/* While building, an arena place is (buffer << 40 | byte offset in it). */
#define BUFFER_SHIFT 40

struct place build_place(const struct build *b, const struct build_tensor *t)
{
    if (t->buffer < 0)
        return (struct place){REGION_WEIGHTS, t->offset};
    return (struct place){REGION_ARENA,
                          (int64_t)t->buffer << BUFFER_SHIFT | t->offset * build_element_bytes(b)};
}

int build_table(struct build *b, int value, int64_t count, struct place *out)
{
    int64_t stored = round_up(count, OCTET), offset = 0;
    float *table = calloc((size_t)stored, sizeof *table);
    if (!table)
        return no_memory(b);
    int rc = constant_load_f32(&b->g->value[value], 0, count, table, b->e);
    if (rc == 0)
        rc = build_weights(b, table, stored * (int64_t)sizeof *table, &offset);
    free(table);
    *out = (struct place){REGION_WEIGHTS, offset};
    return rc;
}

static struct step *add_step(struct build *b)
{
    struct program *p = b->p;
    void *list = p->step;
    int rc = grow(b, &list, p->n_steps, &p->cap_steps, sizeof *p->step);
    p->step = list;
    if (rc != 0)
        return NULL;
    struct step *s = &p->step[p->n_steps++];
    memset(s, 0, sizeof *s);
    s->node = b->node;
    return s;
}

static void touch(struct build *b, struct place place)
{
    if (place.region != REGION_ARENA)
        return;
    struct build_buffer *buffer = &b->buffer[place.offset >> BUFFER_SHIFT];
    int step = b->p->n_steps - 1;
    if (buffer->first < 0)
        buffer->first = step;
    buffer->last = step;
}

int build_launch(struct build *b, enum kernel kernel, const union kernel_args *args, int64_t items)
{
    if (items > KERNEL_ITEMS_MAX)
        return err_set(b->e, ERR_LIMIT, "%lld values at once are more than a launch takes",
                       (long long)items);
    struct step *s = add_step(b);
    if (!s)
        return ERR_NOMEM;
    s->kind = STEP_KERNEL;
    s->kernel = kernel;
    s->args = *args;
    s->items = items;
    return 0;
}

int build_launch_map(struct build *b, enum kernel kernel, const union kernel_args *args,
                     int64_t items, size_t in_field, struct place in, size_t out_field,
                     struct place out)
{
    int rc = build_launch(b, kernel, args, items);
    if (rc != 0)
        return rc;
    build_point(b, in_field, in);
    build_point(b, out_field, out);
    return 0;
}

void build_point(struct build *b, size_t field, struct place place)
{
    struct step *s = &b->p->step[b->p->n_steps - 1];
    if (place.region == REGION_NONE)
        return;
    s->places[s->n_places].field = (uint16_t)field;
    s->places[s->n_places++].place = place;
    touch(b, place);
}

static int add_clear(struct build *b, const struct build_tensor *t, int64_t n, int64_t pixels)
{
    struct step *s = add_step(b);
    if (!s)
        return ERR_NOMEM;
    s->kind = STEP_CLEAR;
    s->clear = build_place(b, t);
    s->clear_bytes = n * pixels * t->pitch * build_element_bytes(b);
    touch(b, s->clear);
    return 0;
}

struct kernel_act_args build_act(const struct act *act)
{
    return (struct kernel_act_args){act->kind, act->alpha, act->lo, act->hi};
}

struct kernel_view build_view(const struct build *b, const struct build_tensor *t,
                              const struct shape *s)
{
    (void)b;
    struct kernel_view v = {.rank = s->rank};
    for (int d = 0; d < s->rank; d++)
        v.dim[d] = (int32_t)s->dim[d];
    if (t->nhwc) {
        v.stride[1] = 1;
        v.stride[3] = t->pitch;
        v.stride[2] = t->pitch * s->dim[3];
        v.stride[0] = v.stride[2] * s->dim[2];
    } else {
        int64_t stride = 1;
        for (int d = s->rank - 1; d >= 0; d--) {
            v.stride[d] = stride;
            stride *= s->dim[d];
        }
    }
    return v;
}

int build_affine(struct build *b, const struct build_tensor *in, const struct build_tensor *out,
                 int64_t n, int64_t pixels, const struct build_tables *tables,
                 struct kernel_act_args act)
{
    union kernel_args a = {.affine_ = {.in = {NULL, b->half},
                                       .out = {NULL, b->half},
                                       .octets = (int32_t)in->octets,
                                       .in_pitch = (int32_t)in->pitch,
                                       .out_pitch = (int32_t)out->pitch,
                                       .act = act}};
    int rc =
        build_map(b, affine, &a, n * pixels * in->octets, build_place(b, in), build_place(b, out));
    if (rc != 0)
        return rc;
    build_point(b, FIELD(affine, scale), tables->scale);
    build_point(b, FIELD(affine, shift), tables->shift);
    return 0;
}

/* ---- who reads what -------------------------------------------------------------------------- */

int build_readers(const struct build *b, int value, const struct node **only)
{
    int readers = 0;
    *only = NULL;
    for (int i = 0; i < b->g->n_nodes; i++)
        for (int k = 0; k < b->g->node[i].n_in; k++)
            if (b->g->node[i].in[k] == value) {
                readers++;
                *only = &b->g->node[i];
            }
    for (int i = 0; i < b->g->n_outputs; i++)
        if (b->g->output[i] == value) {
            readers++;
            *only = NULL;
        }
    if (readers != 1)
        *only = NULL;
    return readers;
}

const struct node *build_maker(const struct build *b, int value)
{
    for (int i = 0; i < b->g->n_nodes; i++)
        for (int k = 0; k < b->g->node[i].n_out; k++)
            if (b->g->node[i].out[k] == value)
                return &b->g->node[i];
    return NULL;
}

bool build_is_last(const struct build *b, int value)
{
    const struct node *only;
    return b->g->value[value].shape.rank == 4 && build_readers(b, value, &only) == 1 && !only;
}

const struct node *build_act_of(const struct build *b, int value)
{
    const struct node *only;
    return b->g->value[value].shape.rank == 4 && build_readers(b, value, &only) == 1 && only &&
                   only->op == OP_ACT
               ? only
               : NULL;
}

bool build_has_bias(const struct node *n)
{
    return n->n_in > 2 && n->in[2] >= 0;
}

int build_fork_target(struct build *b, const struct node *n, struct build_tensor **out)
{
    *out = NULL;
    for (int i = b->node + 1; i < b->g->n_nodes; i++) {
        const struct node *r = &b->g->node[i];
        if (r->op != OP_ACT || r->act.kind != ACT_RELU || r->in[0] != n->out[0] ||
            b->tensor[r->out[0]].made)
            continue;
        int rc = build_write(b, r->out[0], out);
        if (rc == 0)
            (*out)->forked = true;
        return rc;
    }
    return 0;
}

struct build_rest build_nothing_left(const struct shape *s)
{
    return (struct build_rest){.height = s->dim[2],
                               .width = s->dim[3],
                               .stride = {1, 1},
                               .lanes = build_round8(s->dim[1]),
                               .taps = 1};
}

void build_leave(struct build *b, int value, const struct node *act, const struct build_tensor *y,
                 const struct build_rest *rest)
{
    struct build_tensor *t = &b->tensor[value];
    *t = *y;
    t->unfinished = true;
    t->rest = *rest;
    if (act) {
        struct build_tensor *done = &b->tensor[act->out[0]];
        *done = *t;
        done->rest.act = build_act(&act->act);
        done->forked = true;
    }
}

/* ---- the ends -------------------------------------------------------------------------------- */

static int build_finite(struct build *b, struct place in, int64_t count);

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

static int build_flags_cleared(struct build *b)
{
    struct step *s = add_step(b);
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
        int rc = grow(b, &list, p->n_watches, &p->cap_watches, sizeof *p->watch);
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
    int rc = order && near ? 0 : no_memory(b);
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
        return no_memory(&b);
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
