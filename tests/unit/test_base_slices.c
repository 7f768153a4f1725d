/* test_base_slices.c - the same work for each slice, by several threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>

#include "node/base/err.h"

#include "node/base/pool.h"
#include "node/base/slices.h"

#define SLICES 40

struct seen {
    atomic_int calls[SLICES];
    unsigned fail_from; /* it and each third after it */
};

static int see(void *arg, unsigned i, struct err *e)
{
    struct seen *s = arg;
    atomic_fetch_add(&s->calls[i], 1);
    if (i >= s->fail_from && (i - s->fail_from) % 3 == 0)
        return err_set(e, i == s->fail_from ? ERR_IO : ERR_BUG, "slice %u", i);
    return 0;
}

static void slices__are_each_seen_once_and_the_first_failure_is_told(void **state)
{
    (void)state;
    for (int threads = 0; threads <= 4; threads++) {
        struct pool *pool = NULL;
        struct err e = {0};
        struct seen s = {.fail_from = SLICES};
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false, &e), 0);
        assert_int_equal(slices_run(pool, 3, SLICES - 5, see, &s, &e), 0);
        for (unsigned i = 0; i < SLICES; i++)
            assert_int_equal(s.calls[i], i >= 3 && i < SLICES - 2);
        s.fail_from = 17;
        assert_int_equal(slices_run(pool, 0, SLICES, see, &s, &e), ERR_IO);
        assert_string_equal(e.text, "slice 17");
        for (unsigned i = 0; i < SLICES; i++)
            assert_int_equal(s.calls[i], 1 + (i >= 3 && i < SLICES - 2));
        assert_int_equal(slices_run(pool, 0, 0, see, &s, &e), 0);
        pool_free(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices__are_each_seen_once_and_the_first_failure_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
