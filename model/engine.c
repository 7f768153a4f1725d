/*
 * engine.c - see engine.h; what all engines have in common
 *
 * Lowers the graph, keeps shapes and names, looks for NaN and infinity on both sides of a run.
 */
#include "model/engine.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "model/passes.h"

#define ENGINES_MAX              8
#define DEFAULT_ACTIVATION_BYTES ((int64_t)16 << 30)

static const struct engine *engines[ENGINES_MAX] = {&engine_ref, &engine_cpu};
static int n_engines = 2;

const struct engine *engine_find(const char *name)
{
    for (int i = 0; i < n_engines; i++)
        if (strcmp(engines[i]->name, name) == 0)
            return engines[i];
    return NULL;
}

int engine_register(const struct engine *engine, struct err *e)
{
    if (engine_find(engine->name) != NULL)
        return err_set(e, ERR_EXISTS, "engine '%s' is registered already", engine->name);
    if (n_engines == ENGINES_MAX)
        return err_set(e, ERR_LIMIT, "more than %d engines", ENGINES_MAX);
    engines[n_engines++] = engine;
    return 0;
}

bool engine_present(const struct engine *engine)
{
    return engine->present == NULL || engine->present();
}

struct plan {
    const struct engine *engine;
    void *impl;
    struct graph *graph; /* kept for engines that ask for it */
    int n_in, n_out;
    struct shape in[GRAPH_INPUTS_MAX], out[GRAPH_INPUTS_MAX];
    char *in_name[GRAPH_INPUTS_MAX], *out_name[GRAPH_INPUTS_MAX];
    char text[160];
};

struct workspace {
    const struct plan *plan;
    void *work;
};

static int lower(const struct graph *g, const struct shape *shape, const struct engine_options *o,
                 struct graph **out, struct err *e)
{
    int64_t max = o->max_activation_bytes ? o->max_activation_bytes : DEFAULT_ACTIVATION_BYTES;
    return graph_lower(g, shape, max, out, NULL, e);
}

int engine_estimate(const struct engine *engine, const struct graph *g, const struct shape *shape,
                    const struct engine_options *o, struct engine_cost *cost, struct err *e)
{
    static const struct engine_options none;
    struct graph *lowered;
    int rc = lower(g, shape, o ? o : &none, &lowered, e);
    if (rc != 0)
        return rc;
    memset(cost, 0, sizeof *cost);
    rc = engine->estimate(lowered, o ? o : &none, cost, e);
    graph_free(lowered);
    return rc;
}

static int keep_names(struct plan *p, const struct graph *g)
{
    p->n_in = g->n_inputs;
    p->n_out = g->n_outputs;
    for (int i = 0; i < p->n_in; i++) {
        p->in[i] = g->value[g->input[i]].shape;
        if ((p->in_name[i] = strdup(g->value[g->input[i]].name)) == NULL)
            return ERR_NOMEM;
    }
    for (int i = 0; i < p->n_out; i++) {
        p->out[i] = g->value[g->output[i]].shape;
        if ((p->out_name[i] = strdup(g->value[g->output[i]].name)) == NULL)
            return ERR_NOMEM;
    }
    return 0;
}

/* --- weights ---------------------------------------------------------------------------------- */

/* Elements that a thread reads at a time, and those of a model that is not worth a second thread.
 */
#define WEIGHTS_PIECE (1 << 16)
#define WEIGHTS_ALONE (1 << 22)
#define WEIGHTS_LOOKS 2 /* threads: two read as fast as memory gives */

struct weights {
    const struct graph *g;
    struct weights_piece {
        int value;
        int64_t first, n;
    } * piece;
    float *to;      /* WEIGHTS_PIECE of each thread */
    atomic_int bad; /* the first piece that cannot be used, or their number */
};

static int look_at_piece(const struct weights *w, int piece, int thread, struct err *e)
{
    const struct weights_piece *p = &w->piece[piece];
    return constant_load_f32(&w->g->value[p->value], p->first, p->n,
                             w->to + (size_t)thread * WEIGHTS_PIECE, e);
}

