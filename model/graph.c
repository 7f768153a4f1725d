/* graph.c - see graph.h; constants are in constant.c */
#include "model/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"

/* --- memory that lives as long as its graph --------------------------------------------------- */

#define ARENA_CHUNK 65536
#define ARENA_MAX   ((size_t)4 << 30)

struct chunk {
    struct chunk *next;
    size_t used, cap;
    _Alignas(16) unsigned char bytes[];
};
struct arena {
    struct chunk *first;
    size_t total;
};

void *graph_alloc(struct graph *g, size_t bytes)
{
    struct arena *a = g->arena;
    if (bytes > ARENA_MAX - 16)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes == 0)
        bytes = 16;
    if (a->first == NULL || a->first->cap - a->first->used < bytes) {
        size_t cap = bytes > ARENA_CHUNK ? bytes : ARENA_CHUNK;
        if (a->total > ARENA_MAX - cap)
            return NULL;
        struct chunk *c = calloc(1, sizeof *c + cap);
        if (c == NULL)
            return NULL;
        c->cap = cap;
        a->total += cap;
        /* A chunk made for one large piece is full at once: keep filling the one before it. */
        if (a->first != NULL && bytes > ARENA_CHUNK) {
            c->next = a->first->next;
            a->first->next = c;
            c->used = bytes;
            return c->bytes;
        }
        c->next = a->first;
        a->first = c;
    }
    void *p = a->first->bytes + a->first->used;
    a->first->used += bytes;
    return p;
}

