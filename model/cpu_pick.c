/* cpu_pick.c - which instruction set; see cpu_kernels.h */
#include "model/cpu_kernels.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

static bool have_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static bool have_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

int cpu_kernels_pick(const char *isa, const struct cpu_kernels **out, struct err *e)
{
    if (!isa || !*isa)
        isa = getenv("SPINENODE_ISA");
    bool any = !isa || !*isa;
    bool known = any || strcmp(isa, "base") == 0;
#if defined(__x86_64__)
    if ((any || strcmp(isa, "avx512") == 0) && have_avx512()) {
        *out = &cpu_kernels_avx512;
        return 0;
    }
    if ((any || strcmp(isa, "avx2") == 0) && have_avx2()) {
        *out = &cpu_kernels_avx2;
        return 0;
    }
#endif
    if (known) {
        *out = &cpu_kernels_base;
        return 0;
    }
    if (strcmp(isa, "avx512") == 0 || strcmp(isa, "avx2") == 0)
        return err_set(e, ERR_CONFIG, "this processor has no %s: %s%s", isa,
                       "leave SPINENODE_ISA "
                       "unset, or set it to ",
                       have_avx2() ? "avx2 or base" : "base");
    return err_set(e, ERR_CONFIG, "instruction set \"%.20s\": use avx512, avx2 or base", isa);
}
