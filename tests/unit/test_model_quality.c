/* test_model_quality.c - the quality gate: its metadata, its features, its figures, its verdict */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/base/err.h"

#include "model/quality.h"
#include "model/quality_parts.h"

/* ---- a gate's text ---- */

static char gate_text[QUALITY_TEXT_MAX + 2];

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void add(const char *format, ...)
{
    size_t n = strlen(gate_text);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(gate_text + n, sizeof gate_text - n, format, args);
    va_end(args);
    assert_true(m >= 0 && (size_t)m < sizeof gate_text - n);
}

static void add_numbers(const char *key, const char *value, int n)
{
    add("%s", key);
    for (int i = 0; i < n; i++)
        add(" %s", value);
    add("\n");
}

/* Means of 0, scales of 1, whitening the identity; and what else is said. */
static const char *gate(const char *more)
{
    gate_text[0] = '\0';
    add("gate 1\nfeatures %d %d\nrefusal 0.01 60\nfield_mm 180 400\n", QUALITY_VERSION,
        QUALITY_FEATURES);
    add("mean %d", QUALITY_FEATURES);
    add_numbers("", "0", QUALITY_FEATURES);
    add("scale %d", QUALITY_FEATURES);
    add_numbers("", "1", QUALITY_FEATURES);
    add("whiten");
    for (int i = 0; i < QUALITY_SHAPE; i++)
        for (int k = 0; k <= i; k++)
            add(" %d", k == i);
    add("\n%s", more);
    return gate_text;
}

static struct quality_gate *parsed(const char *more)
{
    struct quality_gate *g = NULL;
    struct err e = {0};
    if (quality_gate_parse(gate(more), &g, &e) != 0)
        fail_msg("%s", e.text);
    return g;
}

static void assert_wrong(const char *text, int code, const char *reason)
{
    struct quality_gate *g = NULL;
    struct err e = {0};
    assert_int_equal(quality_gate_parse(text, &g, &e), code);
    assert_null(g);
    if (strstr(e.text, reason) == NULL)
        fail_msg("'%s' does not say '%s'", e.text, reason);
}

static void gate__reads_what_it_says(void **state)
{
    (void)state;
    struct quality_gate *g = parsed("towards PF\nlimit unlike 1.5 2.5e0\nlimit moved -1 0\n");
    assert_int_equal(g->series, 60);
    assert_true(g->refusal == 0.01 && g->field_mm_min == 180 && g->field_mm_max == 400);
    assert_string_equal(g->towards, "PF");
    assert_true(g->limit[QUALITY_UNLIKE].mark == 1.5 && g->limit[QUALITY_UNLIKE].refuse == 2.5);
    assert_true(g->limit[QUALITY_MOVED].mark == -1 && g->limit[QUALITY_MOVED].refuse == 0);
    assert_true(isinf(g->limit[QUALITY_STRUCTURE].refuse));
    assert_true(g->whiten[0] == 1 && g->whiten[1] == 0 && g->whiten[2] == 1 && g->mean[99] == 0);
    free(g);
}

static void gate__refuses_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "colour 1",
        "gate 1",
        "limit unlike 1",
        "limit unlike 2 1",
        "limit unknown 1 2",
        "limit unlike 1 x",
        "limit unlike 1 0x10",
        "limit unlike 1 nan",
        "limit unlike 1 1e9",
        "towards XY",
        "towards P",
        "towards PF towards PF",
        "class Bad 1 2",
        "class b 1 2 99 0",
        "limit moved 1 2 limit moved 1 2",
        "mean 1 2",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_wrong(gate(wrong[i]), ERR_INVALID, "spinenode.gate");
    assert_wrong("", ERR_INVALID, "lacks \"gate\"");
    assert_wrong("gate 2", ERR_INVALID, "no other format");
    assert_wrong("gate 1\nfeatures 99 100", ERR_UNSUPPORTED, "scripts/calibrate");
    assert_wrong("gate 1\nfeatures 1 5", ERR_UNSUPPORTED, "scripts/calibrate");
    assert_wrong("gate 1\x01", ERR_INVALID, "no key");
    assert_wrong("gateeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 1", ERR_INVALID,
                 "no key");
    memset(gate_text, ' ', QUALITY_TEXT_MAX + 1);
    gate_text[QUALITY_TEXT_MAX + 1] = '\0';
    assert_wrong(gate_text, ERR_LIMIT, "longer than");
}

