/* cpu_base.c - the kernels of cpu_kernels.h for vectors of 4 floats; the Makefile gives this file
 * the flags of its instruction set */
#include "model/cpu_kernels.h"

#define LANES   4
#define ROWS    6
#define KERNELS cpu_kernels_base
#define NAME    "base"
#include "model/cpu_kernels.inc.h"
