/*
 * passes_patterns.c - operators that a file spells out with simpler ones
 *
 *   leaky ReLU   a·x + b·|x| with a + b = 1 (pix2pix in TensorFlow), max(x, a·x), relu(x) −
 * a·relu(−x), PRelu with one slope; max(x, c) and min(x, c) pixel shuffle   Reshape, Transpose,
 * Reshape instance norm   (x − mean)/sqrt(var + e), x·k + (b − mean·k) and their variants with
 * reductions over rows and columns. Batch norm with batch statistics is the same with the batch
 * among the reduced axes; it becomes an instance norm too, so that patients of one batch never mix.
 */
#include <math.h>
#include <stdlib.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/passes.h"
#include "model/passes_util.h"

#define CLOSE(a, b) (fabs((a) - (b)) <= 2e-6)

/* value = x·c for a scalar constant c (also x/c and −x). */
static bool times_scalar(struct graph *g, int value, int *x, double *c)
{
    const struct node *n = pass_producer(g, value, OP_MUL);
    if (n != NULL && (pass_scalar(g, n->in[1], c) || pass_scalar(g, n->in[0], c))) {
        *x = g->value[n->in[0]].constant != NULL ? n->in[1] : n->in[0];
        return g->value[*x].constant == NULL;
    }
    n = pass_producer(g, value, OP_DIV);
    if (n != NULL && pass_scalar(g, n->in[1], c) && *c != 0) {
        *c = 1 / *c;
        *x = n->in[0];
        return true;
    }
    n = pass_producer(g, value, OP_NEG);
    if (n != NULL) {
        *c = -1;
        *x = n->in[0];
        return true;
    }
    return false;
}

static bool is_relu_of(struct graph *g, int value, int *x)
{
    const struct node *n = pass_producer(g, value, OP_ACT);
    if (n == NULL || n->act.kind != ACT_RELU)
        return false;
    *x = n->in[0];
    return true;
}

static bool become_act(struct graph *g, struct node *n, int x, struct act act)
{
    if (!shape_equal(&g->value[x].shape, &g->value[n->out[0]].shape))
        return false;
    n->op = OP_ACT;
    n->act = act;
    n->in[0] = x;
    n->n_in = 1;
    return true;
}

/* --- leaky ReLU ------------------------------------------------------------------------------- */

static bool leaky_by_abs(struct graph *g, struct node *n)
{
    for (int side = 0; side < 2; side++) {
        int x = n->in[side], y = n->in[1 - side];
        double a = 1, b = 1;
        times_scalar(g, n->in[side], &x, &a);
        times_scalar(g, n->in[1 - side], &y, &b);
        const struct node *abs = pass_producer(g, y, OP_ABS);
        if (abs != NULL && abs->in[0] == x && CLOSE(a + b, 1))
            return become_act(g, n, x,
                              (struct act){.kind = ACT_LEAKY_RELU, .alpha = (float)(a - b)});
    }
    return false;
}

/* max(x, a·x) is leaky for 0 <= a <= 1; max(x, c) and min(x, c) clip. */
static bool leaky_by_max(struct graph *g, struct node *n)
{
    for (int side = 0; side < 2; side++) {
        int x = -1;
        double a;
        if (n->op == OP_MAX && times_scalar(g, n->in[1 - side], &x, &a) && x == n->in[side] &&
            a >= 0 && a <= 1)
            return become_act(g, n, x, (struct act){.kind = ACT_LEAKY_RELU, .alpha = (float)a});
        if (g->value[n->in[side]].constant != NULL || !pass_scalar(g, n->in[1 - side], &a))
            continue;
        struct act act = {.kind = ACT_CLIP, .lo = -INFINITY, .hi = INFINITY};
        if (n->op == OP_MAX && a == 0)
            act.kind = ACT_RELU;
        else
            *(n->op == OP_MAX ? &act.lo : &act.hi) = (float)a;
        return become_act(g, n, n->in[side], act);
    }
    return false;
}