static void gate__cut_anywhere_is_refused(void **state)
{
    (void)state;
    size_t n = strlen(gate("limit unlike 1 2\n"));
    char *whole = strdup(gate_text);
    assert_non_null(whole);
    for (size_t i = 0; i + strlen("limit unlike 1 2\n") < n - 1; i += 7) {
        struct quality_gate *g = NULL;
        char *cut = strndup(whole, i);
        assert_non_null(cut);
        assert_int_not_equal(quality_gate_parse(cut, &g, NULL), 0);
        assert_null(g);
        free(cut);
    }
    free(whole);
}

static void gate__takes_twelve_classes_and_no_more(void **state)
{
    (void)state;
    gate("");
    for (int i = 0; i < QUALITY_CLASSES_MAX + 1; i++) {
        add("class kind-%c 1 2 %d", 'a' + i, QUALITY_FEATURES);
        add_numbers("", "0", QUALITY_FEATURES);
        struct quality_gate *g = NULL;
        struct err e = {0};
        int rc = quality_gate_parse(gate_text, &g, &e);
        assert_int_equal(rc, i < QUALITY_CLASSES_MAX ? 0 : ERR_INVALID);
        free(g);
    }
}

/* ---- features ---- */

#define SIDE 120
static float image[SIDE * SIDE], other[SIDE * SIDE], third[SIDE * SIDE];

/* A column of bright blocks between dark gaps, a bright line behind it, a bright back. */
static void draw(float *to)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            float v = 0.02f;
            if (x > 50 && x < 68 && y % 16 > 4)
                v = 0.5f + 0.002f * (float)y;
            if (x > 72 && x < 78)
                v = 1;
            if (x > 90 && x < 104)
                v = 0.7f;
            to[y * SIDE + x] = v;
        }
}

static int named(const char *name)
{
    for (int i = 0; i < QUALITY_SHAPE; i++)
        if (strcmp(quality_feature_name(i), name) == 0)
            return i;
    fail_msg("no feature %s", name);
    return -1;
}

static struct quality_image as_is(const float *values, int rows, int columns)
{
    return (struct quality_image){.rows = rows, .columns = columns, .unit = values};
}

static void look_at(const float *at, int rows, int columns, float f[QUALITY_FEATURES])
{
    struct quality_image i = as_is(at, rows, columns);
    struct err e = {0};
    if (quality_features(&i, f, &e) != 0)
        fail_msg("%s", e.text);
}

static void look(const float *at, float f[QUALITY_FEATURES])
{
    look_at(at, SIDE, SIDE, f);
}

static uint32_t seed;

/* 0 ... 1 */
static float any(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float)(seed >> 8) / 16777216.0f;
}

