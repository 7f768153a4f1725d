/*
 * test_model_onnx_file.c - a model on disk: read in parts, the same as from memory, and an error
 * when it is cut
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "model/onnx.h"
#include "tests/unit/onnx_bytes.h"

#define ELEMENTS 1500 /* of the weights: more bytes than are copied */

/* --- models made by hand -----------------------------------------------------------------------
 */

static void value_info(struct out *graph, unsigned field, const char *name)
{
    struct out dim = {0}, shape = {0}, tensor = {0}, type = {0}, info = {0};
    number(&dim, 1, ELEMENTS);
    message(&shape, 1, &dim);
    number(&tensor, 1, 1);
    message(&tensor, 2, &shape);
    message(&type, 1, &tensor);
    bytes(&info, 1, name, 1);
    message(&info, 2, &type);
    message(graph, field, &info);
}

/* y = x + w; data: the fields of w that hold its elements. */
static void model(struct out *o, const struct out *data)
{
    struct out tensor = {0}, node = {0}, graph = {0}, set = {0};
    number(&tensor, 1, ELEMENTS);
    number(&tensor, 2, 1);
    bytes(&tensor, 8, "w", 1);
    memcpy(tensor.bytes + tensor.n, data->bytes, data->n);
    tensor.n += data->n;
    bytes(&node, 1, "x", 1);
    bytes(&node, 1, "w", 1);
    bytes(&node, 2, "y", 1);
    bytes(&node, 4, "Add", 3);
    message(&graph, 1, &node);
    message(&graph, 5, &tensor);
    value_info(&graph, 11, "x");
    value_info(&graph, 12, "y");
    number(&set, 2, 17);
    number(o, 1, 8);
    message(o, 7, &graph);
    message(o, 8, &set);
}

static float weight(int i)
{
    return (float)(i % 97) - 40;
}

static void weights(float w[ELEMENTS])
{
    for (int i = 0; i < ELEMENTS; i++)
        w[i] = weight(i);
}

static const char *save(const struct out *o)
{
    static char path[] = "/tmp/test_model_onnx_file.XXXXXX";
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, o->bytes, o->n), o->n);
    close(fd);
    return path;
}

static int open_saved(const struct out *o, struct graph **g, struct err *e)
{
    const char *path = save(o);
    int rc = onnx_open(path, NULL, g, e);
    unlink(path);
    return rc;
}

static int find_weights(const struct graph *g)
{
    for (int i = 0; i < g->n_values; i++)
        if (strcmp(g->value[i].name, "w") == 0)
            return i;
    fail_msg("the model has no w");
    return -1;
}

static void assert_weights(const struct out *data)
{
    static float got[ELEMENTS];
    struct out o = {0};
    struct graph *g;
    struct err e = {0};
    model(&o, data);
    if (open_saved(&o, &g, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(constant_load_f32(&g->value[find_weights(g)], 0, ELEMENTS, got, &e), 0);
    for (int i = 0; i < ELEMENTS; i++)
        if (got[i] != weight(i))
            fail_msg("element %d is %g", i, (double)got[i]);
    assert_int_equal(constant_load_f32(&g->value[find_weights(g)], 1234, 1, got, &e), 0);
    assert_true(got[0] == weight(1234));
    graph_free(g);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void onnx_file__gives_weights_however_they_are_stored(void **state)
{
    (void)state;
    float w[ELEMENTS];
    struct out raw = {0}, packed = {0}, pieces = {0};
    weights(w);
    bytes(&raw, 9, w, sizeof w);
    assert_weights(&raw);
    bytes(&packed, 4, w, sizeof w);
    assert_weights(&packed);
    /* one by one, then a piece that stays in the file, then a short one */
    for (int i = 0; i < 3; i++) {
        varint(&pieces, 4 << 3 | 5);
        memcpy(pieces.bytes + pieces.n, &w[i], sizeof w[i]);
        pieces.n += sizeof w[i];
    }
    bytes(&pieces, 4, w + 3, 1400 * sizeof *w);
    bytes(&pieces, 4, w + 1403, (ELEMENTS - 1403) * sizeof *w);
    assert_weights(&pieces);
}

static void onnx_file__counts_floats_in_pieces(void **state)
{
    (void)state;
    float w[ELEMENTS + 1]; /* of the last a part is written */
    struct out few = {0}, cut = {0}, o = {0};
    struct graph *g;
    struct err e = {0};
    weights(w);
    w[ELEMENTS] = 0;
    bytes(&few, 4, w, (ELEMENTS - 2) * sizeof *w);
    bytes(&few, 4, w, sizeof *w);
    model(&o, &few);
    assert_int_equal(open_saved(&o, &g, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "tensor 'w' has 1499 elements, its shape needs 1500"));
    o.n = 0;
    bytes(&cut, 4, w, ELEMENTS * sizeof *w + 2);
    model(&o, &cut);
    assert_int_equal(open_saved(&o, &g, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "packed numbers are cut"));
}

/* Cut, or with a bit flipped, it is what its bytes in memory are. */
static void onnx_file__is_taken_or_refused_as_its_bytes_are(void **state)
{
    (void)state;
    float w[ELEMENTS];
    struct out data = {0}, o = {0};
    weights(w);
    bytes(&data, 9, w, sizeof w);
    model(&o, &data);
    const char *path = save(&o);
    for (size_t bit = 0; bit < o.n * 8; bit += bit == 100 * 8 ? (o.n - 200) * 8 : 1) {
        struct out flipped = o;
        struct graph *from_file, *from_memory;
        struct err a = {0}, b = {0};
        flipped.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(flipped.bytes, 1, o.n, f), o.n);
        fclose(f);
        int rc = onnx_parse(flipped.bytes, (int64_t)o.n, NULL, &from_memory, &b);
        if ((onnx_open(path, NULL, &from_file, &a) == 0) != (rc == 0))
            fail_msg("bit %zu: %s, in memory %s", bit, a.text, b.text);
        graph_free(from_file);
        graph_free(from_memory);
    }
    for (size_t n = o.n - 1; n > 0; n = n > o.n - 100 || n < 100 ? n - 1 : n / 2) {
        struct graph *g;
        struct err e = {0};
        assert_int_equal(truncate(path, (off_t)n), 0);
        int rc = onnx_open(path, NULL, &g, &e);
        assert_true(rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
    }
    unlink(path);
}

static void onnx_file__cut_while_it_is_used_is_an_error(void **state)
{
    (void)state;
    static const char *const engines[] = {"ref", "cpu"};
    float w[ELEMENTS];
    struct out data = {0}, o = {0};
    struct shape shape = {.rank = 1, .dim = {ELEMENTS}};
    weights(w);
    bytes(&data, 9, w, sizeof w);
    model(&o, &data);
    for (int i = 0; i < 2; i++) {
        struct graph *g;
        struct plan *plan;
        struct err e = {0};
        const char *path = save(&o);
        assert_int_equal(onnx_open(path, NULL, &g, &e), 0);
        assert_int_equal(truncate(path, 1000), 0);
        assert_int_equal(engine_compile(engine_find(engines[i]), g, &shape, NULL, &plan, &e),
                         ERR_IO);
        assert_non_null(strstr(e.text, "the data of tensor 'w' end early"));
        graph_free(g);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onnx_file__gives_weights_however_they_are_stored),
        cmocka_unit_test(onnx_file__counts_floats_in_pieces),
        cmocka_unit_test(onnx_file__is_taken_or_refused_as_its_bytes_are),
        cmocka_unit_test(onnx_file__cut_while_it_is_used_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
