/* Halfs by bits are those of the compiler's own conversion: all of them, and floats of every
 * exponent, at the borders above all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/kernels.h"

static void same(uint32_t bits)
{
    float v;
    uint16_t want;
    memcpy(&v, &bits, sizeof v);
    _Float16 half = (_Float16)v;
    memcpy(&want, &half, sizeof want);
    if (v != v)
        assert_true(half_value(half_bits(v)) != half_value(half_bits(v)));
    else
        assert_int_equal(half_bits(v), want);
}

static void half__is_rounded_as_the_compiler_does(void **state)
{
    (void)state;
    for (uint32_t exponent = 0; exponent < 512; exponent++) /* the sign is its ninth bit */
        for (uint32_t part = 0; part < 2048; part++) {
            uint32_t tie = part << 12;
            same(exponent << 23 | tie);
            same(exponent << 23 | (tie ? tie - 1 : 0));
            same(exponent << 23 | (tie + 1));
        }
}

static void half__is_read_as_the_compiler_does(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        _Float16 half;
        memcpy(&half, &bits, sizeof half);
        float want = (float)half, got = half_value(bits);
        if (want == want)
            assert_memory_equal(&got, &want, sizeof got);
        else
            assert_true(got != got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half__is_rounded_as_the_compiler_does),
        cmocka_unit_test(half__is_read_as_the_compiler_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