static bool leaky_by_difference(struct graph *g, struct node *n)
{
    int x, negative, y, z;
    double a, minus;
    return is_relu_of(g, n->in[0], &x) && times_scalar(g, n->in[1], &negative, &a) &&
           is_relu_of(g, negative, &y) && times_scalar(g, y, &z, &minus) && z == x && minus == -1 &&
           become_act(g, n, x, (struct act){.kind = ACT_LEAKY_RELU, .alpha = (float)a});
}

static bool leaky_by_prelu(struct graph *g, struct node *n)
{
    double slope;
    return pass_all_equal(g, n->in[1], &slope) &&
           become_act(g, n, n->in[0], (struct act){.kind = ACT_LEAKY_RELU, .alpha = (float)slope});
}

/* --- pixel shuffle ---------------------------------------------------------------------------- */

/* [N,C·b·b,H,W] → [N,C,b,b,H,W] → 0,1,4,2,5,3 → [N,C,H·b,W·b]; the other order has b,b,C and
 * 0,3,4,1,5,2. */
static bool pixel_shuffle(struct graph *g, struct node *n)
{
    static const int crd[6] = {0, 1, 4, 2, 5, 3}, dcr[6] = {0, 3, 4, 1, 5, 2};
    const struct node *t = pass_producer(g, n->in[0], OP_TRANSPOSE);
    const struct node *first = t ? pass_producer(g, t->in[0], OP_RESHAPE) : NULL;
    if (first == NULL)
        return false;
    const struct shape *x = &g->value[first->in[0]].shape, *m = &g->value[t->in[0]].shape,
                       *y = &g->value[n->out[0]].shape;
    if (x->rank != 4 || m->rank != 6 || y->rank != 4)
        return false;
    bool is_crd = true, is_dcr = true;
    for (int i = 0; i < 6; i++) {
        is_crd = is_crd && t->transpose.perm[i] == crd[i];
        is_dcr = is_dcr && t->transpose.perm[i] == dcr[i];
    }
    int64_t b = m->dim[2], C = is_crd ? m->dim[1] : m->dim[3];
    bool blocks = is_crd ? m->dim[3] == b : m->dim[1] == b;
    if ((!is_crd && !is_dcr) || !blocks || m->dim[0] != x->dim[0] || m->dim[4] != x->dim[2] ||
        m->dim[5] != x->dim[3] || y->dim[0] != x->dim[0] || y->dim[1] != C ||
        y->dim[2] != x->dim[2] * b || y->dim[3] != x->dim[3] * b)
        return false;
    n->op = OP_DEPTH_TO_SPACE;
    n->in[0] = first->in[0];
    n->depth = (struct depth_attr){.block = b, .crd = is_crd};
    return true;
}

/* --- instance norm ---------------------------------------------------------------------------- */

/* What was seen of x·gamma/sqrt(factor·var + epsilon). */
struct norm {
    int x;
    bool batch; /* statistics over the batch too */
    double factor, epsilon;
    int gamma; /* a constant per channel, or -1 */
};

/* Does a reduction keep dimensions and take all but channels, and perhaps the batch? */
static bool over_pixels(struct graph *g, const struct node *n, bool *batch)
{
    int rank = g->value[n->in[0]].shape.rank, skip;
    if (rank < 3 || g->value[n->out[0]].shape.rank != rank)
        return false;
    *batch = n->reduce.axis[0] == 0;
    skip = *batch ? 1 : 0;
    if (n->reduce.n != rank - 2 + skip)
        return false;
    for (int i = skip; i < n->reduce.n; i++)
        if (n->reduce.axis[i] != 2 + i - skip)
            return false;
    return true;
}

static bool is_mean_of(struct graph *g, int value, int x, bool *batch)
{
    const struct node *n = pass_producer(g, value, OP_REDUCE_MEAN);
    return n != NULL && n->in[0] == x && over_pixels(g, n, batch);
}

/* x − mean(x) */
static bool is_centred(struct graph *g, int value, int *x, bool *batch)
{
    const struct node *n = pass_producer(g, value, OP_SUB);
    if (n == NULL || !is_mean_of(g, n->in[1], n->in[0], batch))
        return false;
    *x = n->in[0];
    return true;
}

