/* cpu_avx2.c - the kernels of cpu_kernels.h for vectors of 8 floats; the Makefile gives this file
 * the flags of its instruction set */
#include "model/cpu_kernels.h"

#define LANES   8
#define ROWS    6
#define KERNELS cpu_kernels_avx2
#define NAME    "avx2"
#include "model/cpu_kernels.inc.h"
