/* test_model_quality_moved.c - the quality gate: are structures where they were? */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "node/base/err.h"

#include "model/quality.h"

/* As large as the picture in which edges are compared: nothing is resampled. */
#define SIDE  192
#define BLOCK 24
#define REACH 4

static float still[SIDE * SIDE], moved[SIDE * SIDE];

static uint32_t seed;

/* 0 ... 1 */
static float any(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float)(seed >> 8) / 16777216.0f;
}

static double share_moved(const float *source, const float *result)
{
    const struct quality_pair pair = {{.rows = SIDE, .columns = SIDE, .unit = source},
                                      {.rows = SIDE, .columns = SIDE, .unit = result},
                                      1};
    struct quality_report r;
    struct err e = {0};
    quality_begin(&r, NULL);
    if (quality_result(&r, &pair, &e) != 0)
        fail_msg("%s", e.text);
    return r.figure[QUALITY_MOVED];
}

static void moved__by_two_pixels_or_more(void **state)
{
    (void)state;
    seed = 11;
    for (int i = 0; i < SIDE * SIDE; i++)
        still[i] = any();
    for (int dy = -REACH; dy <= REACH; dy++)
        for (int dx = -REACH; dx <= REACH; dx++) {
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++)
                    moved[y * SIDE + x] =
                        still[(y + dy + SIDE) % SIDE * SIDE + (x + dx + SIDE) % SIDE];
            bool far = abs(dy) > 1 || abs(dx) > 1;
            assert_true(share_moved(still, moved) == (far ? 1 : 0));
        }
}

static void moved__by_the_first_of_equally_good_ways(void **state)
{
    (void)state;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            still[y * SIDE + x] = x % 4 < 2 ? 1 : x % 4 == 2 ? 0.3f : 0;
            moved[y * SIDE + x] = (x + 1) % 4 < 2 ? 1 : (x + 1) % 4 == 2 ? 0.3f : 0;
        }
    assert_true(share_moved(still, still) == 0); /* by nothing, before all others */
    assert_true(share_moved(still, moved) == 1); /* by -4, -3, before 0, 1 */
}

/* ---- all ways of all blocks, one sum after the other ---- */

struct edges {
    float right[SIDE * SIDE], down[SIDE * SIDE];
};

static void edges_of(const float *image, struct edges *f)
{
    double mean = 0;
    *f = (struct edges){0};
    for (int y = 1; y + 1 < SIDE; y++)
        for (int x = 1; x + 1 < SIDE; x++) {
            int i = y * SIDE + x;
            f->right[i] = image[i + 1] - image[i - 1];
            f->down[i] = image[i + SIDE] - image[i - SIDE];
            mean += hypot(f->right[i], f->down[i]);
        }
    mean = 1e-4 + mean / (SIDE * SIDE);
    for (int i = 0; i < SIDE * SIDE; i++) {
        double size = hypot(hypot(f->right[i], f->down[i]), mean);
        f->right[i] = (float)(f->right[i] / size);
        f->down[i] = (float)(f->down[i] / size);
    }
}

static double plain_agreement(const struct edges *a, const struct edges *b, int top, int left,
                              int dy, int dx)
{
    double both = 0, aa = 1e-9, bb = 1e-9;
    for (int y = top; y < top + BLOCK; y++)
        for (int x = left; x < left + BLOCK; x++) {
            int i = y * SIDE + x, k = (y + dy) * SIDE + x + dx;
            both += pow(a->right[i] * b->right[k] + a->down[i] * b->down[k], 2);
            aa += pow(hypot(a->right[i], a->down[i]), 4);
            bb += pow(hypot(b->right[k], b->down[k]), 4);
        }
    return both / sqrt(aa * bb);
}

static double plain_share(const struct edges *a, const struct edges *b)
{
    int blocks = 0, count = 0;
    for (int top = REACH + 1; top + BLOCK <= SIDE - REACH - 1; top += BLOCK)
        for (int left = REACH + 1; left + BLOCK <= SIDE - REACH - 1; left += BLOCK) {
            double best = plain_agreement(a, b, top, left, 0, 0);
            bool far = false;
            for (int dy = -REACH; dy <= REACH; dy++)
                for (int dx = -REACH; dx <= REACH; dx++) {
                    double there = plain_agreement(a, b, top, left, dy, dx);
                    if (there > best) {
                        best = there;
                        far = abs(dy) > 1 || abs(dx) > 1;
                    }
                }
            blocks++;
            count += far;
        }
    return (double)count / blocks;
}

static void moved__is_what_all_ways_say(void **state)
{
    (void)state;
    static struct edges a, b;
    double sum = 0;
    seed = 17;
    for (int kind = 0; kind < 6; kind++) {
        /* stronger and weaker by bands, so that a way with stronger edges is no better for it; and
         * hardly alike, so that there is no way that is best by far */
        int rows = 5 + 2 * kind, columns = 23 - 3 * kind;
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                float strong = y / rows % 3 == 0 || x / columns % 3 == 0 ? 1 : 0.5f;
                still[y * SIDE + x] = any() * strong;
                moved[y * SIDE + x] = any() * strong * 0.85f + 0.15f * still[y * SIDE + x];
            }
        edges_of(still, &a);
        edges_of(moved, &b);
        double expected = plain_share(&a, &b);
        assert_true(share_moved(still, moved) == expected);
        sum += expected;
    }
    assert_true(sum > 1 && sum < 5); /* neither all nor none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moved__by_two_pixels_or_more),
        cmocka_unit_test(moved__by_the_first_of_equally_good_ways),
        cmocka_unit_test(moved__is_what_all_ways_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
