/* engine_cuda.c - the engine "cuda", see engine_cuda.h */
#include "cuda/engine_cuda.h"

#include <unistd.h>

#include "cuda/device.h"
#include "cuda/engine_plan.h"

static int open_device(const struct engine_options *o, struct device **out, struct err *e)
{
    return device_cuda_open(o->device, o->cache_folder, o->model_digest, o->untuned, out, e);
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    return cuda_compile_on(open_device, g, o, impl, e);
}

/* The driver's device files: Linux's own, and that of Windows' subsystem for Linux. */
static bool present(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

const struct engine engine_cuda = {
    .name = "cuda",
    .compile = compile,
    CUDA_ENGINE_MEMBERS,
    .present = present,
};