static void row__is_made_of_each_kind_of_value(void **state)
{
    (void)state;
    enum { MOST = 41 };
    float values[2 * MOST], spare[MOST];
    uint16_t stored[2 * MOST];
    for (int columns = 1; columns <= MOST; columns++) {
        struct quality_image unit = as_is(values, 2, columns), normalised = unit, whole = unit;
        normalised.unit = whole.unit = NULL;
        normalised.normalised = values;
        whole.stored = stored;
        whole.low = 30;
        whole.high = 90;
        for (int i = 0; i < 2 * columns; i++) {
            values[i] = (float)(i - columns) / 21 - 1;
            stored[i] = (uint16_t)((i - columns) * 5 & 255);
        }
        assert_true(quality_row(&unit, 1, spare) == values + columns);
        assert_true(quality_row(&normalised, 1, spare) == spare);
        for (int x = 0; x < columns; x++)
            assert_float_equal(spare[x], x / 42.0, 1e-6);
        assert_true(quality_row(&whole, 1, spare) == spare);
        for (int x = 0; x < columns; x++) {
            double at = (stored[columns + x] - 30.0) / 60, expected = fmin(fmax(at, 0), 1);
            assert_float_equal(spare[x], expected, 1e-6);
            if (at <= 0 || at >= 1)
                assert_true((double)spare[x] == expected);
        }
    }
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* By sorting all answers of the filter. */
static float plain_noise(const float *v, int rows, int columns)
{
    static float answer[SIDE * SIDE];
    int n = 0;
    for (int y = 1; y + 1 < rows; y++)
        for (int x = 1; x + 1 < columns; x++) {
            const float *a = v + (y - 1) * columns + x, *b = a + columns, *c = b + columns;
            answer[n++] = fabsf(a[-1] - 2 * a[0] + a[1] - 2 * b[-1] + 4 * b[0] - 2 * b[1] + c[-1] -
                                2 * c[0] + c[1]);
        }
    qsort(answer, (size_t)n, sizeof *answer, compare_floats);
    double median =
        n % 2 == 1 ? answer[n / 2]
                   : answer[n / 2 - 1] + ((double)answer[n / 2] - (double)answer[n / 2 - 1]) * 0.5;
    return (float)log(median / 0.6745 / 6 + 1e-3);
}

static const int odd_sizes[][2] = {{16, 16}, {16, 17}, {17, 17}, {33, 34}, {18, 63},
                                   {63, 18}, {50, 51}, {98, 82}, {81, 97}, {120, 120}};
#define ODD_SIZES (sizeof odd_sizes / sizeof *odd_sizes)
#define KINDS     7

/* Images that have little in common. */
static void fill(float *to, int rows, int columns, int kind)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns; x++) {
            float u = any(),
                  blob = expf(-hypotf((float)(y - rows / 2), (float)(x - columns / 2)) / 8);
            to[y * columns + x] = kind == 0   ? u
                                  : kind == 1 ? 0.37f
                                  : kind == 2 ? (float)(u < 0.004f) /* hardly anything but 0 */
                                  : kind == 3 ? (float)((y / 2 + x) % 2)
                                  : kind == 4 ? roundf(u * 9) / 9
                                  : kind == 5 ? 1 - blob + 1e-4f * u
                                              : (u < 0.5f ? 0.1f : 1) * 1e-5f;
        }
}

static void noise__is_the_median_of_all_answers(void **state)
{
    (void)state;
    float f[QUALITY_FEATURES];
    struct err e;
    seed = 3;
    for (size_t s = 0; s < ODD_SIZES; s++)
        for (int kind = 0; kind < KINDS; kind++) {
            int rows = odd_sizes[s][0], columns = odd_sizes[s][1];
            fill(image, rows, columns, kind);
            struct quality_image i = as_is(image, rows, columns);
            assert_int_equal(quality_noise(&i, f, &e), 0);
            assert_true(f[QUALITY_NOISE] == plain_noise(image, rows, columns));
        }
    /* half of them nothing, the other half something: between both */
    for (int y = 0; y < 16; y++)
        for (int x = 0; x < 16; x++)
            image[y * 16 + x] = y < 9 ? 0.5f : (float)((x + y) % 2) * (0.5f + 0.1f * any());
    struct quality_image i = as_is(image, 16, 16);
    assert_int_equal(quality_noise(&i, f, &e), 0);
    assert_true(f[QUALITY_NOISE] == plain_noise(image, 16, 16) && f[QUALITY_NOISE] > -3);
    i = as_is(image, 40, 40);
    image[800] = NAN;
    assert_int_equal(quality_noise(&i, f, &e), ERR_NUMERIC);
    image[800] = INFINITY;
    assert_int_equal(quality_noise(&i, f, &e), ERR_NUMERIC);
    i.columns = 15;
    assert_int_equal(quality_noise(&i, f, &e), ERR_REFUSED);
}

