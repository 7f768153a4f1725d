/* engine_host.c - the engine "cuda-host", see engine_cuda.h */
#include <string.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "cuda/engine_plan.h"

static int open_device(const struct engine_options *o, struct device **out, struct err *e)
{
    enum convolution_fused fused = CONVOLUTION_BARE;
    if (o->device && strcmp(o->device, "bias") == 0)
        fused = CONVOLUTION_BIAS;
    else if (o->device && strcmp(o->device, "all") == 0)
        fused = CONVOLUTION_ALL;
    return device_host_open(fused, out, e);
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    return cuda_compile_on(open_device, g, o, impl, e);
}

const struct engine engine_cuda_host = {
    .name = "cuda-host",
    .estimate = cuda_estimate,
    .compile = compile,
    .describe = cuda_describe,
    .plan_free = cuda_plan_free,
    .workspace_new = cuda_workspace_new,
    .workspace_free = cuda_workspace_free,
    .run = cuda_run,
    .diagnose = cuda_diagnose,
};