/* value = d·d or d² */
static bool is_square(struct graph *g, int value, int *d)
{
    const struct node *n = pass_producer(g, value, OP_MUL);
    double two;
    if (n != NULL && n->in[0] == n->in[1]) {
        *d = n->in[0];
        return true;
    }
    n = pass_producer(g, value, OP_POW);
    if (n == NULL || !pass_scalar(g, n->in[1], &two) || two != 2)
        return false;
    *d = n->in[0];
    return true;
}

/* factor · variance of x, by one of the reductions, or E[x²] − E[x]². */
static bool is_variance(struct graph *g, int value, struct norm *m)
{
    double c;
    bool batch, again;
    int x, d;
    m->factor = 1;
    for (int i = 0; i < 4 && times_scalar(g, value, &x, &c); i++) {
        m->factor *= c;
        value = x;
    }
    if (!(m->factor > 0) || g->value[value].producer < 0)
        return false;
    const struct node *n = &g->node[g->value[value].producer];
    if (n->op == OP_SUB) {
        const struct node *squares = pass_producer(g, n->in[0], OP_REDUCE_MEAN);
        return squares != NULL && over_pixels(g, squares, &batch) && batch == m->batch &&
               is_square(g, squares->in[0], &x) && x == m->x && is_square(g, n->in[1], &d) &&
               is_mean_of(g, d, m->x, &again) && again == m->batch;
    }
    if ((n->op != OP_REDUCE_MEAN && n->op != OP_REDUCE_SUM && n->op != OP_REDUCE_SUM_SQUARE) ||
        !over_pixels(g, n, &batch) || batch != m->batch)
        return false;
    if (n->op != OP_REDUCE_MEAN) {
        const struct shape *from = &g->value[n->in[0]].shape, *to = &g->value[n->out[0]].shape;
        m->factor *= (double)shape_count(from) / (double)shape_count(to);
    }
    d = n->in[0];
    if (n->op != OP_REDUCE_SUM_SQUARE && !is_square(g, n->in[0], &d))
        return false;
    return is_centred(g, d, &x, &again) && x == m->x && again == m->batch;
}

/* factor·var + epsilon */
static bool is_variance_plus(struct graph *g, int value, struct norm *m)
{
    const struct node *n = pass_producer(g, value, OP_ADD);
    for (int side = 0; n != NULL && side < 2; side++)
        if (pass_scalar(g, n->in[1 - side], &m->epsilon) && m->epsilon >= 0)
            return is_variance(g, n->in[side], m);
    return false;
}

/* sqrt(factor·var + epsilon) */
static bool is_deviation(struct graph *g, int value, struct norm *m)
{
    const struct node *n = pass_producer(g, value, OP_SQRT);
    double half;
    if (n != NULL)
        return is_variance_plus(g, n->in[0], m);
    n = pass_producer(g, value, OP_POW);
    return n != NULL && pass_scalar(g, n->in[1], &half) && half == 0.5 &&
           is_variance_plus(g, n->in[0], m);
}

/* 1/deviation, perhaps times a constant per channel */
static bool is_inverse(struct graph *g, int value, struct norm *m, bool may_scale)
{
    double c;
    const struct node *n = pass_producer(g, value, OP_DIV);
    if (n != NULL && pass_scalar(g, n->in[0], &c) && c == 1)
        return is_deviation(g, n->in[1], m);
    n = pass_producer(g, value, OP_POW);
    if (n != NULL)
        return pass_scalar(g, n->in[1], &c) && c == -0.5 && is_variance_plus(g, n->in[0], m);
    n = pass_producer(g, value, OP_MUL);
    for (int side = 0; n != NULL && may_scale && side < 2; side++)
        if (g->value[n->in[side]].constant != NULL) {
            m->gamma = n->in[side];
            return is_inverse(g, n->in[1 - side], m, false);
        }
    return false;
}

/* gamma and beta: constants per channel of x, or -1 for one and zero. 1: done, 0: not a channel's.
 */
