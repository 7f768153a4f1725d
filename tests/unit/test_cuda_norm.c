/* Instance norm as the CUDA engine computes it, by its twin on the host, against plain doubles. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/engine_cuda.h"
#include "model/engine.h"
#include "node/base/err.h"
#include "tests/unit/small_graph.h"

static uint32_t seed;
static float noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}

#define CHANNELS_MAX 20
#define EPSILON      1e-5

/* image -> norm -> result, of channels c; what S and B hold. */
static struct graph *network(int64_t c, int64_t h, int64_t w, float *gamma, float *beta)
{
    struct graph *g = graph_new();
    assert_non_null(g);
    const struct shape table = {.rank = 1, .dim = {c}};
    int x = graph_add_value(g, "image", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {-1, c, h, w}};
    for (int64_t i = 0; i < c; i++) {
        gamma[i] = 1 + 0.5f * noise();
        beta[i] = noise();
    }
    int s = graph_add_value(g, "gamma", DTYPE_F32), b = graph_add_value(g, "beta", DTYPE_F32);
    assert_int_equal(graph_set_f32(g, s, &table, gamma), 0);
    assert_int_equal(graph_set_f32(g, b, &table, beta), 0);
    int y = graph_add_value(g, "result", DTYPE_F32);
    g->value[y].shape.rank = -1;
    struct node *n = graph_add_node(g, OP_INSTANCE_NORM, "norm", 3, 1);
    assert_non_null(n);
    n->in[0] = x;
    n->in[1] = s;
    n->in[2] = b;
    n->out[0] = y;
    n->norm.epsilon = EPSILON;
    n->opset = 17;
    return graph_of(g, x, y);
}

static void run(const struct graph *g, const struct shape *s, enum engine_precision precision,
                const float *in, float *out)
{
    const struct engine_options o = {.precision = precision};
    struct plan *plan;
    struct workspace *work;
    struct err e = {0};
    assert_int_equal(engine_compile(&engine_cuda_host, g, s, &o, &plan, &e), 0);
    assert_int_equal(engine_workspace_new(plan, &work, &e), 0);
    assert_int_equal(engine_run(plan, work, &in, &out, &e), 0);
    engine_workspace_free(work);
    engine_plan_free(plan);
}

/* Numbers of every image and channel around a mean of its own, and what norm makes of them. */
static void expect(const struct shape *s, double mean, bool half, const float *gamma,
                   const float *beta, float *x, double *y)
{
    int64_t pixels = s->dim[2] * s->dim[3];
    for (int64_t i = 0; i < s->dim[0] * s->dim[1]; i++, x += pixels, y += pixels) {
        int64_t c = i % s->dim[1];
        float deviation = 1 + 0.2f * noise(), centre = (float)(mean * (1 + 0.1 * noise()));
        double sum = 0, square = 0;
        for (int64_t k = 0; k < pixels; k++) {
            x[k] = centre + deviation * noise();
            double v = half ? (double)(_Float16)x[k] : (double)x[k];
            sum += v;
        }
        for (int64_t k = 0; k < pixels; k++) {
            double v = half ? (double)(_Float16)x[k] : (double)x[k];
            square += (v - sum / (double)pixels) * (v - sum / (double)pixels);
        }
        for (int64_t k = 0; k < pixels; k++) {
            double v = half ? (double)(_Float16)x[k] : (double)x[k];
            y[k] = (v - sum / (double)pixels) / sqrt(square / (double)pixels + EPSILON) * gamma[c] +
                   beta[c];
        }
    }
}

/* Rows and columns such that runs, rounds and chunks are full, cut short and many. */
static const int64_t sides[][2] = {{1, 1},   {1, 8},   {1, 16},  {1, 17},   {7, 9},
                                   {13, 29}, {16, 16}, {61, 47}, {163, 151}};
#define SIDES ((int)(sizeof sides / sizeof *sides))

static void norm__agrees_with_doubles_also_far_from_zero(void **state)
{
    static const struct {
        double mean, tolerance;
        bool half;
    } kinds[] = {{0, 2e-6, false}, {900, 1.1e-4, false}, {0, 2.1e-3, true}};
    float gamma[CHANNELS_MAX], beta[CHANNELS_MAX];
    (void)state;
    seed = 3;
    for (int i = 0; i < SIDES; i++)
        for (int64_t c = 3; c <= 20; c += 17)
            for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                const struct shape s = {.rank = 4, .dim = {3, c, sides[i][0], sides[i][1]}};
                int64_t n = shape_count(&s);
                float *x = malloc(sizeof *x * (size_t)n), *y = malloc(sizeof *y * (size_t)n);
                double *want = malloc(sizeof *want * (size_t)n), worst = 0;
                assert_true(x && y && want);
                struct graph *g = network(c, sides[i][0], sides[i][1], gamma, beta);
                expect(&s, kinds[k].mean, kinds[k].half, gamma, beta, x, want);
                run(g, &s, kinds[k].half ? ENGINE_F16 : ENGINE_F32, x, y);
                for (int64_t j = 0; j < n; j++)
                    worst = fmax(worst, fabs((double)y[j] - want[j]));
                if (!(worst <= kinds[k].tolerance))
                    fail_msg("%dx%d, %d channels, mean %g: wrong by %g", (int)sides[i][0],
                             (int)sides[i][1], (int)c, kinds[k].mean, worst);
                free(x);
                free(y);
                free(want);
                graph_free(g);
            }
}

static void norm__of_an_image_has_the_same_bits_in_any_batch(void **state)
{
    float gamma[CHANNELS_MAX], beta[CHANNELS_MAX];
    (void)state;
    seed = 4;
    for (int i = 0; i < SIDES; i++) {
        const struct shape one = {.rank = 4, .dim = {1, 20, sides[i][0], sides[i][1]}};
        const struct shape all = {.rank = 4, .dim = {3, 20, sides[i][0], sides[i][1]}};
        int64_t n = shape_count(&one);
        float *x = malloc(3 * sizeof *x * (size_t)n), *y = malloc(3 * sizeof *y * (size_t)n);
        float *alone = malloc(sizeof *alone * (size_t)n);
        assert_true(x && y && alone);
        struct graph *g = network(20, sides[i][0], sides[i][1], gamma, beta);
        for (int64_t k = 0; k < 3 * n; k++)
            x[k] = noise();
        run(g, &all, ENGINE_F32, x, y);
        for (int image = 0; image < 3; image++) {
            run(g, &one, ENGINE_F32, x + image * n, alone);
            assert_memory_equal(y + image * n, alone, sizeof *alone * (size_t)n);
        }
        free(x);
        free(y);
        free(alone);
        graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm__agrees_with_doubles_also_far_from_zero),
        cmocka_unit_test(norm__of_an_image_has_the_same_bits_in_any_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
