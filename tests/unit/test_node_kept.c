/* What a synthesiser keeps: whose memory goes first when another model comes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "model/engine.h"
#include "node/base/err.h"
#include "node/config.h"
#include "node/synthesise.h"
#include "node/synthesiser.h"
#include "tests/unit/small_graph.h"

#define MB (INT64_C(1) << 20)

static struct plan *tiny_plan(void)
{
    struct graph *g = relu_network(1);
    struct plan *plan = NULL;
    struct err e;
    const struct engine_options o = {.threads = 1};
    assert_int_equal(
        engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, &o, &plan, &e), 0);
    graph_free(g);
    return plan;
}

/* A model as compile() leaves it, said to be of so many MB. */
static struct kept model(int64_t plan_mb, int64_t work_mb)
{
    struct kept k = {.plan_bytes = plan_mb * MB, .work_bytes = work_mb * MB};
    struct err e;
    k.plan = tiny_plan();
    assert_int_equal(engine_workspace_new(k.plan, &k.workspace, &e), 0);
    return k;
}

static struct kept *keep(struct synthesiser *s, int64_t plan_mb, int64_t work_mb)
{
    struct kept new = model(plan_mb, work_mb);
    struct kept *place = kept_make_room(s, &new);
    assert_non_null(place);
    assert_null(place->plan);
    *place = new;
    place->used = ++s->uses;
    return place;
}

static struct synthesiser *empty(bool low_memory)
{
    struct config_engine engine = {
        .name = (char[]){"cpu"}, .cache = (char[]){""}, .low_memory = low_memory};
    struct synthesiser *s = NULL;
    struct err e;
    assert_int_equal(synthesiser_new(&engine, 0, &s, &e), 0);
    return s;
}

static void kept__workspaces_go_before_models(void **state)
{
    (void)state;
    struct synthesiser *s = empty(false);
    struct kept *a = keep(s, 100, 300), *b = keep(s, 100, 300);
    assert_true(a->workspace && b->workspace); /* 800 MB */
    struct kept *c = keep(s, 100, 300);        /* 1200: the one used longest ago gives its own */
    assert_true(a->plan && !a->workspace && b->workspace && c->workspace);
    struct kept *d = keep(s, 100, 600); /* 1000 with all plans and no other workspace */
    assert_true(a->plan && b->plan && c->plan && !b->workspace && !c->workspace && d->workspace);
    synthesiser_free(s);
}

static void kept__models_go_when_workspaces_are_not_enough(void **state)
{
    (void)state;
    struct synthesiser *s = empty(false);
    struct kept *a = keep(s, 400, 100), *b = keep(s, 400, 100);
    a->used = ++s->uses;
    struct kept *c = keep(s, 400, 200);
    assert_ptr_equal(c, b); /* in the place of the one used longest ago */
    assert_true(a->plan && !a->workspace);
    synthesiser_free(s);
}

static void kept__wakes_at_the_cost_of_others(void **state)
{
    (void)state;
    struct synthesiser *s = empty(false);
    struct kept *a = keep(s, 100, 300), *b = keep(s, 100, 300), *c = keep(s, 100, 300);
    struct err e;
    assert_null(a->workspace);
    a->used = ++s->uses;
    assert_int_equal(kept_wake(s, a, &e), 0);
    assert_true(a->workspace && !b->workspace && c->workspace);
    struct workspace *same = a->workspace;
    assert_int_equal(kept_wake(s, a, &e), 0);
    assert_ptr_equal(a->workspace, same);
    synthesiser_free(s);
}

static void kept__low_memory_keeps_one(void **state)
{
    (void)state;
    struct synthesiser *s = empty(true);
    struct kept *a = keep(s, 1, 1), *b = keep(s, 1, 1);
    assert_ptr_equal(a, b);
    synthesiser_free(s);
}

static void kept__at_most_so_many(void **state)
{
    (void)state;
    struct synthesiser *s = empty(false);
    for (int i = 0; i < KEPT_MODELS; i++)
        keep(s, 1, 1);
    struct kept *one_more = keep(s, 1, 1);
    for (int i = 0; i < KEPT_MODELS; i++)
        assert_true(s->kept[i].plan && s->kept[i].workspace);
    assert_int_equal(one_more->used, KEPT_MODELS + 1);
    synthesiser_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept__workspaces_go_before_models),
        cmocka_unit_test(kept__models_go_when_workspaces_are_not_enough),
        cmocka_unit_test(kept__wakes_at_the_cost_of_others),
        cmocka_unit_test(kept__low_memory_keeps_one),
        cmocka_unit_test(kept__at_most_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