static int become_norm(struct graph *g, struct node *n, const struct norm *m, int beta,
                       struct err *e)
{
    struct shape x = g->value[m->x].shape;
    int64_t C = x.dim[1];
    if (!shape_equal(&x, &g->value[n->out[0]].shape) || !isfinite(m->factor))
        return 0;
    double *scale = malloc((size_t)C * sizeof *scale), *shift = calloc((size_t)C, sizeof *shift);
    int rc = scale && shift ? 1 : pass_no_memory(e);
    for (int64_t c = 0; rc > 0 && c < C; c++)
        scale[c] = 1;
    if (rc > 0 && m->gamma >= 0)
        rc = pass_channels(g, m->gamma, &x, scale, e);
    if (rc > 0 && beta >= 0)
        rc = pass_channels(g, beta, &x, shift, e);
    for (int64_t c = 0; rc > 0 && c < C; c++)
        scale[c] /= sqrt(m->factor);
    int s = rc > 0 ? pass_new_channels(g, n->name, scale, C, e) : -1;
    int t = s >= 0 ? pass_new_channels(g, n->name, shift, C, e) : -1;
    int *in = t >= 0 ? graph_alloc(g, 3 * sizeof *in) : NULL;
    free(scale);
    free(shift);
    if (rc <= 0)
        return rc;
    if (in == NULL)
        return pass_no_memory(e);
    in[0] = m->x;
    in[1] = s;
    in[2] = t;
    n->op = OP_INSTANCE_NORM;
    n->in = in;
    n->n_in = 3;
    n->norm = (struct norm_attr){.epsilon = m->epsilon / m->factor};
    return 1;
}

/* (x − mean)/deviation, (x − mean)·inverse */
static int norm_by_quotient(struct graph *g, struct node *n, struct err *e)
{
    for (int side = 0; side < (n->op == OP_MUL ? 2 : 1); side++) {
        struct norm m = {.gamma = -1};
        if (!is_centred(g, n->in[side], &m.x, &m.batch))
            continue;
        bool matches = n->op == OP_DIV ? is_deviation(g, n->in[1], &m)
                                       : is_inverse(g, n->in[1 - side], &m, true);
        if (matches)
            return become_norm(g, n, &m, -1, e);
    }
    return 0;
}

/* x·k + (beta − mean·k), and x·k − mean·k with beta added by another node */
static int norm_by_sum(struct graph *g, struct node *n, struct err *e)
{
    for (int side = 0; side < 2; side++) {
        const struct node *product = pass_producer(g, n->in[side], OP_MUL);
        const struct node *rest = pass_producer(g, n->in[1 - side], OP_SUB);
        const struct node *mean = rest ? pass_producer(g, rest->in[1], OP_MUL) : NULL;
        if (product == NULL || mean == NULL || g->value[rest->in[0]].constant == NULL)
            continue;
        for (int a = 0; a < 4; a++) { /* which factor is x, and which is the mean */
            struct norm m = {.x = product->in[a & 1], .gamma = -1};
            int k = product->in[1 - (a & 1)];
            if (mean->in[1 - (a >> 1)] != k || !is_mean_of(g, mean->in[a >> 1], m.x, &m.batch) ||
                !is_inverse(g, k, &m, true))
                continue;
            return become_norm(g, n, &m, rest->in[0], e);
        }
    }
    return 0;
}

/* --- the pass --------------------------------------------------------------------------------- */

static int match(struct graph *g, struct node *n, struct err *e)
{
    switch (n->op) {
    case OP_ADD:
        return leaky_by_abs(g, n) ? 1 : norm_by_sum(g, n, e);
    case OP_SUB:
        return leaky_by_difference(g, n);
    case OP_MAX:
    case OP_MIN:
        return leaky_by_max(g, n);
    case OP_PRELU:
        return leaky_by_prelu(g, n);
    case OP_RESHAPE:
        return pixel_shuffle(g, n);
    case OP_MUL:
    case OP_DIV:
        return norm_by_quotient(g, n, e);
    default:
        return 0;
    }
}

int pass_patterns(struct graph *g, struct err *e)
{
    int changes = 0;
    graph_index(g);
    for (int i = 0; i < g->n_nodes; i++) {
        int rc = match(g, &g->node[i], e);
        if (rc < 0)
            return rc;
        changes += rc;
    }
    int rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}