static void look_at_weights(void *arg, int task, int thread)
{
    struct weights *w = arg;
    int first = atomic_load(&w->bad);
    if (task > first || look_at_piece(w, task, thread, NULL) == 0)
        return;
    while (task < first && !atomic_compare_exchange_weak(&w->bad, &first, task))
        ;
}

static bool is_weight(const struct value *v)
{
    return v->constant != NULL && v->n_uses > 0 && v->dtype == DTYPE_F32;
}

/* Reads every weight once, before any of them is packed: a model whose last one is not finite is
 * refused by the time of reading it and in the memory of a few pieces. */
static int check_weights(const struct graph *g, const struct engine_options *o, struct err *e)
{
    struct weights w = {.g = g};
    struct pool *pool = NULL;
    int64_t total = 0;
    int pieces = 0, rc = 0;
    for (int i = 0; i < g->n_values; i++)
        if (is_weight(&g->value[i])) {
            int64_t n = shape_count(&g->value[i].shape);
            total += n;
            pieces += (int)((n + WEIGHTS_PIECE - 1) / WEIGHTS_PIECE);
        }
    int threads = o->threads == 1 || total < WEIGHTS_ALONE ? 1 : WEIGHTS_LOOKS;
    w.piece = malloc(((size_t)pieces + 1) * sizeof *w.piece);
    w.to = malloc((size_t)threads * WEIGHTS_PIECE * sizeof *w.to);
    if (w.piece == NULL || w.to == NULL) {
        rc = err_set(e, ERR_NOMEM, "no memory to read the weights");
        goto out;
    }
    pieces = 0;
    for (int i = 0; i < g->n_values; i++) {
        int64_t n = is_weight(&g->value[i]) ? shape_count(&g->value[i].shape) : 0;
        for (int64_t k = 0; k < n; k += WEIGHTS_PIECE)
            w.piece[pieces++] =
                (struct weights_piece){i, k, n - k < WEIGHTS_PIECE ? n - k : WEIGHTS_PIECE};
    }
    atomic_init(&w.bad, pieces);
    if (threads > 1 && (rc = pool_new(&pool, threads, false, e)) != 0)
        goto out;
    pool_run(pool, pieces, look_at_weights, &w);
    if (w.bad < pieces)
        rc = look_at_piece(&w, w.bad, 0, e); /* again, for its text */
out:
    pool_free(pool);
    free(w.piece);
    free(w.to);
    return rc;
}

