/* test_model_bilinear.c - planes resampled row by row */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "node/base/err.h"

#include "model/bilinear.h"

#define SIDE 70

struct source {
    const float *values;
    int columns;
    int asked; /* rows, so far */
};

/* Every second row is made in the memory for it. */
static const float *row_of(const void *ctx, int y, float *spare)
{
    struct source *s = *(struct source *const *)ctx;
    const float *row = s->values + y * s->columns;
    assert_int_equal(y, s->asked++);
    return y % 2 == 0 ? row : memcpy(spare, row, (size_t)s->columns * sizeof *row);
}

/* Which inputs an output takes, and how much of each. */
static int taps_of(int o, int in, int out, float weight[4 * SIDE], int *count)
{
    double scale = (double)in / out, support = scale > 1 ? scale : 1;
    double centre = (o + 0.5) * scale, sum = 0;
    int begin = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    begin = begin < 0 ? 0 : begin;
    end = end > in ? in : end;
    for (int i = begin; i < end; i++) {
        double far = fabs(i + 0.5 - centre) / support, tap = far < 1 ? 1 - far : 0;
        weight[i - begin] = (float)tap;
        sum += tap;
    }
    for (int i = 0; i < end - begin; i++)
        weight[i] = (float)(weight[i] / sum);
    *count = end - begin;
    return begin;
}

/* As it reads: all rows made narrow, then added up. */
static void plain(const float *in, int rows, int columns, float *out, int out_rows, int out_columns)
{
    static float narrow[SIDE * SIDE];
    float weight[4 * SIDE];
    int count;
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < out_columns; x++) {
            int first = taps_of(x, columns, out_columns, weight, &count);
            float sum = 0;
            for (int i = 0; i < count; i++)
                sum += weight[i] * in[y * columns + first + i];
            narrow[y * out_columns + x] = sum;
        }
    for (int y = 0; y < out_rows; y++) {
        int first = taps_of(y, rows, out_rows, weight, &count);
        for (int x = 0; x < out_columns; x++) {
            float sum = 0;
            for (int i = 0; i < count; i++)
                sum += weight[i] * narrow[(first + i) * out_columns + x];
            out[y * out_columns + x] = sum;
        }
    }
}

static void check(const float *values, int rows, int columns, int out_rows, int out_columns)
{
    size_t n = (size_t)out_rows * (size_t)out_columns;
    float *expected = malloc(n * sizeof *expected), *got = malloc(n * sizeof *got);
    struct source source = {values, columns, 0}, *at = &source;
    struct err e = {0};
    assert_true(expected != NULL && got != NULL);
    memset(got, 0x7f, n * sizeof *got);
    plain(values, rows, columns, expected, out_rows, out_columns);
    assert_int_equal(bilinear_resample(row_of, &at, rows, columns, got, out_rows, out_columns, &e),
                     0);
    assert_int_equal(source.asked, rows);
    assert_memory_equal(got, expected, n * sizeof *got);
    free(expected);
    free(got);
}

static void bilinear__has_the_bits_of_the_plain_sums(void **state)
{
    (void)state;
    static const int sides[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 40, 66, SIDE};
    enum { N = sizeof sides / sizeof *sides };
    static float values[SIDE * SIDE];
    uint32_t seed = 1;
    for (int i = 0; i < SIDE * SIDE; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = (float)(seed >> 8) / 16777216.0f - 0.3f;
    }
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            check(values, sides[i], sides[k], sides[k], sides[i]);
            check(values, sides[i], SIDE, sides[k], 33);
            check(values, SIDE, sides[i], 33, sides[k]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bilinear__has_the_bits_of_the_plain_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
