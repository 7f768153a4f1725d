/*
 * test_model_prepare.c - pixels into tensors and back
 *
 * The expected numbers are PyTorch's interpolate(mode="bilinear", antialias=True,
 * align_corners=False), for the sequence below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "node/base/err.h"

#include "model/package.h"
#include "node/base/pool.h"
#include "model/prepare.h"

/* Share the work of prepare_input() and prepare_output(). */
static struct pool *threads;

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

static void check_resample(int rows, int columns, int out_rows, int out_columns,
                           const float *expected)
{
    struct err e;
    float *in = sequence(rows * columns), out[64];
    assert_int_equal(prepare_resample(in, rows, columns, out, out_rows, out_columns, &e), 0);
    for (int i = 0; i < out_rows * out_columns; i++)
        assert_near(out[i], expected[i], 3e-5);
    free(in);
}

static void resample__is_pytorchs_antialiased_bilinear(void **state)
{
    (void)state;
    static const float smaller[] = {41.3272095f, 47.7188606f, 19.5668564f,   -4.24285746f,
                                    61.7857132f, 37.9760017f, 9.8239994f,    27.1216927f,
                                    52.0428543f, 28.2331429f, 0.0811439082f, 29.1238079f};
    static const float larger[] = {
        -18.7000008f, -4.43333244f, 33.6111145f,  66.0500031f,  59.25f,      52.4500008f,
        45.6499977f,  38.8500023f,  36.2999992f,  -4.52142668f, 3.73928809f, 25.7678585f,
        44.1928558f,  37.3928528f,  30.5928535f,  37.8067398f,  47.0226173f, 50.4785728f,
        18.1642876f,  16.8154774f,  13.2186499f,  9.22142601f,  2.4214263f,  -4.37857342f,
        25.257534f,   60.0988045f,  73.1642838f,  40.8499985f,  38.3000031f, 31.5f,
        24.6999989f,  17.8999996f,  11.1000004f,  23.9194412f,  39.5416641f, 45.4000015f,
        56.3285599f,  53.7785606f,  46.9785576f,  40.5789566f,  36.9821396f, 33.3853264f,
        26.9857235f,  20.1857243f,  17.6357231f,  21.3571339f,  18.8071327f, 12.0071316f,
        8.81070614f,  30.8392849f,  52.8678589f,  49.6714363f,  42.8714371f, 40.321434f,
        -0.5f,        -3.05000043f, -9.85000134f, -11.0444422f, 27.0000019f, 65.0444412f,
        63.8500023f,  57.0500031f,  54.5f};
    static const float narrower[] = {34.7954559f, 36.2999992f, 17.9181824f, 56.1136322f,
                                     14.8000021f, 16.3045464f, 39.2000008f, 8.59999943f,
                                     63.6000023f, 32.9999962f, 14.6181812f, 52.813633f};
    static const float both[] = {14.6816902f, 24.4783115f, 39.1732368f, 38.5200005f, 38.0845032f,
                                 31.2154922f, 25.6639404f, 17.3366203f, 30.3262005f, 38.9859123f};
    check_resample(5, 7, 3, 4, smaller);
    check_resample(4, 4, 7, 9, larger);
    check_resample(6, 5, 6, 2, narrower);
    check_resample(9, 3, 2, 5, both);
}

static struct package any_grid(int multiple, int slices, int scale)
{
    return (struct package){.name = "test",
                            .input_slices = slices,
                            .scale = scale,
                            .multiple = multiple,
                            .spacing_mm_max = 10,
                            .rows_min = 1,
                            .rows_max = 1024,
                            .columns_min = 1,
                            .columns_max = 1024,
                            .percentile_high = 100};
}

static void input__pads_by_the_edge_to_a_multiple(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    const struct package k = any_grid(4, 1, 1);
    float volume[] = {0, 5, 10, 2.5f, -7, 20}; /* 2 rows of 3 */
    assert_int_equal(prepare_new(&k, 2, 3, 0, 10, &p, &e), 0);
    prepare_normalise(p, volume, 6, threads);
    assert_null(prepare_lent(p, volume, 1, 0));
    const struct shape *s = prepare_input_shape(p);
    assert_int_equal(s->dim[0], 1);
    assert_int_equal(s->dim[1], 1);
    assert_int_equal(s->dim[2], 4);
    assert_int_equal(s->dim[3], 4);
    float tensor[16];
    assert_int_equal(prepare_input(p, volume, 1, 0, tensor, threads, &e), 0);
    static const float expected[] = {-1,    0,  1, 1, -0.5f, -1, 1, 1,
                                     -0.5f, -1, 1, 1, -0.5f, -1, 1, 1};
    for (int i = 0; i < 16; i++)
        assert_near(tensor[i], expected[i], 1e-6);
    prepare_free(p);
}

