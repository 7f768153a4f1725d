/*
 * engine_cuda.h - the engine seam of model/engine.h on a GPU, and its twin on the host
 *
 * options.precision: ENGINE_F32 (the check), ENGINE_TF32, ENGINE_F16 (half, sums in float).
 * Register with engine_register() before any thread starts. engine_cuda is there only where
 * SPINENODE_CUDA is defined (the CUDA toolkit and cuDNN were found), the twin always.
 */
#ifndef SPINENODE_CUDA_ENGINE_CUDA_H
#define SPINENODE_CUDA_ENGINE_CUDA_H

#include "model/engine.h"

/* "cuda": options.device, cache_folder and model_digest as engine.h says. */
extern const struct engine engine_cuda;

/* "cuda-host": the same programs, kernel bodies and order of streams, executed on the host. For
 * tests. options.device, words with commas between: "bare", "bias" or "all" (what its convolutions
 * fuse), "memory=BYTES" (device memory that there is), "replays=N" (so many runs of the program,
 * then the device is lost), "wrong" (what it convolves is zero). */
extern const struct engine engine_cuda_host;

#endif
