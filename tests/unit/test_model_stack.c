/* Stacks of images (engine_run_stack) by an engine that writes down what it is asked for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"
#include "node/base/err.h"
#include "tests/unit/small_graph.h"

#define PLANE 4

/* What happened: f fill, l lent, r run, R3 run_lanes() with three, t take; then the image. */
static char log_text[400];
static int lanes_now;
static int64_t fails; /* the image that cannot be filled; -1: none */

static void note(const char *what, int64_t number)
{
    size_t n = strlen(log_text);
    snprintf(log_text + n, sizeof log_text - n, "%s%lld ", what, (long long)number);
}

/* ---- the engine: adds one to each number ---- */

static int64_t batch_now;

static int estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                    struct err *e)
{
    (void)g, (void)o, (void)e;
    *cost = (struct engine_cost){0};
    return 0;
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    (void)o, (void)e;
    batch_now = g->value[g->input[0]].shape.dim[0];
    *impl = &batch_now;
    return 0;
}

static void describe(const void *impl, char *out, size_t size)
{
    (void)impl;
    snprintf(out, size, "noted");
}

static void drop(void *anything)
{
    (void)anything;
}

static int workspace_new(const void *impl, void **work, struct err *e)
{
    (void)impl, (void)e;
    *work = &batch_now;
    return 0;
}

static struct pool *threads(void *work)
{
    (void)work;
    return NULL;
}

static void add_one(const float *in, float *out)
{
    for (int i = 0; i < PLANE * batch_now; i++)
        out[i] = in[i] + 1;
}

static int run(const void *impl, void *work, const float *const *in, float *const *out,
               struct err *e)
{
    (void)impl, (void)work, (void)e;
    note("r", 1);
    add_one(in[0], out[0]);
    return 0;
}

static int lanes(const void *impl, const void *work)
{
    (void)impl, (void)work;
    return lanes_now;
}

static int run_lanes(const void *impl, void *work, int n, const float *const *const *in,
                     float *const *const *out, const struct engine_stack *stack, struct err *e)
{
    (void)impl, (void)work;
    if (stack->stop != NULL && stack->stop(stack->ctx))
        return err_set(e, ERR_CANCELLED, "stopped");
    note("R", n);
    for (int i = 0; i < n; i++)
        add_one(in[i][0], out[i][0]);
    return lanes_now == 7 ? err_set(e, ERR_DEVICE, "broken") : 0;
}

static const struct engine one_lane = {.name = "noted",
                                       .estimate = estimate,
                                       .compile = compile,
                                       .describe = describe,
                                       .plan_free = drop,
                                       .workspace_new = workspace_new,
                                       .workspace_free = drop,
                                       .threads = threads,
                                       .run = run};

/* ---- the stack ---- */

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    (void)ctx;
    note("f", image);
    for (int i = 0; i < PLANE; i++)
        in[0][i] = (float)image;
    return image == fails ? err_set(e, ERR_IO, "gone") : 0;
}

/* Every third image lies somewhere already. */
static bool lend(void *ctx, int64_t image, const float **in)
{
    float *from = (float *)ctx + PLANE * image;
    if (image % 3 != 0)
        return false;
    note("l", image);
    for (int i = 0; i < PLANE; i++)
        from[i] = (float)image;
    in[0] = from;
    return true;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    (void)ctx, (void)e;
    note("t", image);
    for (int i = 0; i < PLANE; i++)
        assert_true(out[0][i] == (float)image + 1);
    return 0;
}

/* So many lanes (0: the engine does not know them) and images, in batches; and what happens. */
static void assert_steps(int lanes_of, int64_t images, int64_t batch, bool lends, int want,
                         const char *steps)
{
    struct engine engine = one_lane;
    struct graph *g = relu_network(batch);
    struct plan *plan;
    struct workspace *work;
    struct err e = {0};
    float place[64];
    lanes_now = lanes_of;
    if (lanes_of > 0) {
        engine.lanes = lanes;
        engine.run_lanes = run_lanes;
    }
    assert_int_equal(engine_compile(&engine, g, &g->value[g->input[0]].shape, NULL, &plan, &e), 0);
    assert_int_equal(engine_workspace_new(plan, &work, &e), 0);
    const struct engine_stack stack = {
        .images = images, .fill = fill, .take = take, .ctx = place, .lend = lends ? lend : NULL};
    log_text[0] = '\0';
    assert_int_equal(engine_run_stack(plan, work, &stack, &e), want);
    assert_string_equal(log_text, steps);
    if (want == ERR_DEVICE)
        assert_non_null(strstr(e.text, "images 1 to 3 of 3"));
    engine_workspace_free(work);
    engine_plan_free(plan);
    graph_free(g);
}

static void stack__fills_every_lane_before_it_runs_and_takes_in_order(void **state)
{
    (void)state;
    fails = -1;
    assert_steps(0, 3, 1, false, 0, "f0 r1 t0 f1 r1 t1 f2 r1 t2 ");
    assert_steps(1, 2, 1, false, 0, "f0 R1 t0 f1 R1 t1 ");
    assert_steps(2, 5, 1, false, 0, "f0 f1 R2 t0 t1 f2 f3 R2 t2 t3 f4 R1 t4 ");
    assert_steps(4, 3, 1, false, 0, "f0 f1 f2 R3 t0 t1 t2 ");
    assert_steps(3, 0, 1, false, 0, "");
}

static void stack__of_batches_has_a_batch_in_each_lane(void **state)
{
    (void)state;
    fails = -1;
    assert_steps(2, 7, 2, false, 0, "f0 f1 f2 f3 R2 t0 t1 t2 t3 f4 f5 f6 R2 t4 t5 t6 ");
    assert_steps(2, 3, 3, false, 0, "f0 f1 f2 R1 t0 t1 t2 ");
}

static void stack__takes_images_where_they_are_lent_also_beside_others(void **state)
{
    (void)state;
    fails = -1;
    assert_steps(2, 5, 1, true, 0, "l0 f1 R2 t0 t1 f2 l3 R2 t2 t3 f4 R1 t4 ");
    assert_steps(2, 4, 2, true, 0, "f0 f1 f2 f3 R2 t0 t1 t2 t3 "); /* a batch is filled */
}

static void stack__ends_with_the_first_error(void **state)
{
    (void)state;
    fails = 3;
    assert_steps(2, 5, 1, false, ERR_IO, "f0 f1 R2 t0 t1 f2 f3 ");
    fails = -1;
    assert_steps(7, 3, 1, false, ERR_DEVICE, "f0 f1 f2 R3 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stack__fills_every_lane_before_it_runs_and_takes_in_order),
        cmocka_unit_test(stack__of_batches_has_a_batch_in_each_lane),
        cmocka_unit_test(stack__takes_images_where_they_are_lent_also_beside_others),
        cmocka_unit_test(stack__ends_with_the_first_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
