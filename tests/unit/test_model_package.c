/* test_model_package.c - NumPy files, and shapes that a model takes */
#include <math.h>
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

#include "model/npy.h"
#include "model/package.h"

static char path[64];

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/spinenode_npy_XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A file of format 1.0 with this dictionary and n floats. */
static void write_npy(const char *header, int n)
{
    char file[1024] = "\x93NUMPY\x01";
    size_t length = strlen(header);
    file[8] = (char)length;
    memcpy(file + 10, header, length);
    write_bytes(file, 10 + length + (size_t)n * sizeof(float));
}

static void assert_unreadable(int code, const char *reason)
{
    struct npy a = {.data = NULL};
    struct err e = {0};
    assert_int_equal(npy_read(path, 1 << 20, &a, &e), code);
    if (strstr(e.text, reason) == NULL)
        fail_msg("'%s' does not say '%s'", e.text, reason);
    assert_null(a.data);
}

static void npy__reads_back_what_it_wrote(void **state)
{
    (void)state;
    struct shape s = {.rank = 3, .dim = {1, 2, 3}}, line = {.rank = 1, .dim = {6}};
    const float data[6] = {1, -2.5f, 3e-20f, 0, 5, 1e30f};
    struct npy a;
    struct err e = {0};
    assert_int_equal(npy_write(path, &s, data, &e), 0);
    assert_int_equal(npy_read(path, 24, &a, &e), 0);
    assert_true(shape_equal(&s, &a.shape));
    assert_memory_equal(a.data, data, sizeof data);
    npy_fini(&a);
    assert_int_equal(npy_read(path, 23, &a, &e), ERR_LIMIT);
    assert_int_equal(npy_write(path, &line, data, &e), 0);
    assert_int_equal(npy_read(path, 24, &a, &e), 0);
    assert_true(shape_equal(&line, &a.shape));
    npy_fini(&a);
}

static void npy__refuses_what_is_not_float32_in_c_order(void **state)
{
    (void)state;
    write_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", 4);
    assert_unreadable(ERR_UNSUPPORTED, "float32");
    write_npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", 2);
    assert_unreadable(ERR_UNSUPPORTED, "float32");
    write_npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }\n", 2);
    assert_unreadable(ERR_UNSUPPORTED, "Fortran");
}

static void npy__refuses_sizes_that_lie(void **state)
{
    (void)state;
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 2);
    assert_unreadable(ERR_INVALID, "8 bytes of data, its shape needs 12");
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 2);
    assert_unreadable(ERR_INVALID, "its shape needs 4");
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }\n", 2);
    assert_unreadable(ERR_LIMIT, "more than");
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n", 2);
    assert_unreadable(ERR_INVALID, "shape is damaged");
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }\n", 1);
    assert_unreadable(ERR_INVALID, "more than 8 dimensions");
    write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }\n", 0);
    assert_unreadable(ERR_INVALID, "no elements");
}

static void npy__refuses_what_is_cut_or_no_such_file(void **state)
{
    (void)state;
    write_bytes("\x93NUM", 4);
    assert_unreadable(ERR_INVALID, "ends early");
    write_bytes("a text that is no array", 23);
    assert_unreadable(ERR_INVALID, "not a NumPy file");
    write_bytes("\x93NUMPY\x01\x00\xff\xff", 10);
    assert_unreadable(ERR_LIMIT, "header is longer");
    write_npy("{'descr': '<f4', 'shape': (1,), }\n", 1);
    assert_unreadable(ERR_INVALID, "header is damaged");
}

static void package__words_parse_back_to_themselves(void **state)
{
    (void)state;
    for (int i = 0; i < TASK_COUNT; i++)
        assert_int_equal(model_task_parse(model_task_name((enum model_task)i)), i);
    assert_int_equal(model_task_parse("t1-to-t3"), -1);
}

static void package__rounds_the_source_up_to_what_the_network_takes(void **state)
{
    (void)state;
    struct package any = {.input_slices = 3,
                          .multiple = 32,
                          .rows_min = 64,
                          .rows_max = 600,
                          .columns_min = 64,
                          .columns_max = 600};
    struct shape s;
    struct err e = {0};
    assert_int_equal(package_input_shape(&any, 512, 500, 2, &s, &e), 0);
    assert_true(shape_equal(&s, &(struct shape){.rank = 4, .dim = {2, 3, 512, 512}}));
    assert_int_equal(package_input_shape(&any, 65, 64, 1, &s, &e), 0);
    assert_true(shape_equal(&s, &(struct shape){.rank = 4, .dim = {1, 3, 96, 64}}));
    assert_int_equal(package_input_shape(&any, 63, 64, 1, &s, &e), ERR_REFUSED);
    assert_int_equal(package_input_shape(&any, 64, 601, 1, &s, &e), ERR_REFUSED);
    assert_non_null(strstr(e.text, "64-600 columns, the source has 64 x 601"));
    any.multiple = 0;
    any.grid_rows = 256;
    any.grid_columns = 128;
    assert_int_equal(package_input_shape(&any, 100, 100, 1, &s, &e), 0);
    assert_true(shape_equal(&s, &(struct shape){.rank = 4, .dim = {1, 3, 256, 128}}));
}

static void package__pixel_mm_gives_the_nearest_whole_grid(void **state)
{
    (void)state;
    struct package p = {.name = "m", .multiple = 32};
    int rows = 0, columns = 0;
    struct err e = {0};
    assert_int_equal(package_grid(&p, 3000, 2400, 0, 0, &rows, &columns, &e), 0);
    assert_int_equal(rows, 3000);
    assert_int_equal(columns, 2400);
    p.pixel_mm = 1;
    assert_int_equal(package_grid(&p, 3000, 2400, 0.143, 0.15, &rows, &columns, &e), 0);
    assert_int_equal(rows, 429);
    assert_int_equal(columns, 360);
    assert_int_equal(package_grid(&p, 1, 5, 0.143, 0.143, &rows, &columns, &e), 0);
    assert_int_equal(rows, 1);
    assert_int_equal(columns, 1);
    assert_int_equal(package_grid(&p, 3000, 2400, 0.143, 0, &rows, &columns, &e), ERR_REFUSED);
    assert_non_null(strstr(e.text, "ImagerPixelSpacing"));
    assert_int_equal(package_grid(&p, 3000, 2400, NAN, NAN, &rows, &columns, &e), ERR_REFUSED);
    assert_int_equal(package_grid(&p, 8192, 8192, 50, 50, &rows, &columns, &e), ERR_REFUSED);
    assert_non_null(strstr(e.text, "larger than 65536 pixels"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(npy__reads_back_what_it_wrote, make_path, drop_path),
        cmocka_unit_test_setup_teardown(npy__refuses_what_is_not_float32_in_c_order, make_path,
                                        drop_path),
        cmocka_unit_test_setup_teardown(npy__refuses_sizes_that_lie, make_path, drop_path),
        cmocka_unit_test_setup_teardown(npy__refuses_what_is_cut_or_no_such_file, make_path,
                                        drop_path),
        cmocka_unit_test(package__words_parse_back_to_themselves),
        cmocka_unit_test(package__rounds_the_source_up_to_what_the_network_takes),
        cmocka_unit_test(package__pixel_mm_gives_the_nearest_whole_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