/* One place after the other, one pixel after the other. */
static float plain_void(const float *v, int rows, int columns, int r)
{
    int reach = r + 3, border = r / 2;
    float worst = -1;
    for (int cy = border; cy < rows * 4 / 5; cy += 2)
        for (int cx = columns * 2 / 5; cx < columns - border; cx += 2) {
            float inside = 0, ring[8] = {0};
            int disc = 0, size[8] = {0};
            if (v[cy * columns + cx] > 0.15f)
                continue;
            for (int y = -reach; y <= reach; y++)
                for (int x = -reach; x <= reach; x++) {
                    bool there = cy + y >= 0 && cy + y < rows && cx + x >= 0 && cx + x < columns;
                    float g = there ? v[(cy + y) * columns + cx + x] : 0;
                    int d = y * y + x * x;
                    int k = (int)floor((atan2(y, x) / 3.14159265358979 + 1) * 4) % 8;
                    if (d <= r * r) {
                        inside += g;
                        disc++;
                    } else if (d <= reach * reach) {
                        ring[k] += g;
                        size[k]++;
                    }
                }
            for (int k = 0; k < 8; k++)
                ring[k] /= (float)size[k];
            qsort(ring, 8, sizeof *ring, compare_floats);
            float score = ring[3] - 4 * inside / (float)disc;
            worst = score > worst ? score : worst;
        }
    return worst;
}

static void voids__are_those_of_every_place(void **state)
{
    (void)state;
    static const int radius[] = {3, 4, 7};
    static const int sizes[][2] = {{24, 24}, {24, 96}, {96, 24}, {96, 96}, {95, 96}, {96, 67}};
    struct err e;
    seed = 5;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < KINDS; kind++) {
            int rows = sizes[s][0], columns = sizes[s][1];
            float out[3];
            fill(image, rows, columns, kind);
            assert_int_equal(quality_voids(image, rows, columns, out, &e), 0);
            for (int i = 0; i < 3; i++)
                assert_true(out[i] == plain_void(image, rows, columns, radius[i]));
        }
}

static void features__say_where_and_which_way(void **state)
{
    (void)state;
    float f[QUALITY_FEATURES], g[QUALITY_FEATURES];
    draw(image);
    quality_do(QUALITY_FLIP, image, SIDE, SIDE, other);
    look(image, f);
    look(other, g);
    assert_true(f[named("x")] > 0.1f);
    assert_float_equal(g[named("x")], -f[named("x")], 1e-4);
    assert_float_equal(g[named("mean")], f[named("mean")], 1e-5);
    /* turned by 90 degrees, lines across become lines along */
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            other[x * SIDE + y] = image[y * SIDE + x];
    look(other, g);
    assert_true(f[named("across")] < -0.5f && g[named("across")] > 0.5f);
    assert_true(f[named("bright-column")] > 2 * f[named("bright-row")]);
}

static void features__tell_noise_and_voids(void **state)
{
    (void)state;
    float f[QUALITY_FEATURES], g[QUALITY_FEATURES];
    seed = 7;
    draw(image);
    look(image, f);
    for (int i = 0; i < SIDE * SIDE; i++) {
        double sum = 0; /* twelve uniform numbers: nearly normal, standard deviation 1 */
        for (int k = 0; k < 12; k++)
            sum += any();
        other[i] = image[i] + (float)(0.05 * (sum - 6));
    }
    look(other, g);
    assert_float_equal(exp(g[named("noise")]) - 1e-3, 0.05, 0.006);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            double away = hypot(y - 60, x - 60);
            other[y * SIDE + x] = away < 12 ? 0 : away < 16 ? 1 : image[y * SIDE + x];
        }
    look(other, g);
    assert_true(g[named("void-large")] > f[named("void-large")] + 0.15f);
}

