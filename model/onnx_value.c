/*
 * onnx_value.c - values of a graph: their names, inputs, outputs and constants
 *
 * A name stands for one value, is given once and before it is used.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "node/base/err.h"

#include "model/onnx_read.h"

/* --- names of values -------------------------------------------------------------------------- */

struct name_table {
    int *slot; /* value + 1; 0: empty */
    uint32_t size, used, seed;
};

int onnx_names_new(struct reader *r, struct err *e)
{
    struct name_table *t = calloc(1, sizeof *t);
    r->names = t;
    if (t == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) < 0)
        t->seed = (uint32_t)(uintptr_t)t;
    t->size = 1024;
    t->slot = calloc(t->size, sizeof *t->slot);
    return t->slot ? 0 : err_set(e, ERR_NOMEM, "no memory for the model");
}

void onnx_names_free(struct reader *r)
{
    if (r->names != NULL)
        free(r->names->slot);
    free(r->names);
    r->names = NULL;
}

/* FNV-1a from a start that the file cannot know, so that it cannot be made to collide. */
static uint32_t hash(const struct reader *r, struct span s)
{
    uint32_t h = 2166136261u ^ r->names->seed;
    for (int64_t i = 0; i < s.n; i++)
        h = (h ^ s.p[i]) * 16777619u;
    return h ^ h >> 15;
}

static uint32_t name_slot(const struct reader *r, struct span s)
{
    const struct name_table *t = r->names;
    uint32_t i = hash(r, s) & (t->size - 1);
    while (t->slot[i] != 0 && !span_is(s, r->g->value[t->slot[i] - 1].name))
        i = (i + 1) & (t->size - 1);
    return i;
}

int onnx_name_find(const struct reader *r, struct span s)
{
    return r->names->slot[name_slot(r, s)] - 1;
}

int onnx_name_add(struct reader *r, struct span s, enum dtype t, const char *what, struct err *e)
{
    struct name_table *names = r->names;
    char shown[96];
    if (s.n < 1 || s.n > ONNX_NAME_MAX || memchr(s.p, 0, (size_t)s.n) != NULL)
        return err_set(e, ERR_INVALID, "%s has no name, or one of more than %d bytes", what,
                       ONNX_NAME_MAX);
    if (onnx_name_find(r, s) >= 0)
        return err_set(e, ERR_INVALID, "%s '%s': the name is defined twice", what,
                       onnx_printable(s, shown, sizeof shown));
    if (names->used >= (uint64_t)r->limits.nodes * 4)
        return err_set(e, ERR_LIMIT, "the model has more than %lld values",
                       (long long)r->limits.nodes * 4);
    if (names->used * 2 >= names->size) {
        struct name_table larger = {.size = names->size * 2};
        larger.slot = calloc(larger.size, sizeof *larger.slot);
        if (larger.slot == NULL)
            return err_set(e, ERR_NOMEM, "no memory for the model");
        int *old = names->slot;
        uint32_t old_size = names->size;
        names->slot = larger.slot;
        names->size = larger.size;
        for (uint32_t i = 0; i < old_size; i++)
            if (old[i] != 0) {
                const char *text = r->g->value[old[i] - 1].name;
                struct span moved = {(const uint8_t *)text, (int64_t)strlen(text)};
                names->slot[name_slot(r, moved)] = old[i];
            }
        free(old);
    }
    char *kept = graph_strdup(r->g, (const char *)s.p, (size_t)s.n);
    int value = kept ? graph_add_value(r->g, kept, t) : ERR_NOMEM;
    if (value < 0)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    names->slot[name_slot(r, s)] = value + 1;
    names->used++;
    return value;
}

/* --- inputs and outputs ----------------------------------------------------------------------- */

static int read_dimension(struct reader *r, struct span message, int64_t *dim, const char **symbol,
                          struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    int rc;
    *dim = GRAPH_DIM_UNKNOWN;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number == 1) {
            if ((rc = wire_expect(&f, WIRE_VARINT, "a dimension", e)) != 0)
                return rc;
            if (f.value > (uint64_t)ONNX_DIM_MAX)
                return err_set(e, ERR_INVALID, "a dimension is negative or above 2^31");
            *dim = f.value == 0 ? GRAPH_DIM_UNKNOWN : (int64_t)f.value;
        } else if (f.number == 2) {
            if ((rc = wire_expect(&f, WIRE_BYTES, "a dimension's symbol", e)) != 0)
                return rc;
            if (f.bytes.n < 1 || f.bytes.n > ONNX_NAME_MAX)
                continue;
            *symbol = graph_strdup(r->g, (const char *)f.bytes.p, (size_t)f.bytes.n);
            if (*symbol == NULL)
                return err_set(e, ERR_NOMEM, "no memory for the model");
        }
    }
    return rc;
}

