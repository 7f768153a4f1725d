/* The thread pool, and the kernels that convolutions do not use, against plain loops. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/cpu_kernels.h"
#include "node/base/err.h"
#include "node/base/pool.h"

static uint32_t seed = 5;
static float noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}

/* --- pool --- */

static void count_task(void *arg, int task, int thread)
{
    atomic_int *seen = arg;
    assert_true(thread >= 0 && thread < 4);
    atomic_fetch_add(&seen[task], 1);
}

static void pool__runs_every_task_once(void **state)
{
    (void)state;
    struct pool *p;
    struct err e;
    static atomic_int seen[1000];
    assert_int_equal(pool_new(&p, 4, true, &e), 0);
    for (int round = 1; round <= 300; round++) {
        int tasks = round % 7 == 0 ? 1000 : round % 5;
        memset(seen, 0, sizeof seen);
        pool_run(p, tasks, count_task, seen);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(atomic_load(&seen[i]), i < tasks);
    }
    pool_free(p);
    pool_free(NULL);
    assert_int_equal(pool_new(&p, 0, false, &e), ERR_LIMIT);
}

/* --- kernels --- */

static atomic_int wide_workers, seen_workers;

static void look_at_affinity(void *arg, int task, int thread)
{
    (void)task;
    cpu_set_t set;
    if (thread > 0 && sched_getaffinity(0, sizeof set, &set) == 0) {
        atomic_fetch_add(&seen_workers, 1);
        atomic_fetch_add(&wide_workers, CPU_COUNT(&set) != 1);
    } else if (thread == 0) {
        /* the caller leaves tasks to the workers */
        for (int i = 0; i < 2000 && atomic_load(&seen_workers) == 0; i++)
            nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    (void)arg;
}

static void pool__binds_its_workers_to_a_cpu_each_if_asked(void **state)
{
    (void)state;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int pin = 1; pin >= 0; pin--) {
        struct pool *p;
        assert_int_equal(pool_new(&p, 3, pin, NULL), 0);
        atomic_store(&seen_workers, 0);
        atomic_store(&wide_workers, 0);
        pool_run(p, 60, look_at_affinity, NULL);
        pool_free(p);
        assert_true(atomic_load(&seen_workers) > 0);
        if (pin)
            assert_int_equal(atomic_load(&wide_workers), 0);
        else if (CPU_COUNT(&before) > 1)
            assert_true(atomic_load(&wide_workers) > 0);
    }
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after)); /* the caller's own thread is left alone */
}

static void kernels__follow_the_mathematics_to_the_ends_of_the_range(void **state)
{
    (void)state;
    static const char *isas[] = {"avx512", "avx2", "base"};
    for (int s = 0; s < 3; s++) {
        const struct cpu_kernels *k;
        if (cpu_kernels_pick(isas[s], &k, NULL) != 0)
            continue;
        float x[37], y[37];
        const float hard[] = {0,      1e-30f, -1e-8f, 0.62f, -0.62f, 0.63f, 5,
                              -9.01f, 20,     -88,    89,    -200,   1e30f, -1e30f};
        for (int i = 0; i < 37; i++)
            x[i] = i < 14 ? hard[i] : 8 * noise();
        struct cpu_act t = {CPU_TANH, 0, 0}, sig = {CPU_SIGMOID, 0, 0},
                       leaky = {CPU_LEAKY, 2.5f, 0};
        k->finish(x, NULL, NULL, 37, &t, y);
        for (int i = 0; i < 37; i++)
            assert_true(fabs((double)y[i] - tanh((double)x[i])) <=
                        3e-7 * fabs((double)y[i]) + 1e-37);
        k->finish(x, NULL, NULL, 37, &sig, y);
        for (int i = 0; i < 37; i++)
            assert_true(fabs((double)y[i] - 1 / (1 + exp(-(double)x[i]))) <= 4e-7);
        k->finish(x, NULL, NULL, 37, &leaky, y);
        for (int i = 0; i < 37; i++)
            assert_true(y[i] == (x[i] < 0 ? 2.5f * x[i] : x[i]));
    }
}

static void kernels__let_what_is_not_finite_through(void **state)
{
    (void)state;
    static const char *isas[] = {"avx512", "avx2", "base"};
    for (int s = 0; s < 3; s++) {
        const struct cpu_kernels *k;
        if (cpu_kernels_pick(isas[s], &k, NULL) != 0)
            continue;
        for (int place = 0; place < 19; place++)
            for (enum cpu_act_kind kind = CPU_NONE; kind <= CPU_SIGMOID; kind++) {
                float x[19] = {0}, y[19];
                x[place] = NAN;
                assert_int_equal(k->finite(x, 19), 0);
                struct cpu_act a = {kind, kind == CPU_CLIP ? -1.0f : 0.1f, 1.0f};
                k->finish(x, NULL, NULL, 19, &a, y);
                for (int i = 0; i < 19; i++)
                    assert_int_equal(isnan(y[i]) != 0, i == place);
            }
        const struct cpu_act none = {CPU_NONE, 0, 0};
        for (int place = 0; place < 2 * 19; place++)
            for (enum cpu_binary op = CPU_ADD; op <= CPU_SLOPE; op++) {
                float x[2][19], y[19];
                for (int i = 0; i < 19; i++) /* operands of either order, of either sign */
                    x[0][i] = x[1][18 - i] = (float)(i - 9) - 0.5f;
                x[place / 19][place % 19] = NAN;
                if (op == CPU_SLOPE && place >= 19)
                    continue; /* of a positive number no slope is asked for */
                k->binary(op, x[0], 1, x[1], 1, 19, &none, y);
                for (int i = 0; i < 19; i++)
                    assert_int_equal(isnan(y[i]) != 0, i == place % 19);
            }
        float inf[3] = {0, -INFINITY, 0}, ok[3] = {3e38f, -3e38f, 0};
        assert_int_equal(k->finite(inf, 3), 0);
        assert_int_equal(k->finite(ok, 3), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool__runs_every_task_once),
        cmocka_unit_test(pool__binds_its_workers_to_a_cpu_each_if_asked),
        cmocka_unit_test(kernels__follow_the_mathematics_to_the_ends_of_the_range),
        cmocka_unit_test(kernels__let_what_is_not_finite_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
