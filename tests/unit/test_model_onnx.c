/*
 * test_model_onnx.c - the reader on models built byte by byte: what it takes, what it refuses and
 * whether the reason names the place
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "model/onnx.h"
#include "model/passes.h"
#include "tests/unit/onnx_bytes.h"

/* --- models made by hand -----------------------------------------------------------------------
 */

/* A float tensor type with dimensions; 0 is an open one. */
static void value_info(struct out *graph, unsigned field, const char *name, int rank,
                       const int64_t *dim, int type)
{
    struct out info = {0}, shape = {0}, tensor = {0}, proto = {0};
    for (int i = 0; i < rank; i++) {
        struct out d = {0};
        if (dim[i] != 0)
            number(&d, 1, (uint64_t)dim[i]);
        message(&shape, 1, &d);
    }
    number(&tensor, 1, (uint64_t)type);
    message(&tensor, 2, &shape);
    message(&proto, 1, &tensor);
    text(&info, 1, name);
    message(&info, 2, &proto);
    message(graph, field, &info);
}

static void node(struct out *graph, const char *kind, const char *in, const char *out,
                 const struct out *attribute)
{
    struct out n = {0};
    text(&n, 1, in);
    text(&n, 2, out);
    text(&n, 4, kind);
    if (attribute != NULL)
        message(&n, 5, attribute);
    message(graph, 1, &n);
}

static void floats(struct out *graph, const char *name, int64_t dim, const void *raw, size_t n)
{
    struct out t = {0};
    number(&t, 1, (uint64_t)dim);
    number(&t, 2, 1);
    text(&t, 8, name);
    bytes(&t, 9, raw, n);
    message(graph, 5, &t);
}

static void ends(struct out *graph)
{
    const int64_t dim[] = {1, 2};
    value_info(graph, 11, "x", 2, dim, 1);
    value_info(graph, 12, "y", 2, dim, 1);
}

static void model(struct out *o, const struct out *graph, int ir, int opset)
{
    struct out set = {0};
    number(&set, 2, (uint64_t)opset);
    number(o, 1, (uint64_t)ir);
    message(o, 7, graph);
    message(o, 8, &set);
}

static int parse(const struct out *o, struct graph **g, struct err *e)
{
    /* A copy of its own size, so that a sanitizer sees a byte read too far. */
    uint8_t *exact = malloc(o->n ? o->n : 1);
    memcpy(exact, o->bytes, o->n);
    int rc = onnx_parse(exact, (int64_t)o->n, NULL, g, e);
    if (rc != 0)
        assert_null(*g);
    free(exact);
    return rc;
}

static void assert_refused(const struct out *o, int code, const char *reason)
{
    struct graph *g;
    struct err e = {0};
    assert_int_equal(parse(o, &g, &e), code);
    if (strstr(e.text, reason) == NULL)
        fail_msg("'%s' does not say '%s'", e.text, reason);
}