static void features__of_a_flat_image_and_of_a_ramp_are_known(void **state)
{
    (void)state;
    static const int sizes[][2] = {{120, 120}, {50, 97}, {97, 50}, {90, 31}};
    float f[QUALITY_FEATURES];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int rows = sizes[s][0], columns = sizes[s][1];
        for (int i = 0; i < rows * columns; i++)
            image[i] = 0.5f;
        look_at(image, rows, columns, f);
        assert_float_equal(f[named("gradient")], 0, 1e-5);
        assert_float_equal(f[named("bright-column")], 0, 1e-5);
        assert_float_equal(f[named("dark-row")], 0, 1e-5);
        for (int i = 0; i < rows * columns; i++)
            image[i] = (float)(i % columns) / (float)(columns - 1);
        look_at(image, rows, columns, f);
        assert_float_equal(f[named("bright-row")], 0, 1e-5); /* nothing from row to row */
        for (int i = 0; i < QUALITY_CELLS; i++) {
            assert_float_equal(f[QUALITY_SHAPE + i], (i % 6 + 0.5) / 6, 0.03);
            assert_true(i % 6 == 0 || f[QUALITY_SHAPE + i] > f[QUALITY_SHAPE + i - 1] + 0.1f);
        }
        for (int i = 0; i < QUALITY_LEANS; i += 2) { /* all across, as strong everywhere */
            assert_float_equal(f[QUALITY_SHAPE + QUALITY_CELLS + i], 1 / 1.1, 0.02);
            assert_float_equal(f[QUALITY_SHAPE + QUALITY_CELLS + i + 1], 0, 1e-5);
        }
    }
}

static void features__of_anything_are_finite(void **state)
{
    (void)state;
    float f[QUALITY_FEATURES];
    struct err e;
    struct quality_image small = as_is(image, 15, 100);
    static const int sizes[][2] = {{16, 16}, {16, 700}, {700, 16}, {120, 120}, {33, 17}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 3; kind++) {
            int n = sizes[s][0] * sizes[s][1];
            for (int i = 0; i < n && i < SIDE * SIDE; i++)
                image[i] = kind == 2 ? (float)(i % 2) : (float)kind;
            assert_true(n <= SIDE * SIDE);
            look_at(image, sizes[s][0], sizes[s][1], f);
            for (int i = 0; i < QUALITY_FEATURES; i++)
                assert_true(isfinite(f[i]));
        }
    assert_int_equal(quality_features(&small, f, &e), ERR_REFUSED);
}

/* ---- results ---- */

static void report_of(struct quality_report *r)
{
    quality_begin(r, NULL);
}

static void compare(struct quality_report *r, const float *source, const float *result, int rows,
                    int columns, int scale)
{
    struct quality_pair pair = {as_is(source, rows, columns),
                                as_is(result, rows * scale, columns * scale), scale};
    struct err e = {0};
    report_of(r);
    if (quality_result(r, &pair, &e) != 0)
        fail_msg("%s", e.text);
}

static void structure__counts_edges_not_contrast(void **state)
{
    (void)state;
    struct quality_report same, blurred, moved;
    draw(image);
    for (int i = 0; i < SIDE * SIDE; i++)
        other[i] = 1 - image[i] * 0.8f; /* inverted contrast, same anatomy */
    compare(&same, image, other, SIDE, SIDE, 1);
    assert_true(same.figure[QUALITY_STRUCTURE] < 0.05);
    assert_true(same.figure[QUALITY_MOVED] == 0);
    assert_true(isnan(same.figure[QUALITY_DOWNSAMPLED]));
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            third[y * SIDE + x] = other[y * SIDE + (x < 2 ? 0 : x - 2)];
    compare(&moved, image, third, SIDE, SIDE, 1);
    assert_true(moved.figure[QUALITY_MOVED] > 0.5);
    assert_true(moved.figure[QUALITY_STRUCTURE] > 3 * same.figure[QUALITY_STRUCTURE]);
    /* one part only: the whole image hardly shows it, its block does */
    memcpy(third, other, sizeof third);
    for (int y = 50; y < 66; y++)
        for (int x = 50; x < 68; x++)
            third[y * SIDE + x] = (x / 2) % 2 ? 1 : 0;
    compare(&blurred, image, third, SIDE, SIDE, 1);
    assert_true(blurred.figure[QUALITY_STRUCTURE_BLOCK] >
                same.figure[QUALITY_STRUCTURE_BLOCK] + 0.3);
    assert_true(blurred.figure[QUALITY_STRUCTURE] < blurred.figure[QUALITY_STRUCTURE_BLOCK] / 2);
}

