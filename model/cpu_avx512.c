/* cpu_avx512.c - the kernels of cpu_kernels.h for vectors of 16 floats; the Makefile gives this
 * file the flags of its instruction set */
#include "model/cpu_kernels.h"

#define LANES   16
#define ROWS    14
#define KERNELS cpu_kernels_avx512
#define NAME    "avx512"
#include "model/cpu_kernels.inc.h"