static void input__repeats_the_first_and_last_slice_as_context(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    const struct package k = any_grid(1, 3, 1);
    float volume[] = {0, 5, 10}; /* 3 slices of one pixel */
    assert_int_equal(prepare_new(&k, 1, 1, 0, 10, &p, &e), 0);
    prepare_normalise(p, volume, 3, threads);
    float tensor[3];
    static const float expected[3][3] = {{-1, -1, 0}, {-1, 0, 1}, {0, 1, 1}};
    for (int s = 0; s < 3; s++) {
        assert_int_equal(prepare_input(p, volume, 3, s, tensor, threads, &e), 0);
        for (int c = 0; c < 3; c++)
            assert_near(tensor[c], expected[s][c], 1e-6);
        const float *lent = prepare_lent(p, volume, 3, s);
        if (s == 1)
            assert_ptr_equal(lent, volume);
        else
            assert_null(lent);
    }
    prepare_free(p);
}

static void input__is_lent_where_it_lies_in_the_volume_as_it_is_taken(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    struct package k = any_grid(2, 3, 1);
    float volume[5 * 4 * 6], tensor[3 * 4 * 6]; /* 5 slices of 4 rows of 6 */
    for (int i = 0; i < 5 * 4 * 6; i++)
        volume[i] = (float)(i * 7 % 120);
    assert_int_equal(prepare_new(&k, 4, 6, 10, 100, &p, &e), 0);
    prepare_normalise(p, volume, 5 * 4 * 6, threads);
    for (int s = 0; s < 5; s++) {
        assert_int_equal(prepare_input(p, volume, 5, s, tensor, threads, &e), 0);
        const float *lent = prepare_lent(p, volume, 5, s);
        if (s == 0 || s == 4)
            assert_null(lent);
        else
            assert_memory_equal(lent, tensor, sizeof tensor);
    }
    prepare_free(p);
    k.multiple = 4; /* columns are padded */
    assert_int_equal(prepare_new(&k, 4, 6, 10, 100, &p, &e), 0);
    assert_null(prepare_lent(p, volume, 5, 2));
    prepare_free(p);
    k.multiple = 0; /* resampled, though to the same size */
    k.grid_rows = 4;
    k.grid_columns = 6;
    assert_int_equal(prepare_new(&k, 4, 6, 10, 100, &p, &e), 0);
    assert_null(prepare_lent(p, volume, 5, 2));
    prepare_free(p);
}

/* As numpy does it, wherever a vector ends. */
static void normalise__clips_and_spans_minus_one_to_one(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    const struct package k = any_grid(1, 1, 1);
    enum { N = 2 * 65536 + 7 };
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    assert_int_equal(prepare_new(&k, 1, 1, 50, 250, &p, &e), 0);
    for (int i = 0; i < N; i++)
        x[i] = (float)(i % 301);
    prepare_normalise(p, x, N, threads);
    for (int i = 0; i < N; i++)
        assert_near(x[i], fmin(fmax((i % 301 - 50) / 200.0, 0), 1) * 2 - 1, 1e-6);
    free(x);
    prepare_free(p);
}