static void downsampled__is_the_source_or_is_not(void **state)
{
    (void)state;
    enum { SCALE = 2, BIG = SIDE * SCALE };
    float *big = malloc((size_t)BIG * BIG * sizeof *big);
    struct quality_report good, bad;
    assert_non_null(big);
    draw(image);
    for (int y = 0; y < BIG; y++)
        for (int x = 0; x < BIG; x++)
            big[y * BIG + x] = image[y / SCALE * SIDE + x / SCALE];
    compare(&good, image, big, SIDE, SIDE, SCALE);
    for (int y = 60; y < 90; y++)
        for (int x = 120; x < 150; x++)
            big[y * BIG + x] = 0;
    compare(&bad, image, big, SIDE, SIDE, SCALE);
    assert_true(bad.figure[QUALITY_DOWNSAMPLED] > good.figure[QUALITY_DOWNSAMPLED] + 1);
    assert_true(bad.figure[QUALITY_DOWNSAMPLED_BLOCK] > good.figure[QUALITY_DOWNSAMPLED_BLOCK] + 5);
    assert_true(isnan(bad.figure[QUALITY_STRUCTURE]));
    free(big);
}

static void second_opinion__comes_back_to_its_place(void **state)
{
    (void)state;
    enum { R = 5, C = 7, S = 3 };
    float in[R * C], changed[R * C], large[R * S * C * S], back[R * S * C * S];
    static const enum quality_way ways[] = {QUALITY_FLIP, QUALITY_SHIFT, QUALITY_BOTH};
    for (int i = 0; i < R * C; i++)
        in[i] = (float)i;
    for (size_t w = 0; w < 3; w++) {
        quality_do(ways[w], in, R, C, changed);
        assert_memory_not_equal(changed, in, sizeof in);
        for (int y = 0; y < R * S; y++) /* a "model" that repeats pixels */
            for (int x = 0; x < C * S; x++)
                large[y * C * S + x] = changed[y / S * C + x / S];
        quality_undo(ways[w], large, R * S, C * S, S, back);
        /* all but the last row and the column that was moved out */
        for (int y = 0; y < (R - 1) * S; y++)
            for (int x = S; x < (C - 1) * S; x++)
                assert_true(back[y * C * S + x] == in[y / S * C + x / S]);
    }
}

static void disagree(struct quality_report *r, const float *result, const float *second, int rows,
                     int columns, enum quality_way way, int scale)
{
    struct quality_image a = as_is(result, rows, columns), b = as_is(second, rows, columns);
    struct err e = {0};
    if (quality_disagreement(r, &a, &b, way, scale, &e) != 0)
        fail_msg("%s", e.text);
}

static void disagreement__has_a_worst_block(void **state)
{
    (void)state;
    struct quality_report r;
    draw(image);
    memcpy(other, image, sizeof other);
    report_of(&r);
    disagree(&r, image, other, SIDE, SIDE, 0, 1);
    assert_true(r.figure[QUALITY_DISAGREEMENT] == 0 && r.figure[QUALITY_DISAGREEMENT_BLOCK] == 0);
    for (int y = 4; y < 18; y++)
        for (int x = 4; x < 18; x++)
            other[y * SIDE + x] += 0.5f;
    disagree(&r, image, other, SIDE, SIDE, 0, 1);
    assert_float_equal(r.figure[QUALITY_DISAGREEMENT_BLOCK], 0.5, 1e-3);
    assert_float_equal(r.figure[QUALITY_DISAGREEMENT], 0.5 / 64, 1e-3);
    disagree(&r, image, image, SIDE, SIDE, 0, 1); /* the worst stands */
    assert_float_equal(r.figure[QUALITY_DISAGREEMENT_BLOCK], 0.5, 1e-3);
}

