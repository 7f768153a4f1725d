/*
 * program_build.c - see program_build.h: a program's tensors, buffers, weights and steps while it
 * is made, and who reads what in its graph
 */
#include "cuda/program_build.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

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

int build_no_memory(struct build *b)
{
    return err_set(b->e, ERR_NOMEM, "no memory for a program");
}

int build_grow(struct build *b, void **list, int n, int *cap, size_t size)
{
    if (n < *cap)
        return 0;
    int want = *cap ? *cap * 2 : 64;
    void *more = realloc(*list, (size_t)want * size);
    if (!more)
        return build_no_memory(b);
    *list = more;
    *cap = want;
    return 0;
}

int build_buffer(struct build *b, int64_t bytes)
{
    void *list = b->buffer;
    int rc = build_grow(b, &list, b->n_buffers, &b->cap_buffers, sizeof *b->buffer);
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
            return build_no_memory(b);
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
    int rc = plain && image ? constant_load_f32(v, 0, count, plain, b->e) : build_no_memory(b);
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
        return build_no_memory(b);
    int rc = constant_load_f32(&b->g->value[value], 0, count, table, b->e);
    if (rc == 0)
        rc = build_weights(b, table, stored * (int64_t)sizeof *table, &offset);
    free(table);
    *out = (struct place){REGION_WEIGHTS, offset};
    return rc;
}

struct step *build_step(struct build *b)
{
    struct program *p = b->p;
    void *list = p->step;
    int rc = build_grow(b, &list, p->n_steps, &p->cap_steps, sizeof *p->step);
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
    struct step *s = build_step(b);
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
    struct step *s = build_step(b);
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

/* The same elements in another layout. */
static int copy_layout(struct build *b, const struct shape *s, const struct build_tensor *in,
                       const struct build_tensor *out)
{
    union kernel_args a = {.copy_ = {.in = {NULL, b->half},
                                     .out = {NULL, b->half},
                                     .from = build_view(b, in, s),
                                     .to = build_view(b, out, s)}};
    return build_map(b, copy, &a, shape_count(s), build_place(b, in), build_place(b, out));
}

int build_flat(struct build *b, int value, struct shape *flat, struct build_tensor *out)
{
    const struct shape *s = &b->g->value[value].shape;
    struct build_tensor *in;
    *flat = (struct shape){.rank = 4, .dim = {s->dim[0], s->dim[1], 1, 1}};
    for (int d = 2; d < s->rank; d++)
        flat->dim[3] *= s->dim[d];
    int rc = build_read(b, value, &in);
    if (rc == 0)
        rc = build_temporary(b, flat->dim[0], flat->dim[3], flat->dim[1], out);
    return rc != 0 ? rc : copy_layout(b, flat, in, out);
}

int build_unflat(struct build *b, const struct shape *flat, const struct build_tensor *in,
                 int value)
{
    struct build_tensor *out;
    int rc = build_write(b, value, &out);
    return rc != 0 ? rc : copy_layout(b, flat, in, out);
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
    int producer = b->g->value[value].producer;
    return producer < 0 ? NULL : &b->g->node[producer];
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