int engine_compile(const struct engine *engine, const struct graph *g, const struct shape *shape,
                   const struct engine_options *o, struct plan **out, struct err *e)
{
    static const struct engine_options none;
    struct graph *lowered = NULL;
    *out = NULL;
    o = o ? o : &none;
    struct plan *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    p->engine = engine;
    int rc = lower(g, shape, o, &lowered, e);
    if (rc == 0 && (rc = keep_names(p, lowered)) != 0)
        err_set(e, rc, "no memory for a plan");
    if (rc == 0)
        rc = check_weights(lowered, o, e);
    if (rc == 0)
        rc = engine->compile(lowered, o, &p->impl, e);
    if (rc != 0)
        p->impl = NULL;
    else
        engine->describe(p->impl, p->text, sizeof p->text);
    if (engine->keeps_graph)
        p->graph = lowered;
    else
        graph_free(lowered);
    if (rc != 0) {
        engine_plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void engine_plan_free(struct plan *p)
{
    if (p == NULL)
        return;
    if (p->impl != NULL)
        p->engine->plan_free(p->impl);
    graph_free(p->graph);
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        free(p->in_name[i]);
        free(p->out_name[i]);
    }
    free(p);
}

int engine_plan_inputs(const struct plan *p)
{
    return p->n_in;
}

int engine_plan_outputs(const struct plan *p)
{
    return p->n_out;
}

const struct shape *engine_plan_input_shape(const struct plan *p, int i)
{
    return &p->in[i];
}

const struct shape *engine_plan_output_shape(const struct plan *p, int i)
{
    return &p->out[i];
}

const char *engine_plan_text(const struct plan *p)
{
    return p->text;
}

struct engine_tuned engine_plan_tuned(const struct plan *p)
{
    struct engine_tuned t = {0};
    if (p->engine->tuned != NULL)
        p->engine->tuned(p->impl, &t);
    return t;
}

void engine_plan_settle(const struct plan *p)
{
    if (p->engine->settle)
        p->engine->settle(p->impl);
}

int engine_workspace_new(const struct plan *p, struct workspace **out, struct err *e)
{
    *out = NULL;
    struct workspace *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a workspace");
    w->plan = p;
    int rc = p->engine->workspace_new(p->impl, &w->work, e);
    if (rc != 0) {
        free(w);
        return rc;
    }
    *out = w;
    return 0;
}

struct pool *engine_workspace_threads(const struct workspace *w)
{
    return w->plan->engine->threads ? w->plan->engine->threads(w->work) : NULL;
}

void engine_workspace_free(struct workspace *w)
{
    if (w == NULL)
        return;
    w->plan->engine->workspace_free(w->work);
    free(w);
}

/* Index of the first element from i on that is NaN or infinite, -1 if none is. */
static int64_t first_bad_from(const float *x, int64_t i, int64_t n)
{
    while (i < n) {
        int64_t stop = i + 4096 < n ? i + 4096 : n;
        uint32_t bad = 0;
        for (int64_t k = i; k < stop; k++) {
            uint32_t bits;
            memcpy(&bits, x + k, sizeof bits);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        for (; bad && i < stop; i++)
            if (!isfinite(x[i]))
                return i;
        i = stop;
    }
    return -1;
}

/* Parts in which a tensor is looked at; a smaller one is by the caller alone. */
#define LOOKS      4
#define LOOK_ALONE (1 << 16)

struct look {
    const float *x;
    int64_t n, bad[LOOKS];
};

static void look_at_part(void *arg, int task, int thread)
{
    (void)thread;
    struct look *l = arg;
    l->bad[task] = first_bad_from(l->x, l->n * task / LOOKS, l->n * (task + 1) / LOOKS);
}

static int64_t first_bad(const float *x, int64_t n, struct pool *pool)
{
    struct look l = {.x = x, .n = n};
    pool_run(n < LOOK_ALONE ? NULL : pool, LOOKS, look_at_part, &l);
    for (int i = 0; i < LOOKS; i++)
        if (l.bad[i] >= 0)
            return l.bad[i];
    return -1;
}

/* The first input that holds what is not finite: ERR_NUMERIC, naming it. */
static int look_at_inputs(const struct plan *p, struct pool *pool, const float *const *in,
                          struct err *e)
{
    for (int i = 0; i < p->n_in; i++) {
        int64_t at = first_bad(in[i], shape_count(&p->in[i]), pool);
        if (at >= 0)
            return err_set(e, ERR_NUMERIC, "input '%s' holds NaN or infinity at element %lld",
                           p->in_name[i], (long long)at);
    }
    return 0;
}

int engine_run(const struct plan *p, struct workspace *w, const float *const *in, float *const *out,
               struct err *e)
{
    const struct engine *engine = p->engine;
    int rc = engine->sees_bad ? 0 : look_at_inputs(p, engine_workspace_threads(w), in, e);
    if (rc != 0)
        return rc;
    rc = engine->run(p->impl, w->work, in, out, e);
    if (rc != (engine->sees_bad ? ERR_NUMERIC : 0))
        return rc;
    if (engine->sees_bad && look_at_inputs(p, engine_workspace_threads(w), in, e) != 0)
        return ERR_NUMERIC;
    for (int i = 0; i < p->n_out; i++) {
        if (first_bad(out[i], shape_count(&p->out[i]), engine_workspace_threads(w)) < 0)
            continue;
        rc = engine->diagnose != NULL ? engine->diagnose(p->impl, w->work, in, out, e) : 0;
        return rc != 0 ? rc
                       : err_set(e, ERR_NUMERIC, "output '%s' of the network holds NaN or infinity",
                                 p->out_name[i]);
    }
    return rc;
}

/* ---- stacks ---------------------------------------------------------------------------------- */

/* The stack that the engine sees: the caller's, with every number looked at. */
struct watched {
    const struct plan *plan;
    const struct engine_stack *stack;
    struct pool *pool;
    int64_t batch;
    int64_t bad; /* the image whose result is not finite; -1: none */
};

static int64_t part(const struct shape *s, int64_t batch)
{
    return shape_count(s) / batch;
}

#define IMAGE_TEXT 64

/* "image 3 of 15" */
static const char *image_text(const struct watched *w, int64_t image, char out[IMAGE_TEXT])
{
    int64_t counted = w->stack->counted > 0 ? w->stack->counted : w->stack->images;
    if (image < counted)
        snprintf(out, IMAGE_TEXT, "image %lld of %lld", (long long)image + 1, (long long)counted);
    else
        snprintf(out, IMAGE_TEXT, "extra image %lld", (long long)(image - counted) + 1);
    return out;
}

/* The first dimension that all inputs and outputs share, ERR_UNSUPPORTED if they do not. */
static int64_t common_batch(const struct plan *p, struct err *e)
{
    int64_t batch = p->n_in > 0 && p->in[0].rank > 0 ? p->in[0].dim[0] : 0;
    bool same = batch > 0;
    for (int i = 0; i < p->n_in; i++)
        same = same && p->in[i].rank > 0 && p->in[i].dim[0] == batch;
    for (int i = 0; i < p->n_out; i++)
        same = same && p->out[i].rank > 0 && p->out[i].dim[0] == batch;
    return same ? batch
                : err_set(e, ERR_UNSUPPORTED,
                          "the network's inputs and outputs do not all begin with one batch");
}

static int look_at_image(struct watched *w, int64_t image, const float *const *in, struct err *e)
{
    char text[IMAGE_TEXT];
    for (int i = 0; i < w->plan->n_in; i++) {
        int64_t at = first_bad(in[i], part(&w->plan->in[i], w->batch), w->pool);
        if (at >= 0)
            return err_set(e, ERR_NUMERIC, "%s: input '%s' holds NaN or infinity at element %lld",
                           image_text(w, image, text), w->plan->in_name[i], (long long)at);
    }
    return 0;
}

static int watched_fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    struct watched *w = ctx;
    int rc = w->stack->fill(w->stack->ctx, image, in, e);
    bool look = !w->plan->engine->sees_bad || w->bad >= 0;
    return rc == 0 && look ? look_at_image(w, image, (const float *const *)in, e) : rc;
}

static int watched_take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    struct watched *w = ctx;
    char text[IMAGE_TEXT];
    for (int i = 0; i < w->plan->n_out && !w->plan->engine->sees_bad; i++)
        if (first_bad(out[i], part(&w->plan->out[i], w->batch), w->pool) >= 0) {
            w->bad = image;
            return err_set(e, ERR_NUMERIC, "%s: output '%s' of the network holds NaN or infinity",
                           image_text(w, image, text), w->plan->out_name[i]);
        }
    return w->stack->take(w->stack->ctx, image, out, e);
}