static void output__crops_the_padding_and_spans_twelve_bits(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    const struct package k = any_grid(4, 1, 1);
    assert_int_equal(prepare_new(&k, 2, 3, 0, 10, &p, &e), 0);
    const float tensor[16] = {-1, 0, 1, 9, -1.2f, 1.5f, 0.25f, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    uint16_t out[6];
    assert_int_equal(prepare_output(p, tensor, out, threads, &e), 0);
    static const uint16_t expected[] = {0, 2048, 4095, 0, 4095, 2559};
    for (int i = 0; i < 6; i++)
        assert_int_equal(out[i], expected[i]);
    assert_true(prepare_slope(p) == 1 && prepare_intercept(p) == 0);
    prepare_free(p);
}

static void output__goes_back_to_the_units_of_the_source(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    struct package k = any_grid(1, 1, 2);
    k.output = MODEL_OUTPUT_SOURCE;
    const float tensor[4] = {-1, 1, 0, 0.5f};
    uint16_t out[4];
    assert_int_equal(prepare_new(&k, 1, 1, 100, 900, &p, &e), 0);
    assert_int_equal(prepare_rows(p), 2);
    assert_int_equal(prepare_columns(p), 2);
    assert_int_equal(prepare_output(p, tensor, out, threads, &e), 0);
    static const uint16_t expected[] = {100, 900, 500, 700};
    for (int i = 0; i < 4; i++)
        assert_int_equal(out[i], expected[i]);
    prepare_free(p);

    /* Units that twelve bits do not hold go by slope and intercept. */
    assert_int_equal(prepare_new(&k, 1, 1, -1000, 9000, &p, &e), 0);
    assert_int_equal(prepare_output(p, tensor, out, threads, &e), 0);
    for (int i = 0; i < 4; i++)
        assert_near(out[i] * prepare_slope(p) + prepare_intercept(p),
                    -1000 + (tensor[i] + 1) / 2 * 10000, prepare_slope(p) / 2 + 1e-6);
    prepare_free(p);
}

static void output__refuses_what_is_not_finite(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    const struct package k = any_grid(1, 1, 1);
    assert_int_equal(prepare_new(&k, 1, 2, 0, 1, &p, &e), 0);
    const float with_nan[2] = {0, NAN}, with_inf[2] = {INFINITY, 0};
    uint16_t out[2];
    assert_int_equal(prepare_output(p, with_nan, out, threads, &e), ERR_NUMERIC);
    assert_int_equal(prepare_output(p, with_inf, out, threads, &e), ERR_NUMERIC);
    prepare_free(p);
}

static void fixed_grid__is_resampled_there_and_back(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p;
    struct package k = any_grid(0, 1, 1);
    k.grid_rows = 3;
    k.grid_columns = 4;
    float *volume = sequence(5 * 7), tensor[12], direct[12], back[35];
    uint16_t out[35];
    assert_int_equal(prepare_new(&k, 5, 7, -20, 81, &p, &e), 0);
    assert_int_equal(prepare_resample(volume, 5, 7, direct, 3, 4, &e), 0);
    prepare_normalise(p, volume, 5 * 7, threads);
    assert_int_equal(prepare_input(p, volume, 1, 0, tensor, threads, &e), 0);
    for (int i = 0; i < 12; i++)
        assert_near(tensor[i], (direct[i] + 20) / 101 * 2 - 1, 1e-5);
    assert_int_equal(prepare_output(p, tensor, out, threads, &e), 0);
    assert_int_equal(prepare_resample(tensor, 3, 4, back, 5, 7, &e), 0);
    for (int i = 0; i < 35; i++)
        assert_near(out[i], (back[i] + 1) / 2 * 4095, 0.51);
    prepare_free(p);
    free(volume);
}

static void prepare__refuses_a_flat_series_and_a_size_out_of_bounds(void **state)
{
    (void)state;
    struct err e;
    struct prepare *p = NULL;
    struct package k = any_grid(1, 1, 1);
    assert_int_equal(prepare_new(&k, 8, 8, 5, 5, &p, &e), ERR_REFUSED);
    assert_int_equal(prepare_new(&k, 8, 8, 0, NAN, &p, &e), ERR_NUMERIC);
    k.rows_max = 4;
    assert_int_equal(prepare_new(&k, 8, 4, 0, 1, &p, &e), ERR_REFUSED);
    assert_null(p);
}

static int start(void **state)
{
    (void)state;
    return pool_new(&threads, 3, false, NULL);
}

static int stop(void **state)
{
    (void)state;
    pool_free(threads);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resample__is_pytorchs_antialiased_bilinear),
        cmocka_unit_test(input__pads_by_the_edge_to_a_multiple),
        cmocka_unit_test(input__repeats_the_first_and_last_slice_as_context),
        cmocka_unit_test(input__is_lent_where_it_lies_in_the_volume_as_it_is_taken),
        cmocka_unit_test(normalise__clips_and_spans_minus_one_to_one),
        cmocka_unit_test(output__crops_the_padding_and_spans_twelve_bits),
        cmocka_unit_test(output__goes_back_to_the_units_of_the_source),
        cmocka_unit_test(output__refuses_what_is_not_finite),
        cmocka_unit_test(fixed_grid__is_resampled_there_and_back),
        cmocka_unit_test(prepare__refuses_a_flat_series_and_a_size_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
