/* What becomes of the device's errors while plans are tuned: memory that lacks and a device that is
 * lost are told as such, whichever call fails first. On a GPU that is not there (fake_gpu.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/device.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/plan_text.h"

#ifdef SPINENODE_CUDA

#include <cuda_runtime.h>
#include <cudnn.h>

#define NAME "k-Fake-9.19.0.plans"

/* Opens, plans the convolution and closes. *made: it was not one that was kept. */
static int planned(const struct convolution_spec *spec, const char *folder, bool untuned,
                   bool *made, struct err *e)
{
    struct device *d;
    struct convolution_made plan = {0};
    int rc = device_cuda_open(NULL, folder, folder ? "k" : NULL, untuned, &d, e);
    if (rc != 0)
        return rc;
    rc = d->ops->convolution_plan(d, spec, &plan, e);
    if (made)
        *made = d->made == 1;
    if (rc == 0)
        d->ops->convolution_free(d, plan.plan);
    d->ops->close(d);
    assert_int_equal(fake_gpu.live, 0);
    return rc;
}

static void tuning__that_lacks_memory_says_so(void **state)
{
    struct err e = {0};
    (void)state;
    fake_gpu_reset();
    fake_gpu.workspace = 1 << 20;
    assert_int_equal(planned(&plan_spec, NULL, false, NULL, &e), 0);
    fake_gpu.memory_bytes = 1 << 20; /* not beside the workspace */
    assert_int_equal(planned(&plan_spec, NULL, false, NULL, &e), ERR_NOMEM);
    assert_non_null(strstr(e.text, "no memory"));
    fake_gpu.memory_bytes = 1 << 10;
    assert_int_equal(planned(&plan_spec, NULL, false, NULL, &e), ERR_NOMEM);
    assert_int_equal(planned(&plan_spec, NULL, true, NULL, &e), 0); /* nothing is timed */
}

static void tuning__that_has_no_fit_engine_is_no_lack_of_memory(void **state)
{
    struct err e = {0};
    (void)state;
    fake_gpu_reset();
    fake_gpu.note = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    assert_int_equal(planned(&plan_spec, NULL, false, NULL, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "no engine"));
}

/* Every call in turn; all that is planned is the leaky form, so that threads, too, make plans. */
static void tuning__on_a_lost_device_is_never_anything_else(void **state)
{
    struct convolution_spec leaky = plan_spec;
    struct err e = {0};
    int lost = 0;
    (void)state;
    leaky.leak = 0.2f;
    fake_gpu_reset();
    assert_int_equal(planned(&leaky, NULL, false, NULL, &e), 0);
    const long calls = fake_gpu.calls;
    assert_true(calls > 50);
    for (int untuned = 0; untuned < 2; untuned++)
        for (long k = 1; k <= calls; k++) {
            fake_gpu_reset();
            fake_gpu.fail_at = k;
            fake_gpu.error = cudaErrorIllegalAddress;
            fake_gpu.sticky = true;
            /* What was found before it was lost is given; the next call says that it is. */
            int rc = planned(&leaky, NULL, untuned, NULL, &e);
            assert_true(rc == 0 || rc == ERR_DEVICE);
            lost += rc != 0;
        }
    assert_true(lost > 10);
}

/* There is one heuristic to ask, once, of engines that are compiled. */
static void lone_heuristic(void)
{
    fake_gpu_reset();
    fake_gpu.compiled = true;
    fake_gpu.one_heuristic = true;
}

static void tuning__goes_on_with_the_next_engine_after_a_failure(void **state)
{
    struct convolution_spec bare = plan_spec;
    struct err e = {0};
    (void)state;
    bare.relu = bare.bias = false;
    lone_heuristic();
    assert_int_equal(planned(&bare, NULL, false, NULL, &e), 0);
    const long calls = fake_gpu.calls;
    lone_heuristic();
    assert_int_equal(planned(&bare, NULL, true, NULL, &e), 0);
    const long opening = fake_gpu.calls; /* and no timing */
    assert_true(opening < calls);
    for (long k = 2; k <= opening; k++) { /* the first counts devices */
        lone_heuristic();
        fake_gpu.fail_at = k;
        fake_gpu.error = cudaErrorMemoryAllocation;
        int rc = planned(&bare, NULL, true, NULL, &e);
        assert_true(rc == 0 || rc == ERR_NOMEM);
    }
    for (long k = opening + 1; k <= calls; k++) {
        lone_heuristic();
        fake_gpu.fail_at = k;
        fake_gpu.error = cudaErrorMemoryAllocation;
        assert_int_equal(planned(&bare, NULL, false, NULL, &e), 0);
    }
}

static void tuning__compiles_though_threads_get_no_handle(void **state)
{
    struct err e = {0};
    (void)state;
    fake_gpu_reset();
    fake_gpu.compiled = true; /* there is nothing else, so they must be made */
    fake_gpu.handles = 1;     /* the device's own */
    assert_int_equal(planned(&plan_spec, NULL, false, NULL, &e), 0);
}

static void cache__holds_no_plan_that_was_not_timed(void **state)
{
    char folder[] = "/tmp/spinenode-tuning-XXXXXX", path[PATH_BYTES];
    struct err e = {0};
    bool made;
    (void)state;
    fake_gpu_reset();
    fake_gpu.json = plan_text;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(planned(&plan_spec, folder, true, &made, &e), 0);
    assert_true(made);
    assert_int_equal(planned(&plan_spec, folder, false, &made, &e), 0);
    assert_true(made);
    for (int untuned = 0; untuned < 2; untuned++) { /* both take one that was */
        assert_int_equal(planned(&plan_spec, folder, untuned, &made, &e), 0);
        assert_false(made);
    }
    assert_int_equal(file_join(path, folder, NAME, NULL), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void plan__that_was_kept_is_looked_at_as_a_new_one_is(void **state)
{
    char folder[] = "/tmp/spinenode-tuning-XXXXXX", path[PATH_BYTES];
    struct convolution_spec wide = plan_spec;
    struct err e = {0};
    bool made;
    (void)state;
    fake_gpu_reset();
    fake_gpu.json = plan_text;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(planned(&plan_spec, folder, false, &made, &e), 0);
    fake_gpu.note = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    assert_int_equal(planned(&plan_spec, folder, false, &made, &e), ERR_UNSUPPORTED);
    fake_gpu.note = -1;
    wide.w = wide.ow = 64;
    assert_int_equal(planned(&wide, folder, false, &made, &e), 0); /* kept with plan_text */
    assert_int_equal(planned(&wide, folder, false, &made, &e), 0);
    assert_true(made);
    assert_int_equal(planned(&plan_spec, folder, false, &made, &e), 0);
    assert_false(made);
    assert_int_equal(file_join(path, folder, NAME, NULL), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

#else

static void tuning__needs_a_build_with_cuda(void **state)
{
    (void)state;
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef SPINENODE_CUDA
        cmocka_unit_test(tuning__that_lacks_memory_says_so),
        cmocka_unit_test(tuning__that_has_no_fit_engine_is_no_lack_of_memory),
        cmocka_unit_test(tuning__on_a_lost_device_is_never_anything_else),
        cmocka_unit_test(tuning__goes_on_with_the_next_engine_after_a_failure),
        cmocka_unit_test(tuning__compiles_though_threads_get_no_handle),
        cmocka_unit_test(cache__holds_no_plan_that_was_not_timed),
        cmocka_unit_test(plan__that_was_kept_is_looked_at_as_a_new_one_is),
#else
        cmocka_unit_test(tuning__needs_a_build_with_cuda),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
