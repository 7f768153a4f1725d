/* Tuned plans between two starts: only what was written whole, by this user and for this very
 * convolution comes back, and writers do not lose each other's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cuda/plan_cache.h"
#include "cuda/plan_text.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "tests/unit/plan_text.h"

static int entries(const char *folder)
{
    struct plan_cache *c;
    enum convolution_fused fused;
    struct err e = {0};
    assert_int_equal(plan_cache_open(folder, "k", "GPU / one", "9.1.0", &c, &e), 0);
    const char *a = plan_cache_find(c, "a", &fused), *b = plan_cache_find(c, "b", &fused);
    if (a)
        assert_string_equal(a, "{first\nplan}");
    if (b) {
        assert_string_equal(b, "{second}");
        assert_int_equal(fused, CONVOLUTION_ALL);
    }
    int n = (a != NULL) + (b != NULL);
    plan_cache_free(c);
    return n;
}

static void cache__that_is_damaged_gives_only_what_is_whole(void **state)
{
    char folder[] = "/tmp/spinenode-plans-XXXXXX", path[PATH_BYTES];
    struct plan_cache *c;
    struct err e = {0};
    struct buf whole;
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(plan_cache_open(folder, "k", "GPU / one", "9.1.0", &c, &e), 0);
    assert_true(plan_cache_keeps(c));
    plan_cache_keep(c, "b", CONVOLUTION_ALL, "{second}", 8);
    plan_cache_keep(c, "a", CONVOLUTION_BARE, "old", 3);
    plan_cache_keep(c, "a", CONVOLUTION_BIAS, "{first\nplan}", 12);
    plan_cache_free(c);
    assert_int_equal(entries(folder), 2);
    assert_int_equal(file_join(path, folder, "k-GPU___one-9.1.0.plans", &e), 0);
    buf_init(&whole, 4096);
    assert_int_equal(file_read(path, &whole, &e), 0);
    const size_t n = whole.len;
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(file_write_durable(path, buf_text(&whole), cut, &e), 0);
        assert_in_range(entries(folder), 0, 1);
    }
    for (size_t i = 0; i < n; i++) { /* a bit that turned over, in any byte */
        struct buf damaged;
        buf_init(&damaged, 4096);
        buf_add(&damaged, buf_text(&whole), i);
        buf_add(&damaged, (const char[]){(char)(buf_text(&whole)[i] ^ 1)}, 1);
        buf_add(&damaged, buf_text(&whole) + i + 1, n - i - 1);
        assert_int_equal(file_write_durable(path, buf_text(&damaged), n, &e), 0);
        assert_in_range(entries(folder), 0, 1);
        buf_fini(&damaged);
    }
    const char *const lies[] = {"a|9|3|0\nabc\n",  "a|0|99999999999999999999|0\nabc\n",
                                "a|0|3\nabc\n",    "a|0\nabc\n",
                                "a|0|-1|0\nabc\n", "||||\n",
                                "a|1|4|0\nabc\n"};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        assert_int_equal(file_write_durable(path, lies[i], strlen(lies[i]), &e), 0);
        assert_int_equal(entries(folder), 0);
    }
    buf_fini(&whole);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

/* The numbers of a spec; those that a plan's text need not have come last. */
enum { TEXT_NUMBERS = 16, NUMBERS = TEXT_NUMBERS + 2 };
static void numbers_of(struct convolution_spec *s, int64_t *number[NUMBERS])
{
    int64_t *const all[NUMBERS] = {&s->n,
                                   &s->c,
                                   &s->h,
                                   &s->w,
                                   &s->k,
                                   &s->oh,
                                   &s->ow,
                                   &s->kernel[0],
                                   &s->kernel[1],
                                   &s->stride[0],
                                   &s->stride[1],
                                   &s->dilation[0],
                                   &s->dilation[1],
                                   &s->pad_begin[0],
                                   &s->pad_begin[1],
                                   &s->second_pitch,
                                   &s->pad_end[0],
                                   &s->pad_end[1]};
    memcpy(number, all, sizeof all);
}