char *graph_strdup(struct graph *g, const char *text, size_t n)
{
    char *copy = graph_alloc(g, n + 1);
    if (copy != NULL) {
        if (n > 0) /* text may then be NULL */
            memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

struct graph *graph_new(void)
{
    struct graph *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->arena = calloc(1, sizeof *g->arena);
    if (g->arena == NULL) {
        free(g);
        return NULL;
    }
    return g;
}

void graph_free(struct graph *g)
{
    if (g == NULL)
        return;
    source_drop(g->source);
    while (g->arena->first != NULL) {
        struct chunk *c = g->arena->first;
        g->arena->first = c->next;
        free(c);
    }
    free(g->arena);
    free(g->value);
    free(g->node);
    free(g);
}

/* --- shapes ----------------------------------------------------------------------------------- */

int64_t pool_taps(const struct pool_attr *a, int axis, int64_t at, int64_t limit)
{
    int64_t room = limit - (at * a->stride[axis] - a->pad_begin[axis]);
    int64_t taps = room <= 0 ? 0 : (room + a->dilation[axis] - 1) / a->dilation[axis];
    return taps < a->kernel[axis] ? taps : a->kernel[axis];
}

bool dtype_is_integer(enum dtype t)
{
    return t != DTYPE_F32;
}

int64_t shape_count(const struct shape *s)
{
    if (s->rank < 0)
        return -1;
    int64_t n = 1;
    bool empty = false;
    for (int i = 0; i < s->rank; i++) {
        int64_t dim = s->dim[i];
        if (dim < 0)
            return -1;
        /* also of a shape that holds nothing every product of dimensions stays a number */
        empty = empty || dim == 0;
        if (__builtin_mul_overflow(n, dim == 0 ? 1 : dim, &n) || n > INT64_MAX / 8)
            return -1;
    }
    return empty ? 0 : n;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

char *shape_text(const struct shape *s, char *out, size_t size)
{
    if (s->rank < 0)
        snprintf(out, size, "?");
    else if (s->rank == 0)
        snprintf(out, size, "scalar");
    size_t used = 0;
    for (int i = 0; i < s->rank && used < size; i++) {
        int n = s->dim[i] < 0 ? snprintf(out + used, size - used, "%s?", i ? "x" : "")
                              : snprintf(out + used, size - used, "%s%lld", i ? "x" : "",
                                         (long long)s->dim[i]);
        if (n < 0)
            break;
        used += (size_t)n;
    }
    return out;
}

/* --- values and nodes ------------------------------------------------------------------------- */

static const char *const names[OP_COUNT] = {
    [OP_CONV] = "Conv",
    [OP_CONV_TRANSPOSE] = "ConvTranspose",
    [OP_AFFINE] = "Affine",
    [OP_INSTANCE_NORM] = "InstanceNormalization",
    [OP_ACT] = "Activation",
    [OP_PRELU] = "PRelu",
    [OP_ABS] = "Abs",
    [OP_SQRT] = "Sqrt",
    [OP_NEG] = "Neg",
    [OP_EXP] = "Exp",
    [OP_ADD] = "Add",
    [OP_SUB] = "Sub",
    [OP_MUL] = "Mul",
    [OP_DIV] = "Div",
    [OP_POW] = "Pow",
    [OP_MAX] = "Max",
    [OP_MIN] = "Min",
    [OP_CONCAT] = "Concat",
    [OP_SPLIT] = "Split",
    [OP_SLICE] = "Slice",
    [OP_PAD] = "Pad",
    [OP_RESIZE] = "Resize",
    [OP_DEPTH_TO_SPACE] = "DepthToSpace",
    [OP_RESHAPE] = "Reshape",
    [OP_TRANSPOSE] = "Transpose",
    [OP_GATHER] = "Gather",
    [OP_REDUCE_MEAN] = "ReduceMean",
    [OP_REDUCE_SUM] = "ReduceSum",
    [OP_REDUCE_SUM_SQUARE] = "ReduceSumSquare",
    [OP_REDUCE_PROD] = "ReduceProd",
    [OP_AVERAGE_POOL] = "AveragePool",
    [OP_MAX_POOL] = "MaxPool",
    [OP_BATCH_NORM] = "BatchNormalization",
    [OP_CLIP] = "Clip",
    [OP_GLOBAL_AVERAGE_POOL] = "GlobalAveragePool",
    [OP_UPSAMPLE] = "Upsample",
    [OP_FLATTEN] = "Flatten",
    [OP_SQUEEZE] = "Squeeze",
    [OP_UNSQUEEZE] = "Unsqueeze",
    [OP_IDENTITY] = "Identity",
    [OP_DROPOUT] = "Dropout",
    [OP_CAST] = "Cast",
    [OP_CONSTANT] = "Constant",
    [OP_CONSTANT_OF_SHAPE] = "ConstantOfShape",
    [OP_SHAPE] = "Shape",
    [OP_SIZE] = "Size",
    [OP_EXPAND] = "Expand",
    [OP_TILE] = "Tile",
    [OP_RANGE] = "Range",
    [OP_EQUAL] = "Equal",
    [OP_GREATER] = "Greater",
    [OP_LESS] = "Less",
    [OP_NOT] = "Not",
    [OP_WHERE] = "Where",
    [OP_FLOOR] = "Floor",
    [OP_CEIL] = "Ceil",
    [OP_RECIPROCAL] = "Reciprocal",
};

const char *op_name(enum op op)
{
    return (unsigned)op < OP_COUNT && names[op] != NULL ? names[op] : "?";
}

/* Makes room for one more of an array that doubles. */
static int grow(void **array, int n, int *cap, size_t size)
{
    if (n < *cap)
        return 0;
    int wanted = *cap ? *cap * 2 : 64;
    if (*cap > INT32_MAX / 4)
        return ERR_NOMEM;
    void *larger = realloc(*array, (size_t)wanted * size);
    if (larger == NULL)
        return ERR_NOMEM;
    *array = larger;
    *cap = wanted;
    return 0;
}

int graph_add_value(struct graph *g, const char *name, enum dtype t)
{
    if (grow((void **)&g->value, g->n_values, &g->cap_values, sizeof *g->value) != 0)
        return ERR_NOMEM;
    struct value *v = &g->value[g->n_values];
    memset(v, 0, sizeof *v);
    v->name = name;
    v->dtype = t;
    v->shape.rank = -1;
    v->producer = -1;
    return g->n_values++;
}

struct node *graph_add_node(struct graph *g, enum op op, const char *name, int n_in, int n_out)
{
    if (grow((void **)&g->node, g->n_nodes, &g->cap_nodes, sizeof *g->node) != 0)
        return NULL;
    int *edges = graph_alloc(g, (size_t)(n_in + n_out + 1) * sizeof *edges);
    if (edges == NULL)
        return NULL;
    struct node *n = &g->node[g->n_nodes++];
    memset(n, 0, sizeof *n);
    n->op = op;
    n->name = name;
    n->n_in = n_in;
    n->n_out = n_out;
    n->in = edges;
    n->out = edges + n_in;
    for (int i = 0; i < n_in + n_out; i++)
        edges[i] = -1;
    n->opset = g->opset;
    return n;
}

void graph_index(struct graph *g)
{
    for (int i = 0; i < g->n_values; i++) {
        g->value[i].n_uses = 0;
        g->value[i].producer = -1;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        for (int j = 0; j < n->n_in; j++)
            if (n->in[j] >= 0)
                g->value[n->in[j]].n_uses++;
        for (int j = 0; j < n->n_out; j++)
            if (n->out[j] >= 0)
                g->value[n->out[j]].producer = i;
    }
    for (int i = 0; i < g->n_outputs; i++)
        g->value[g->output[i]].n_uses++;
}

const char *graph_metadata(const struct graph *g, const char *key)
{
    for (int i = 0; i < g->n_metadata; i++)
        if (strcmp(g->metadata[i].key, key) == 0)
            return g->metadata[i].text;
    return NULL;
}

/* --- figures ---------------------------------------------------------------------------------- */

static int64_t node_macs(const struct graph *g, const struct node *n)
{
    if (n->op != OP_CONV && n->op != OP_CONV_TRANSPOSE)
        return 0;
    const struct shape *x = &g->value[n->in[0]].shape, *w = &g->value[n->in[1]].shape,
                       *y = &g->value[n->out[0]].shape;
    int64_t taps = shape_count(w);
    if (n->op == OP_CONV) /* each weight meets every output position */
        return taps * y->dim[0] * y->dim[2] * y->dim[3];
    return taps * x->dim[0] * x->dim[2] * x->dim[3];
}

int64_t graph_macs(const struct graph *g)
{
    int64_t sum = 0;
    for (int i = 0; i < g->n_nodes; i++)
        sum += node_macs(g, &g->node[i]);
    return sum;
}

int64_t graph_parameters(const struct graph *g)
{
    int64_t sum = 0;
    for (int i = 0; i < g->n_values; i++) {
        const struct value *v = &g->value[i];
        if (v->constant != NULL && v->n_uses > 0 && v->dtype == DTYPE_F32)
            sum += v->constant->count;
    }
    return sum;
}

int64_t graph_activation_bytes(const struct graph *g)
{
    int64_t sum = 0;
    for (int i = 0; i < g->n_values; i++) {
        const struct value *v = &g->value[i];
        if (v->producer >= 0 && v->dtype == DTYPE_F32)
            sum += shape_count(&v->shape) * (int64_t)sizeof(float);
    }
    return sum;
}