/* Buffers for one batch of every input and output. */
struct ends {
    float *in[GRAPH_INPUTS_MAX], *out[GRAPH_INPUTS_MAX];
};

static void ends_fini(struct ends *b)
{
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        free(b->in[i]);
        free(b->out[i]);
    }
}

static int ends_make(const struct plan *p, struct ends *b, struct err *e)
{
    bool whole = true;
    *b = (struct ends){0};
    for (int i = 0; i < p->n_in; i++)
        whole &= (b->in[i] = calloc((size_t)shape_count(&p->in[i]), sizeof(float))) != NULL;
    for (int i = 0; i < p->n_out; i++)
        whole &= (b->out[i] = calloc((size_t)shape_count(&p->out[i]), sizeof(float))) != NULL;
    if (whole)
        return 0;
    ends_fini(b);
    return err_set(e, ERR_NOMEM, "no memory for a batch of images");
}

/* An image into its place in the batch. */
static int fill_image(struct watched *w, struct ends *b, int64_t image, int64_t place,
                      struct err *e)
{
    float *in[GRAPH_INPUTS_MAX];
    for (int i = 0; i < w->plan->n_in; i++)
        in[i] = b->in[i] + place * part(&w->plan->in[i], w->batch);
    return watched_fill(w, image, in, e);
}