/* TypeProto.Tensor */
static int read_tensor_type(struct reader *r, struct span message, struct value *v,
                            const char *what, struct err *e)
{
    struct wire w = wire_of(message, r->start), inner;
    struct field f;
    int rc;
    v->shape.rank = -1;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number == 1) {
            if ((rc = wire_expect(&f, WIRE_VARINT, what, e)) != 0 ||
                (rc = onnx_dtype(f.value, &v->dtype, what, e)) != 0)
                return rc;
        } else if (f.number == 2) {
            if ((rc = wire_expect(&f, WIRE_BYTES, what, e)) != 0)
                return rc;
            inner = wire_of(f.bytes, r->start);
            v->shape.rank = 0;
            while ((rc = wire_next(&inner, &f, e)) > 0) {
                if (f.number != 1)
                    continue;
                if ((rc = wire_expect(&f, WIRE_BYTES, what, e)) != 0)
                    return rc;
                int i = v->shape.rank;
                if (i == GRAPH_RANK_MAX)
                    return err_set(e, ERR_LIMIT, "%s has more than %d dimensions", what,
                                   GRAPH_RANK_MAX);
                v->symbol[i] = NULL;
                rc = read_dimension(r, f.bytes, &v->shape.dim[i], &v->symbol[i], e);
                if (rc < 0)
                    return err_context(e, "%s", what);
                v->shape.rank++;
            }
            if (rc < 0)
                return rc;
        }
    }
    return rc;
}

#define WHAT_MAX 120

/* kind: "graph input"; what: that and the name, for messages. */
static int read_value_info(struct reader *r, struct span message, const char *kind,
                           struct span *name, struct value *v, char what[WHAT_MAX], struct err *e)
{
    struct wire w = wire_of(message, r->start), inner;
    struct field f;
    char shown[80];
    int rc;
    bool typed = false;
    while ((rc = wire_next(&w, &f, e)) > 0)
        if (f.number == 1 && f.type == WIRE_BYTES)
            *name = f.bytes;
    if (rc < 0)
        return rc;
    snprintf(what, WHAT_MAX, "%s '%s'", kind, onnx_printable(*name, shown, sizeof shown));
    w = wire_of(message, r->start);
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != 1 && f.number != 2)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, what, e)) != 0)
            return rc;
        if (f.number == 1)
            continue;
        inner = wire_of(f.bytes, r->start);
        while ((rc = wire_next(&inner, &f, e)) > 0) {
            if (f.number == 1) {
                if ((rc = wire_expect(&f, WIRE_BYTES, what, e)) != 0 ||
                    (rc = read_tensor_type(r, f.bytes, v, what, e)) < 0)
                    return rc;
                typed = true;
            } else if (f.number == 4 || f.number == 5 || f.number == 8 || f.number == 9) {
                return err_set(e, ERR_UNSUPPORTED,
                               "%s is a sequence, map, optional or sparse tensor", what);
            }
        }
        if (rc < 0)
            return rc;
    }
    if (rc == 0 && !typed)
        return err_set(e, ERR_INVALID, "%s has no tensor type", what);
    return rc;
}

int onnx_read_input(struct reader *r, struct span message, struct err *e)
{
    struct graph *g = r->g;
    struct span name = {0};
    struct value v = {0};
    char what[WHAT_MAX];
    int rc = read_value_info(r, message, "graph input", &name, &v, what, e);
    if (rc < 0)
        return rc;
    int known = name.n > 0 ? onnx_name_find(r, name) : -1;
    if (known >= 0 && g->value[known].constant != NULL) {
        /* Before IR 4 every constant is listed among the inputs too. */
        if (g->value[known].producer == -2)
            return err_set(e, ERR_INVALID, "%s: the name is defined twice", what);
        g->value[known].producer = -2;
        return 0;
    }
    if (g->n_inputs == GRAPH_INPUTS_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d graph inputs", what, GRAPH_INPUTS_MAX);
    int value = onnx_name_add(r, name, v.dtype, "graph input", e);
    if (value < 0)
        return value;
    if (v.dtype != DTYPE_F32)
        return err_set(e, ERR_UNSUPPORTED, "%s holds integers: only float inputs are supported",
                       what);
    g->value[value].shape = v.shape;
    memcpy(g->value[value].symbol, v.symbol, sizeof v.symbol);
    g->input[g->n_inputs++] = value;
    return 0;
}

int onnx_read_output(struct reader *r, struct span message, struct err *e)
{
    struct graph *g = r->g;
    struct span name = {0};
    struct value v = {0};
    char what[WHAT_MAX];
    int rc = read_value_info(r, message, "graph output", &name, &v, what, e);
    if (rc < 0)
        return rc;
    if (g->n_outputs == GRAPH_INPUTS_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d graph outputs", what, GRAPH_INPUTS_MAX);
    int value = name.n > 0 ? onnx_name_find(r, name) : -1;
    if (value < 0)
        return err_set(e, ERR_INVALID, "%s is made by no node", what);
    for (int i = 0; i < g->n_outputs; i++)
        if (g->output[i] == value)
            return err_set(e, ERR_INVALID, "%s is there twice", what);
    g->declared[g->n_outputs].dtype = v.dtype;
    g->declared[g->n_outputs].shape = v.shape;
    g->output[g->n_outputs++] = value;
    return 0;
}

int onnx_read_initializer(struct reader *r, struct span message, struct err *e)
{
    struct span name = {0};
    enum dtype dtype;
    struct shape shape;
    const struct constant *c;
    int rc = onnx_read_tensor(r, message, "tensor", &name, &dtype, &shape, &c, e);
    if (rc < 0)
        return rc;
    int value = onnx_name_add(r, name, dtype, "tensor", e);
    if (value < 0)
        return value;
    r->g->value[value].constant = c;
    r->g->value[value].shape = shape;
    return 0;
}
