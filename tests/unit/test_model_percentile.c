/*
 * test_model_percentile.c - percentiles, whoever counts and whatever the values are
 *
 * The expected numbers are numpy.percentile's (2.x, on float64).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "model/percentile.h"

static float *sequence(int n)
{
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < n; i++)
        x[i] = (float)(((int64_t)i * 7919 + 13) % 1009 / 10.0 - 20);
    return x;
}

static void assert_near(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("got %.9g, expected %.9g", got, expected);
}

static int percentile(const float *x, size_t n, double p, double *out, struct err *e)
{
    return percentiles(x, n, &p, 1, out, NULL, e);
}

static void percentile__is_that_of_numpy(void **state)
{
    (void)state;
    struct err e;
    static const double expected[][2] = {{0, -20},
                                         {0.5, -19.500500001907348},
                                         {1, -19.001000003814696},
                                         {50, 30.550000190734863},
                                         {99, 79.80100303649903},
                                         {99.5, 80.30050304412842},
                                         {100, 80.80000305175781}};
    float *x = sequence(1000);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        double one;
        assert_int_equal(percentile(x, 1000, expected[i][0], &one, &e), 0);
        assert_near(one, expected[i][1], 1e-12);
    }
    const double both[] = {99, 1};
    double got[2];
    assert_int_equal(percentiles(x, 1000, both, 2, got, NULL, &e), 0);
    assert_near(got[0], expected[4][1], 1e-12);
    assert_near(got[1], expected[2][1], 1e-12);
    free(x);
    static const float few[] = {3, -1, 2};
    static const double few_expected[][2] = {{0, -1}, {25, 0.5}, {33, 0.98},
                                             {50, 2}, {75, 2.5}, {100, 3}};
    for (size_t i = 0; i < sizeof few_expected / sizeof *few_expected; i++) {
        double one;
        assert_int_equal(percentile(few, 3, few_expected[i][0], &one, &e), 0);
        assert_near(one, few_expected[i][1], 1e-12);
    }
}

static void percentile__is_the_same_whoever_counts(void **state)
{
    (void)state;
    struct err e;
    struct pool *pool = NULL;
    const int n = 300007; /* for which several threads are worth their while; no multiple of them */
    const double at[] = {0, 1, 37.5, 99.5, 100};
    double alone[5], together[5];
    float *x = sequence(n);
    x[n - 1] = 1e6f;
    assert_int_equal(pool_new(&pool, 3, false, &e), 0);
    assert_int_equal(percentiles(x, (size_t)n, at, 5, alone, NULL, &e), 0);
    assert_int_equal(percentiles(x, (size_t)n, at, 5, together, pool, &e), 0);
    assert_memory_equal(alone, together, sizeof alone);
    assert_near(together[0], -20, 1e-12);
    assert_near(together[4], 1e6, 1e-12);
    x[n / 2] = NAN;
    assert_int_equal(percentiles(x, (size_t)n, at, 5, together, pool, &e), ERR_NUMERIC);
    for (int i = 0; i < n; i++)
        x[i] = (float)(i / 5); /* the larger the later */
    assert_int_equal(percentiles(x, (size_t)n, at, 5, alone, NULL, &e), 0);
    assert_int_equal(percentiles(x, (size_t)n, at, 5, together, pool, &e), 0);
    assert_memory_equal(alone, together, sizeof alone);
    assert_near(together[4], (n - 1) / 5, 1e-12);
    pool_free(pool);
    free(x);
}

static void percentile__of_whole_numbers_is_that_of_numpy(void **state)
{
    (void)state;
    /* numpy.percentile of these; some fall between two numbers. */
    static const double at[] = {0, 16.3, 32.4, 32.7, 50, 99.5, 99.6, 100};
    static const double expected[] = {0, 8.658, 13, 640.594, 1234, 60712.91, 61677.328, 65535};
    static const struct {
        float value;
        int times;
    } runs[] = {{0, 30}, {13, 30}, {1234, 61}, {59993, 60}, {60236, 1}, {65535, 1}};
    float x[256];
    int n = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        for (int k = 0; k < runs[i].times; k++)
            x[n++] = runs[i].value;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        double got;
        struct err e = {0};
        assert_int_equal(percentile(x, (size_t)n, at[i], &got, &e), 0);
        assert_true(fabs(got - expected[i]) < 1e-6);
    }
}

/* What is no whole number in 0 ... 65535 is found wherever it stands. */
static void percentile__takes_every_value_for_what_it_is(void **state)
{
    (void)state;
    static const float strange[] = {-1, 0.25f, 65536, 1e30f, -0.5f};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        for (size_t place = 0; place < 200; place += 199) {
            float x[200];
            double low, high;
            struct err e = {0};
            for (int k = 0; k < 200; k++)
                x[k] = 7;
            x[place] = strange[i];
            assert_int_equal(percentile(x, 200, 0, &low, &e), 0);
            assert_int_equal(percentile(x, 200, 100, &high, &e), 0);
            assert_true(low == (strange[i] < 7 ? (double)strange[i] : 7));
            assert_true(high == (strange[i] > 7 ? (double)strange[i] : 7));
        }
}

static void percentile__refuses_what_is_not_finite(void **state)
{
    (void)state;
    struct err e;
    double got;
    const float with_nan[] = {1, NAN, 2}, with_inf[] = {1, -INFINITY, 2};
    assert_int_equal(percentile(with_nan, 3, 50, &got, &e), ERR_NUMERIC);
    assert_int_equal(percentile(with_inf, 3, 50, &got, &e), ERR_NUMERIC);
    assert_int_equal(percentile(with_inf, 0, 50, &got, &e), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentile__is_that_of_numpy),
        cmocka_unit_test(percentile__is_the_same_whoever_counts),
        cmocka_unit_test(percentile__of_whole_numbers_is_that_of_numpy),
        cmocka_unit_test(percentile__takes_every_value_for_what_it_is),
        cmocka_unit_test(percentile__refuses_what_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