static void cache__tells_plans_apart_by_all_that_was_asked(void **state)
{
    enum { KINDS = 26 };
    static char text[KINDS][PLAN_SPEC_BYTES];
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        struct convolution_spec s = plan_spec;
        int64_t *number[NUMBERS];
        numbers_of(&s, number);
        if (i < NUMBERS)
            *number[i] += 8;
        else if (i < NUMBERS + 4)
            *(bool *[]){&s.half, &s.tf32, &s.bias, &s.relu}[i - NUMBERS] ^= true;
        else if (i < KINDS - 1) /* the last is the plain one */
            s.leak = 0.1f * (float)(i - NUMBERS);
        plan_spec_text(&s, text[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(text[i], text[k]);
    }
}

#define NAME "k-GPU___one-9.1.0.plans"

static struct plan_cache *opened(const char *folder)
{
    struct plan_cache *c;
    struct err e = {0};
    assert_int_equal(plan_cache_open(folder, "k", "GPU / one", "9.1.0", &c, &e), 0);
    return c;
}

static void cache__that_others_could_have_written_is_not_read(void **state)
{
    char folder[] = "/tmp/spinenode-plans-XXXXXX", path[PATH_BYTES], other[PATH_BYTES];
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(file_join(path, folder, NAME, NULL), 0);
    assert_int_equal(file_join(other, folder, "other", NULL), 0);
    struct plan_cache *c = opened(folder);
    plan_cache_keep(c, "a", CONVOLUTION_BIAS, "{first\nplan}", 12);
    plan_cache_free(c);
    assert_int_equal(entries(folder), 1);
    assert_int_equal(chmod(path, 0660), 0);
    assert_int_equal(entries(folder), 0);
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(entries(folder), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(entries(folder), 1);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_int_equal(entries(folder), 0);
        assert_int_equal(chown(path, 0, 0), 0);
    }
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(entries(folder), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(entries(folder), 0); /* nor is it waited for */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void cache__keeps_what_others_wrote_meanwhile(void **state)
{
    char folder[] = "/tmp/spinenode-plans-XXXXXX", path[PATH_BYTES];
    (void)state;
    assert_non_null(mkdtemp(folder));
    struct plan_cache *one = opened(folder), *two = opened(folder);
    plan_cache_keep(one, "a", CONVOLUTION_BIAS, "{first\nplan}", 12);
    plan_cache_keep(two, "b", CONVOLUTION_ALL, "{second}", 8);
    plan_cache_free(one);
    plan_cache_free(two);
    assert_int_equal(entries(folder), 2);
    assert_int_equal(file_join(path, folder, NAME, NULL), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

#define WRITERS 4
#define WRITES  8

static char long_text[1 << 16];
static struct writer {
    const char *folder;
    int number;
    bool failed;
} writers[WRITERS];

static void *write_often(void *arg)
{
    struct writer *w = arg;
    for (int i = 0; i < WRITES && !w->failed; i++) {
        struct plan_cache *c;
        char spec[32];
        w->failed = plan_cache_open(w->folder, "k", "GPU / one", "9.1.0", &c, NULL) != 0;
        snprintf(spec, sizeof spec, "%d of %d", i, w->number);
        plan_cache_keep(c, spec, CONVOLUTION_ALL, long_text, sizeof long_text - 1);
        plan_cache_free(c);
    }
    return NULL;
}

static void cache__loses_nothing_though_threads_write_it_at_once(void **state)
{
    char folder[] = "/tmp/spinenode-plans-XXXXXX", path[PATH_BYTES];
    pthread_t thread[WRITERS];
    (void)state;
    assert_non_null(mkdtemp(folder));
    memset(long_text, 'x', sizeof long_text - 1);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.folder = folder, .number = i};
        assert_int_equal(pthread_create(&thread[i], NULL, write_often, &writers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_false(writers[i].failed);
    }
    struct plan_cache *c = opened(folder);
    for (int i = 0; i < WRITERS * WRITES; i++) {
        enum convolution_fused fused;
        char spec[32];
        snprintf(spec, sizeof spec, "%d of %d", i % WRITES, i / WRITES);
        const char *text = plan_cache_find(c, spec, &fused);
        assert_non_null(text);
        assert_string_equal(text, long_text);
    }
    plan_cache_free(c);
    assert_int_equal(file_join(path, folder, NAME, NULL), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0); /* no temporary file is left */
}

/* plan_text with the first `from` replaced. */
static const char *changed(const char *from, const char *to)
{
    static char out[sizeof plan_text + 64];
    const char *at = strstr(plan_text, from);
    assert_non_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - plan_text), plan_text, to, at + strlen(from));
    return out;
}

static void plan__is_of_the_convolution_that_it_was_made_for(void **state)
{
    (void)state;
    assert_true(plan_text_is_of(plan_text, &plan_spec, CONVOLUTION_ALL));
    assert_false(plan_text_is_of("", &plan_spec, CONVOLUTION_ALL));
    assert_false(plan_text_is_of(plan_text, &plan_spec, CONVOLUTION_BIAS)); /* it rectifies */
    assert_false(plan_text_is_of(plan_text, &plan_spec, CONVOLUTION_BARE));
    enum { KINDS = TEXT_NUMBERS + 5 };
    for (int i = 0; i < KINDS; i++) {
        struct convolution_spec s = plan_spec;
        int64_t *number[NUMBERS];
        numbers_of(&s, number);
        if (i < TEXT_NUMBERS)
            *number[i] += 8;
        else if (i < TEXT_NUMBERS + 3)
            *(bool *[]){&s.half, &s.bias, &s.relu}[i - TEXT_NUMBERS] ^= true;
        else
            s.leak = i == TEXT_NUMBERS + 3 ? 0.2f : -0.2f;
        assert_false(plan_text_is_of(plan_text, &s, CONVOLUTION_ALL));
    }
}

static void plan__is_of_its_slope_and_of_its_second_copy(void **state)
{
    struct convolution_spec s = plan_spec;
    (void)state;
    s.leak = 0.2f; /* as cuDNN writes that float */
    const char *text = changed("\"lowerClipSlope\":0.0", "\"lowerClipSlope\":0.20000000298023225");
    assert_true(plan_text_is_of(text, &s, CONVOLUTION_ALL));
    assert_false(plan_text_is_of(text, &plan_spec, CONVOLUTION_ALL));
    s.leak = 0.3f;
    assert_false(plan_text_is_of(text, &s, CONVOLUTION_ALL));
    s = plan_spec;
    s.second_pitch = 64;
    text = changed("\"name\":\"4\"", "\"name\":\"5\"");
    assert_false(plan_text_is_of(text, &s, CONVOLUTION_ALL)); /* one of both is not there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cache__that_is_damaged_gives_only_what_is_whole),
        cmocka_unit_test(cache__that_others_could_have_written_is_not_read),
        cmocka_unit_test(cache__keeps_what_others_wrote_meanwhile),
        cmocka_unit_test(cache__loses_nothing_though_threads_write_it_at_once),
        cmocka_unit_test(cache__tells_plans_apart_by_all_that_was_asked),
        cmocka_unit_test(plan__is_of_the_convolution_that_it_was_made_for),
        cmocka_unit_test(plan__is_of_its_slope_and_of_its_second_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