/* A batch of the stack on its way. */
struct lane {
    struct ends ends;
    int64_t first, n; /* its images */
    const float *in[GRAPH_INPUTS_MAX];
    float *out[GRAPH_INPUTS_MAX];
};

struct lanes {
    int n;
    struct lane *lane;
    /* of each, for run_lanes() */
    const float *const **in;
    float *const **out;
};

static void lanes_fini(struct lanes *l)
{
    for (int i = 0; i < l->n; i++)
        ends_fini(&l->lane[i].ends);
    free(l->lane);
    free(l->in);
    free(l->out);
}

/* At most as many as the stack has batches; fewer where memory is short. */
static int lanes_make(const struct watched *w, const void *work, struct lanes *l, struct err *e)
{
    const struct plan *p = w->plan;
    int64_t batches = (w->stack->images + w->batch - 1) / w->batch;
    int most = p->engine->lanes != NULL ? p->engine->lanes(p->impl, work) : 1, rc = 0;
    size_t n = (size_t)(batches < most ? batches : most);
    *l = (struct lanes){.lane = calloc(n + 1, sizeof *l->lane),
                        .in = calloc(n + 1, sizeof *l->in),
                        .out = calloc(n + 1, sizeof *l->out)};
    if (l->lane == NULL || l->in == NULL || l->out == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for a batch of images");
    for (; rc == 0 && l->n < (int)n; l->n += rc == 0) {
        struct lane *lane = &l->lane[l->n];
        rc = ends_make(p, &lane->ends, e);
        memcpy(lane->out, lane->ends.out, sizeof lane->out);
        l->in[l->n] = lane->in;
        l->out[l->n] = lane->out;
    }
    if (rc != 0 && l->n > 0)
        return 0;
    if (rc != 0)
        lanes_fini(l);
    return rc;
}

/* The inputs of a lane: where the caller lends them, or filled into its own. */
static int lane_inputs(struct watched *w, struct lane *l, struct err *e)
{
    const struct engine_stack *s = w->stack;
    if (w->batch == 1 && s->lend != NULL && s->lend(s->ctx, l->first, l->in))
        return look_at_image(w, l->first, l->in, e);
    int rc = 0;
    for (int i = 0; i < w->plan->n_in; i++)
        l->in[i] = l->ends.in[i];
    for (int64_t k = 0; rc == 0 && k < l->n; k++)
        rc = fill_image(w, &l->ends, l->first + k, k, e);
    return rc;
}

static int lane_outputs(struct watched *w, struct lane *l, struct err *e)
{
    int rc = 0;
    for (int64_t k = 0; rc == 0 && k < l->n; k++) {
        const float *out[GRAPH_INPUTS_MAX];
        for (int i = 0; i < w->plan->n_out; i++)
            out[i] = l->out[i] + k * part(&w->plan->out[i], w->batch);
        rc = watched_take(w, l->first + k, out, e);
    }
    return rc;
}

/* The batches in the first n lanes. */
static int run_some(struct watched *w, void *work, struct lanes *l, int n, struct err *e)
{
    const struct plan *p = w->plan;
    int rc = p->engine->run_lanes == NULL
                 ? p->engine->run(p->impl, work, l->in[0], l->out[0], e)
                 : p->engine->run_lanes(p->impl, work, n, l->in, l->out, w->stack, e);
    if (rc == 0)
        return 0;
    char text[IMAGE_TEXT];
    int64_t first = l->lane[0].first, end = l->lane[n - 1].first + l->lane[n - 1].n;
    if (end - first == 1)
        return err_context(e, "%s", image_text(w, first, text));
    return err_context(e, "images %lld to %lld of %lld", (long long)first + 1, (long long)end,
                       (long long)w->stack->images);
}

static int run_batches(struct watched *w, void *work, struct err *e)
{
    struct lanes l;
    int rc = lanes_make(w, work, &l, e);
    if (rc != 0)
        return rc;
    for (int64_t next = 0; rc == 0 && next < w->stack->images;) {
        int n = 0;
        for (; rc == 0 && n < l.n && next < w->stack->images; n++) {
            int64_t left = w->stack->images - next;
            l.lane[n].first = next;
            l.lane[n].n = left < w->batch ? left : w->batch;
            next += l.lane[n].n;
            rc = lane_inputs(w, &l.lane[n], e);
        }
        if (rc == 0)
            rc = run_some(w, work, &l, n, e);
        for (int i = 0; rc == 0 && i < n; i++)
            rc = lane_outputs(w, &l.lane[i], e);
    }
    lanes_fini(&l);
    return rc;
}

/* Names the input, or the layer that made the bad image, running it again in every place of a
 * batch. */
static void find_layer(struct watched *w, void *work, struct err *e)
{
    const struct plan *p = w->plan;
    struct err found = {0};
    char text[IMAGE_TEXT];
    struct ends b;
    if (ends_make(p, &b, NULL) != 0)
        return;
    int rc = 0;
    for (int64_t k = 0; rc == 0 && k < w->batch; k++)
        rc = fill_image(w, &b, w->bad, k, &found);
    if (rc == ERR_NUMERIC)
        err_set(e, ERR_NUMERIC, "%s", found.text);
    if (rc == 0 && p->engine->diagnose != NULL) {
        rc = p->engine->run(p->impl, work, (const float *const *)b.in, b.out, NULL);
        if ((rc == 0 || (rc == ERR_NUMERIC && p->engine->sees_bad)) &&
            p->engine->diagnose(p->impl, work, (const float *const *)b.in, b.out, &found) ==
                ERR_NUMERIC)
            err_set(e, ERR_NUMERIC, "%s: %s", image_text(w, w->bad, text), found.text);
    }
    ends_fini(&b);
}

int engine_run_stack(const struct plan *p, struct workspace *w, const struct engine_stack *stack,
                     struct err *e)
{
    int64_t batch = common_batch(p, e);
    if (batch < 0)
        return (int)batch;
    struct watched watched = {
        .plan = p, .stack = stack, .pool = engine_workspace_threads(w), .batch = batch, .bad = -1};
    struct engine_stack seen = {.images = stack->images,
                                .fill = watched_fill,
                                .take = watched_take,
                                .ctx = &watched,
                                .counted = stack->counted};
    char text[IMAGE_TEXT];
    int rc = p->engine->run_stack != NULL
                 ? p->engine->run_stack(p->impl, w->work, &seen, batch, &watched.bad, e)
                 : run_batches(&watched, w->work, e);
    if (rc == ERR_NUMERIC && watched.bad >= 0) {
        err_set(e, rc, "%s: the result of the network holds NaN or infinity",
                image_text(&watched, watched.bad, text));
        find_layer(&watched, w->work, e);
    }
    return rc;
}

int engine_compile_batch(const struct engine *engine, const struct graph *g,
                         const struct shape *shape, int batch, const struct engine_options *o,
                         struct plan **out, struct workspace **work, struct err *e)
{
    struct shape wanted[GRAPH_INPUTS_MAX] = {{0}};
    int rc;
    *work = NULL;
    for (;; batch /= 2) {
        for (int i = 0; i < g->n_inputs && i < GRAPH_INPUTS_MAX; i++) {
            wanted[i] = shape[i];
            wanted[i].dim[0] = batch;
        }
        rc = engine_compile(engine, g, wanted, o, out, e);
        if (rc == 0)
            rc = engine_workspace_new(*out, work, e);
        if (rc == 0)
            return batch;
        engine_plan_free(*out);
        *out = NULL;
        if ((rc != ERR_NOMEM && rc != ERR_LIMIT) || batch <= 1)
            break;
    }
    return rc == ERR_NOMEM
               ? err_context(e, "a single image does not fit into the memory of engine %s",
                             engine->name)
               : rc;
}
