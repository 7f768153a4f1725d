/*
 * device_text.cu - the kernels as nvcc reads them, compiled for the host: for opcheck-device-text
 *
 * kernels.h has text that only nvcc compiles, loads and stores of 16 bytes and halfs of CUDA's own,
 * and a GPU ends a process that loads 16 bytes where they are not aligned. Here a C++ compiler
 * takes that text for its own, with a stand-in for cuda_fp16.h and a sanitizer that looks at every
 * address. The object takes the place of launch_host.c's in a program of the host twin.
 */
#include <math.h>
#include <stdint.h>

#define __CUDACC__
#define __host__
#define __device__
#include "cuda/launch_host.c"
