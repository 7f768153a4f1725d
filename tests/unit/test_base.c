/* test_base.c - errors, buffers, files, digests */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "node/base/json.h"
#include "node/base/log.h"

static void err__context_goes_before_the_cause(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_IO, "disk %d", 7), ERR_IO);
    assert_int_equal(err_context(&e, "while storing"), ERR_IO);
    assert_string_equal(e.text, "while storing: disk 7");
    assert_true(err_is_transient(ERR_IO));
    assert_false(err_is_transient(ERR_PEER_REFUSED));
    assert_string_equal(err_word(ERR_REFUSED), "refused");
}

static void buf__refuses_to_pass_its_maximum_and_keeps_what_it_had(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4);
    buf_puts(&b, "abc");
    buf_puts(&b, "de");
    assert_int_equal(buf_error(&b), ERR_LIMIT);
    assert_string_equal(buf_text(&b), "abc");
    buf_fini(&b);
}

static void buf__json_escapes_quotes_controls_and_broken_utf8(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    json_string(&b, "a\"\\\n\xc3\xa9\xff");
    assert_string_equal(buf_text(&b), "\"a\\\"\\\\\\u000a\xc3\xa9\\ufffd\"");
    buf_fini(&b);
}

static void json__puts_commas_where_they_belong(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    json_open(&b, NULL, '{');
    json_text(&b, "a", "[");
    json_open(&b, "b", '[');
    json_open(&b, NULL, '{');
    json_close(&b, '}');
    json_open(&b, NULL, '{');
    json_moment(&b, "c", 1500);
    json_moment(&b, "d", 0);
    json_close(&b, '}');
    json_close(&b, ']');
    json_real(&b, "e", 0.5);
    json_real(&b, "f", NAN);
    json_bool(&b, "g", true);
    json_int(&b, "h", -7);
    json_close(&b, '}');
    assert_string_equal(buf_text(&b),
                        "{\"a\": \"[\", \"b\": [{}, {\"c\": \"1970-01-01T00:00:01.500Z\", "
                        "\"d\": null}], \"e\": 0.5, \"f\": null, \"g\": true, \"h\": -7}");
    buf_fini(&b);
}

static void file__durable_write_replaces_whole_and_leaves_no_temporary(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-base-XXXXXX", path[PATH_BYTES];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(file_join(path, folder, "f", NULL), 0);
    assert_int_equal(file_write_durable(path, "one", 3, NULL), 0);
    assert_int_equal(file_write_durable(path, "two2", 4, NULL), 0);
    struct buf b;
    buf_init(&b, 10);
    assert_int_equal(file_read(path, &b, NULL), 0);
    assert_string_equal(buf_text(&b), "two2");
    buf_fini(&b);
    buf_init(&b, 3);
    assert_int_equal(file_read(path, &b, NULL), ERR_LIMIT);
    buf_fini(&b);
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* fails if anything else was left */
}

static void file__reads_regular_files_only(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-base-XXXXXX", path[64], link[64];
    struct buf b;
    struct err e;
    buf_init(&b, 100);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read(path, &b, &e), ERR_INVALID); /* nor does it wait */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_read("/dev/zero", &b, &e), ERR_INVALID);
    assert_int_equal(file_read(folder, &b, &e), ERR_IO);
    assert_int_equal(file_write_durable(path, "one", 3, NULL), 0);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(file_read(link, &b, &e), 0);
    assert_int_equal(file_read_own(link, &b, &e), ERR_IO);
    assert_int_equal(file_read_own(path, &b, &e), 0);
    assert_string_equal(buf_text(&b), "oneone");
    assert_int_equal(chmod(path, 0620), 0);
    assert_int_equal(file_read_own(path, &b, &e), ERR_REFUSED);
    assert_int_equal(file_read(path, &b, &e), 0);
    unlink(path);
    unlink(link);
    rmdir(folder);
    buf_fini(&b);
}

static void *write_often(void *path)
{
    static const char text[1 << 16] = "whole";
    for (int i = 0; i < 30; i++)
        if (file_write_durable(path, text, sizeof text, NULL) != 0)
            return path;
    return NULL;
}

static void file__is_written_by_threads_at_once(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-base-XXXXXX", path[64];
    pthread_t thread[4];
    void *failed;
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, write_often, path), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(file_read(path, &b, NULL), 0);
    assert_int_equal(b.len, 1 << 16);
    buf_fini(&b);
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* no temporary file is left */
}

static void digest__agrees_with_fips_180_4(void **state)
{
    (void)state;
    struct digest *d = digest_new();
    uint8_t sum[DIGEST_BYTES];
    char hex[DIGEST_HEX];
    digest_add(d, "abc", 3);
    digest_finish(d, sum);
    digest_to_hex(sum, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void digest__is_of_regular_files_only(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-base-XXXXXX", path[64], hex[DIGEST_HEX];
    struct err e;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(digest_file(path, hex, &e), ERR_INVALID); /* nor does it wait */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(digest_file(path, hex, &e), ERR_NOT_FOUND);
    assert_int_equal(digest_file("/dev/zero", hex, &e), ERR_INVALID);
    assert_int_equal(digest_file(folder, hex, &e), ERR_INVALID);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs("abc", f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(digest_file(path, hex, &e), 0);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    unlink(path);
    rmdir(folder);
}

static void log__quote_escapes_and_never_overruns(void **state)
{
    (void)state;
    char out[8];
    assert_string_equal(log_quote(out, sizeof out, "a\"b"), "\"a\\\"b\"");
    assert_true(strlen(log_quote(out, sizeof out, "longer than eight")) < sizeof out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err__context_goes_before_the_cause),
        cmocka_unit_test(buf__refuses_to_pass_its_maximum_and_keeps_what_it_had),
        cmocka_unit_test(buf__json_escapes_quotes_controls_and_broken_utf8),
        cmocka_unit_test(json__puts_commas_where_they_belong),
        cmocka_unit_test(file__durable_write_replaces_whole_and_leaves_no_temporary),
        cmocka_unit_test(file__reads_regular_files_only),
        cmocka_unit_test(file__is_written_by_threads_at_once),
        cmocka_unit_test(digest__agrees_with_fips_180_4),
        cmocka_unit_test(digest__is_of_regular_files_only),
        cmocka_unit_test(log__quote_escapes_and_never_overruns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
