/* launch_host.c - see launch.h: the bodies of kernels.h in a loop over their items
 *
 * Nothing else is here: tests/engine/device_text.cu compiles this file as nvcc would, too.
 */
#include "cuda/launch.h"

void host_compute(enum kernel kernel, const union kernel_args *args, int64_t items)
{
    switch (kernel) {
#define X(name)                                                                                    \
    case KERNEL_##name:                                                                            \
        for (uint32_t i = 0; i < items; i++)                                                       \
            name##_item(&args->name##_, i);                                                        \
        break;
        KERNEL_LIST(X)
#undef X
    default:
        break;
    }
}