static void assert_graph_refused(const struct out *graph, int code, const char *reason)
{
    struct out o = {0};
    model(&o, graph, 8, 17);
    assert_refused(&o, code, reason);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void onnx__reads_a_small_model_and_ignores_unknown_fields(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    struct graph *g;
    struct err e = {0};
    node(&graph, "Relu", "x", "y", NULL);
    text(&graph, 99, "from the future");
    ends(&graph);
    number(&o, 77, 5);
    model(&o, &graph, 8, 17);
    assert_int_equal(parse(&o, &g, &e), 0);
    assert_int_equal(g->n_nodes, 1);
    assert_int_equal(g->node[0].op, OP_ACT);
    assert_int_equal(g->opset, 17);
    assert_string_equal(g->value[g->input[0]].name, "x");
    graph_free(g);
}

static void onnx__refuses_every_truncation_of_a_model(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    struct graph *g;
    float w[2] = {1, 2};
    ends(&graph);
    floats(&graph, "w", 2, w, sizeof w);
    node(&graph, "Relu", "x", "y", NULL);
    model(&o, &graph, 8, 17);
    for (size_t n = 0; n < o.n; n++) {
        struct out cut = o;
        struct err e = {0};
        cut.n = n;
        int rc = parse(&cut, &g, &e);
        assert_true(rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
        assert_true(e.text[0] != '\0');
    }
}

static void onnx__survives_every_bit_flip_of_a_model(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    float w[2] = {1, 2};
    ends(&graph);
    floats(&graph, "w", 2, w, sizeof w);
    node(&graph, "Relu", "x", "y", NULL);
    model(&o, &graph, 8, 17);
    for (size_t bit = 0; bit < o.n * 8; bit++) {
        struct out flipped = o;
        struct graph *g;
        struct err e = {0};
        flipped.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (parse(&flipped, &g, &e) == 0)
            graph_free(g);
        else
            assert_true(e.code < 0 && e.text[0] != '\0');
    }
}

static void onnx__refuses_versions_it_does_not_know(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    node(&graph, "Relu", "x", "y", NULL);
    ends(&graph);
    model(&o, &graph, 8, 6);
    assert_refused(&o, ERR_UNSUPPORTED, "opset 6; supported are 7 to 21");
    o.n = 0;
    model(&o, &graph, 8, 22);
    assert_refused(&o, ERR_UNSUPPORTED, "opset 22");
    o.n = 0;
    model(&o, &graph, 2, 17);
    assert_refused(&o, ERR_UNSUPPORTED, "IR version 2");
    o.n = 0;
    model(&o, &graph, 11, 17);
    assert_refused(&o, ERR_UNSUPPORTED, "IR version 11");
    o.n = 0;
    number(&o, 1, 8);
    message(&o, 7, &graph);
    assert_refused(&o, ERR_INVALID, "no opset");
}

static void onnx__names_the_node_that_closes_a_cycle(void **state)
{
    (void)state;
    struct out graph = {0};
    ends(&graph);
    node(&graph, "Relu", "b", "a", NULL);
    node(&graph, "Tanh", "a", "b", NULL);
    node(&graph, "Relu", "b", "y", NULL);
    assert_graph_refused(&graph, ERR_INVALID, "node 'a' (Relu): its input 'b' is made only later");
}

static void onnx__names_an_input_that_nothing_makes(void **state)
{
    (void)state;
    struct out graph = {0};
    ends(&graph);
    node(&graph, "Relu", "ghost", "y", NULL);
    assert_graph_refused(&graph, ERR_INVALID, "its input 'ghost' does not exist");
}

static void onnx__refuses_names_defined_twice(void **state)
{
    (void)state;
    struct out graph = {0}, tensors = {0}, inputs = {0};
    float w = 1;
    ends(&graph);
    node(&graph, "Relu", "x", "y", NULL);
    node(&graph, "Tanh", "x", "y", NULL);
    assert_graph_refused(&graph, ERR_INVALID, "'y': the name is defined twice");
    ends(&tensors);
    node(&tensors, "Relu", "x", "y", NULL);
    floats(&tensors, "w", 1, &w, sizeof w);
    floats(&tensors, "w", 1, &w, sizeof w);
    assert_graph_refused(&tensors, ERR_INVALID, "tensor 'w': the name is defined twice");
    const int64_t dim[] = {1, 2};
    value_info(&inputs, 11, "x", 2, dim, 1);
    ends(&inputs);
    node(&inputs, "Relu", "x", "y", NULL);
    assert_graph_refused(&inputs, ERR_INVALID, "'x': the name is defined twice");
}

static void onnx__refuses_operators_and_attributes_by_name(void **state)
{
    (void)state;
    struct out graph = {0}, again = {0}, typed = {0}, a = {0}, wrong = {0};
    ends(&graph);
    node(&graph, "Loop", "x", "y", NULL);
    assert_graph_refused(&graph, ERR_UNSUPPORTED, "node 'y' (Loop): operator Loop");
    ends(&again);
    text(&a, 1, "speed");
    number(&a, 3, 9);
    number(&a, 20, 2);
    node(&again, "Relu", "x", "y", &a);
    assert_graph_refused(&again, ERR_UNSUPPORTED, "node 'y' (Relu): attribute 'speed'");
    ends(&typed);
    text(&wrong, 1, "alpha");
    number(&wrong, 3, 9);
    number(&wrong, 20, 2);
    node(&typed, "LeakyRelu", "x", "y", &wrong);
    assert_graph_refused(&typed, ERR_INVALID, "attribute 'alpha' is int, must be float");
}

static void onnx__refuses_subgraphs_and_other_domains(void **state)
{
    (void)state;
    struct out graph = {0}, other = {0}, a = {0}, n = {0};
    ends(&graph);
    text(&a, 1, "body");
    bytes(&a, 6, "", 0);
    number(&a, 20, 5);
    node(&graph, "Relu", "x", "y", &a);
    assert_graph_refused(&graph, ERR_UNSUPPORTED, "attribute 'body' holds a subgraph");
    ends(&other);
    text(&n, 1, "x");
    text(&n, 2, "y");
    text(&n, 4, "Relu");
    text(&n, 7, "com.example");
    message(&other, 1, &n);
    assert_graph_refused(&other, ERR_UNSUPPORTED, "its domain 'com.example'");
}

static void onnx__refuses_tensors_that_contradict_their_shape(void **state)
{
    (void)state;
    struct out few = {0}, huge = {0}, negative = {0}, deep = {0}, typed = {0}, t = {0};
    float w[2] = {1, 2};
    ends(&few);
    floats(&few, "w", 3, w, sizeof w);
    assert_graph_refused(&few, ERR_INVALID, "tensor 'w' has 8 bytes of data, its shape needs 12");
    ends(&huge);
    floats(&huge, "w", (int64_t)1 << 31, w, sizeof w);
    assert_graph_refused(&huge, ERR_LIMIT, "tensor 'w' has more than");
    ends(&negative);
    floats(&negative, "w", -1, w, sizeof w);
    assert_graph_refused(&negative, ERR_INVALID, "tensor 'w' has a dimension that is negative");
    ends(&deep);
    for (int i = 0; i < 9; i++)
        number(&t, 1, 1);
    number(&t, 2, 1);
    text(&t, 8, "w");
    message(&deep, 5, &t);
    assert_graph_refused(&deep, ERR_LIMIT, "tensor 'w' has more than 8 dimensions");
    t.n = 0;
    number(&t, 2, 8);
    text(&t, 8, "w");
    ends(&typed);
    message(&typed, 5, &t);
    assert_graph_refused(&typed, ERR_UNSUPPORTED, "tensor 'w' has data type string");
}

static void onnx__overflowing_shapes_do_not_wrap(void **state)
{
    (void)state;
    struct out graph = {0}, t = {0};
    ends(&graph);
    for (int i = 0; i < 3; i++)
        number(&t, 1, (uint64_t)1 << 31); /* 2^93 elements */
    number(&t, 2, 1);
    text(&t, 8, "w");
    message(&graph, 5, &t);
    assert_graph_refused(&graph, ERR_LIMIT, "tensor 'w' has more than");
}

static void onnx__external_data_is_refused_without_a_folder(void **state)
{
    (void)state;
    struct out graph = {0}, t = {0}, entry = {0};
    ends(&graph);
    number(&t, 1, 2);
    number(&t, 2, 1);
    text(&t, 8, "w");
    text(&entry, 1, "location");
    text(&entry, 2, "weights.bin");
    message(&t, 13, &entry);
    number(&t, 14, 1);
    message(&graph, 5, &t);
    assert_graph_refused(&graph, ERR_REFUSED, "tensor 'w' lies in another file");
}

static void compile__refuses_weights_that_are_not_finite(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0}, n = {0};
    struct graph *g;
    struct plan *plan;
    struct err e = {0};
    uint32_t w[2] = {0x3f800000, 0x7fc00000};
    struct shape shape = {.rank = 2, .dim = {1, 2}};
    ends(&graph);
    floats(&graph, "w", 2, w, sizeof w);
    text(&n, 1, "x");
    text(&n, 1, "w");
    text(&n, 2, "y");
    text(&n, 4, "Mul");
    message(&graph, 1, &n);
    model(&o, &graph, 8, 17);
    /* The graph reads its constants from these bytes. */
    assert_int_equal(onnx_parse(o.bytes, (int64_t)o.n, NULL, &g, &e), 0);
    assert_int_equal(engine_compile(engine_find("ref"), g, &shape, NULL, &plan, &e), ERR_NUMERIC);
    assert_non_null(strstr(e.text, "'w'"));
    assert_null(plan);
    graph_free(g);
}

static void run__names_the_input_or_the_first_layer_that_is_not_finite(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    struct graph *g;
    struct plan *plan;
    struct workspace *work;
    struct err e = {0};
    struct shape shape = {.rank = 2, .dim = {1, 2}};
    float in[2] = {1, 89}, out[2];
    const float *ins[] = {in};
    float *outs[] = {out};
    ends(&graph);
    node(&graph, "Exp", "x", "a", NULL);
    node(&graph, "Exp", "a", "b", NULL);
    node(&graph, "Neg", "b", "y", NULL);
    model(&o, &graph, 8, 17);
    assert_int_equal(onnx_parse(o.bytes, (int64_t)o.n, NULL, &g, &e), 0);
    assert_int_equal(engine_compile(engine_find("ref"), g, &shape, NULL, &plan, &e), 0);
    assert_int_equal(engine_workspace_new(plan, &work, &e), 0);
    assert_int_equal(engine_run(plan, work, ins, outs, &e), ERR_NUMERIC);
    assert_non_null(strstr(e.text, "node 'a' (Exp)"));
    uint32_t nan = 0x7fc00000;
    memcpy(&in[1], &nan, sizeof nan);
    assert_int_equal(engine_run(plan, work, ins, outs, &e), ERR_NUMERIC);
    assert_non_null(strstr(e.text, "input 'x'"));
    in[1] = 0.5f;
    assert_int_equal(engine_run(plan, work, ins, outs, &e), 0);
    engine_workspace_free(work);
    engine_plan_free(plan);
    graph_free(g);
}

static void specialise__refuses_shapes_that_do_not_fit_and_networks_too_large(void **state)
{
    (void)state;
    struct out graph = {0}, o = {0};
    struct graph *g, *lowered;
    struct err e = {0};
    struct shape wrong = {.rank = 2, .dim = {1, 3}}, large = {.rank = 2, .dim = {1, 2}};
    ends(&graph);
    node(&graph, "Relu", "x", "y", NULL);
    model(&o, &graph, 8, 17);
    assert_int_equal(onnx_parse(o.bytes, (int64_t)o.n, NULL, &g, &e), 0);
    assert_int_equal(graph_lower(g, &wrong, 1 << 20, &lowered, NULL, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "input 'x' must be 1x2, is 1x3"));
    assert_int_equal(graph_lower(g, &large, 7, &lowered, NULL, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "node 'y' (Activation)"));
    assert_int_equal(graph_lower(g, &large, 8, &lowered, NULL, &e), 0);
    graph_free(lowered);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onnx__reads_a_small_model_and_ignores_unknown_fields),
        cmocka_unit_test(onnx__refuses_every_truncation_of_a_model),
        cmocka_unit_test(onnx__survives_every_bit_flip_of_a_model),
        cmocka_unit_test(onnx__refuses_versions_it_does_not_know),
        cmocka_unit_test(onnx__names_the_node_that_closes_a_cycle),
        cmocka_unit_test(onnx__names_an_input_that_nothing_makes),
        cmocka_unit_test(onnx__refuses_names_defined_twice),
        cmocka_unit_test(onnx__refuses_operators_and_attributes_by_name),
        cmocka_unit_test(onnx__refuses_subgraphs_and_other_domains),
        cmocka_unit_test(onnx__refuses_tensors_that_contradict_their_shape),
        cmocka_unit_test(onnx__overflowing_shapes_do_not_wrap),
        cmocka_unit_test(onnx__external_data_is_refused_without_a_folder),
        cmocka_unit_test(compile__refuses_weights_that_are_not_finite),
        cmocka_unit_test(run__names_the_input_or_the_first_layer_that_is_not_finite),
        cmocka_unit_test(specialise__refuses_shapes_that_do_not_fit_and_networks_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
