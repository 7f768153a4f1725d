/* launch.cu - see launch.h: one __global__ function for each body of kernels.h, a thread per item
 */
#include "cuda/launch.h"

#include <cuda_runtime.h>

#define THREADS 256
/* Blocks of a launch at most; a thread then takes several items. */
#define BLOCKS_MAX 65536

#define X(name)                                                                                    \
    __global__ void __launch_bounds__(THREADS)                                                     \
        name##_kernel(const __grid_constant__ struct name##_args args, uint32_t items)             \
    {                                                                                              \
        uint32_t step = gridDim.x * blockDim.x;                                                    \
        for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step)             \
            name##_item(&args, i);                                                                 \
    }
KERNEL_LIST(X)
#undef X

extern "C" int cuda_launch(enum kernel kernel, const union kernel_args *args, int64_t items,
                           void *stream)
{
    if (items <= 0)
        return cudaSuccess;
    if (items > KERNEL_ITEMS_MAX) /* i + step stays below 2^32 */
        return cudaErrorInvalidValue;
    int64_t blocks = (items + THREADS - 1) / THREADS;
    unsigned grid = (unsigned)(blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX);
    cudaStream_t s = (cudaStream_t)stream;
    switch (kernel) {
#define X(name)                                                                                    \
    case KERNEL_##name:                                                                            \
        name##_kernel<<<grid, THREADS, 0, s>>>(args->name##_, (uint32_t)items);                    \
        break;
        KERNEL_LIST(X)
#undef X
    default:
        return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}