static void disagreement__is_that_with_what_is_brought_back(void **state)
{
    (void)state;
    seed = 13;
    for (size_t s = 0; s < ODD_SIZES; s++)
        for (int scale = 1; scale <= 3; scale++)
            for (int way = 0; way <= QUALITY_BOTH; way++) {
                int rows = odd_sizes[s][0], columns = odd_sizes[s][1], border = 4 * scale;
                int height = rows - 2 * border, width = columns - 2 * border;
                struct quality_report r;
                double sum = 0, worst = 0;
                fill(image, rows, columns, 0);
                fill(other, rows, columns, 5);
                report_of(&r);
                disagree(&r, image, other, rows, columns, (enum quality_way)way, scale);
                if (height < 8 || width < 8) {
                    assert_true(isnan(r.figure[QUALITY_DISAGREEMENT]));
                    continue;
                }
                quality_undo((enum quality_way)way, other, rows, columns, scale, third);
                for (int b = 0; b < 64; b++) {
                    int top = b / 8 * height / 8, bottom = (b / 8 + 1) * height / 8;
                    int left = b % 8 * width / 8, right = (b % 8 + 1) * width / 8;
                    double here = 0;
                    for (int y = top + border; y < bottom + border; y++)
                        for (int x = left + border; x < right + border; x++)
                            here += fabs(image[y * columns + x] - third[y * columns + x]);
                    sum += here;
                    worst = fmax(worst, here / ((bottom - top) * (right - left)));
                }
                assert_true(r.figure[QUALITY_DISAGREEMENT] == sum / ((double)height * width));
                assert_true(r.figure[QUALITY_DISAGREEMENT_BLOCK] == worst);
            }
}

/* ---- the verdict ---- */

static void verdict__without_a_gate_passes(void **state)
{
    (void)state;
    struct quality_report r;
    float f[1][QUALITY_FEATURES];
    memset(f, 0x41, sizeof f);
    quality_begin(&r, NULL);
    quality_view(&r, NULL, &(struct quality_view){1, 1, "HL"});
    quality_input(&r, NULL, f, 1);
    r.figure[QUALITY_STRUCTURE] = 100;
    quality_judge(&r, NULL);
    assert_false(r.calibrated);
    assert_int_equal(r.outcome, QUALITY_PASS);
    assert_string_equal(r.reason, "");
}

static void verdict__follows_the_limits(void **state)
{
    (void)state;
    static const struct {
        double figure;
        enum quality_outcome expected;
    } cases[] = {{0.9, QUALITY_PASS}, {1.1, QUALITY_MARK}, {2.1, QUALITY_REFUSE}};
    struct quality_gate *g = parsed("limit structure 1 2\nlimit unlike 1 2\n");
    for (size_t i = 0; i < 3; i++) {
        struct quality_report r;
        quality_begin(&r, g);
        r.figure[QUALITY_STRUCTURE] = cases[i].figure;
        quality_judge(&r, g);
        assert_int_equal(r.outcome, cases[i].expected);
        assert_true((r.reason[0] != '\0') == (cases[i].expected != QUALITY_PASS));
        /* every feature as far from the mean: so far is the distance */
        float f[2][QUALITY_FEATURES];
        for (int k = 0; k < QUALITY_FEATURES; k++)
            f[0][k] = f[1][k] = (float)cases[i].figure;
        quality_begin(&r, g);
        quality_input(&r, g, f, 2);
        assert_float_equal(r.figure[QUALITY_UNLIKE], cases[i].figure, 1e-6);
        assert_int_equal(r.outcome, cases[i].expected);
    }
    free(g);
}

static void verdict__names_what_it_looks_like_first(void **state)
{
    (void)state;
    gate("limit unlike 1 2\n");
    add("class turned-left 3 4 %d 1", QUALITY_FEATURES);
    add_numbers("", "0", QUALITY_FEATURES - 1);
    struct quality_gate *g = NULL;
    struct quality_report r;
    float f[1][QUALITY_FEATURES];
    assert_int_equal(quality_gate_parse(gate_text, &g, NULL), 0);
    for (int k = 0; k < QUALITY_FEATURES; k++)
        f[0][k] = 5;
    quality_begin(&r, g);
    quality_input(&r, g, f, 1);
    assert_int_equal(r.outcome, QUALITY_REFUSE);
    assert_string_equal(r.reason, "the images look turned left (5, limit 4)");
    f[0][0] = 3.5f; /* a mark gives way to a refusal */
    quality_begin(&r, g);
    quality_input(&r, g, f, 1);
    assert_int_equal(r.outcome, QUALITY_REFUSE);
    assert_non_null(strstr(r.reason, "unlike"));
    free(g);
}

static void verdict__looks_at_the_field_of_view_and_the_orientation(void **state)
{
    (void)state;
    static const struct {
        struct quality_view view;
        const char *reason; /* NULL: passes */
    } cases[] = {
        {{300, 250, "PF"}, NULL},     {{300, 250, NULL}, NULL},     {{0, 0, NULL}, NULL},
        {{300, 150, "PF"}, "mm"},     {{500, 250, "PF"}, "mm"},     {{300, 250, "FP"}, "turned"},
        {{300, 250, "AF"}, "turned"}, {{300, 250, "PH"}, "turned"},
    };
    struct quality_gate *g = parsed("towards PF\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct quality_report r;
        quality_begin(&r, g);
        quality_view(&r, g, &cases[i].view);
        assert_int_equal(r.outcome, cases[i].reason != NULL ? QUALITY_REFUSE : QUALITY_PASS);
        if (cases[i].reason != NULL)
            assert_non_null(strstr(r.reason, cases[i].reason));
    }
    free(g);
}

static void slices__are_those_around_the_middle(void **state)
{
    (void)state;
    int out[QUALITY_SLICES_MAX];
    assert_int_equal(quality_slices(1, out), 1);
    assert_int_equal(out[0], 0);
    assert_int_equal(quality_slices(2, out), 2);
    assert_int_equal(quality_slices(3, out), 3);
    assert_int_equal(quality_slices(15, out), 3);
    assert_true(out[0] == 5 && out[1] == 7 && out[2] == 9);
    for (int n = 1; n < 200; n++) {
        int count = quality_slices(n, out);
        for (int i = 0; i < count; i++)
            assert_true(out[i] >= 0 && out[i] < n && (i == 0 || out[i] > out[i - 1]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate__reads_what_it_says),
        cmocka_unit_test(gate__refuses_what_it_does_not_know),
        cmocka_unit_test(gate__cut_anywhere_is_refused),
        cmocka_unit_test(gate__takes_twelve_classes_and_no_more),
        cmocka_unit_test(row__is_made_of_each_kind_of_value),
        cmocka_unit_test(noise__is_the_median_of_all_answers),
        cmocka_unit_test(voids__are_those_of_every_place),
        cmocka_unit_test(features__say_where_and_which_way),
        cmocka_unit_test(features__tell_noise_and_voids),
        cmocka_unit_test(features__of_a_flat_image_and_of_a_ramp_are_known),
        cmocka_unit_test(features__of_anything_are_finite),
        cmocka_unit_test(structure__counts_edges_not_contrast),
        cmocka_unit_test(downsampled__is_the_source_or_is_not),
        cmocka_unit_test(second_opinion__comes_back_to_its_place),
        cmocka_unit_test(disagreement__has_a_worst_block),
        cmocka_unit_test(disagreement__is_that_with_what_is_brought_back),
        cmocka_unit_test(verdict__without_a_gate_passes),
        cmocka_unit_test(verdict__follows_the_limits),
        cmocka_unit_test(verdict__names_what_it_looks_like_first),
        cmocka_unit_test(verdict__looks_at_the_field_of_view_and_the_orientation),
        cmocka_unit_test(slices__are_those_around_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
