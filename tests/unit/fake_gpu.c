/* fake_gpu.c - see fake_gpu.h */
#include "tests/unit/fake_gpu.h"

#ifdef SPINENODE_CUDA

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime.h>
#include <cudnn.h>

#include "cuda/launch.h"

#define HEADER 16 /* before a block of memory: its size */

struct fake_gpu fake_gpu;
static atomic_llong used;
static atomic_bool broken;
static atomic_int handles, heuristic;

void fake_gpu_reset(void)
{
    memset(&fake_gpu, 0, sizeof fake_gpu);
    fake_gpu.note = -1;
    fake_gpu.json = "{}";
    used = 0;
    broken = false;
    handles = 0;
}

/* What the call that is made now gives. */
static cudaError_t call(void)
{
    long number = atomic_fetch_add(&fake_gpu.calls, 1) + 1;
    if (broken && fake_gpu.sticky)
        return (cudaError_t)fake_gpu.error;
    if (number != fake_gpu.fail_at)
        return cudaSuccess;
    broken = true;
    return (cudaError_t)fake_gpu.error;
}

/* Of cuDNN's calls those that reach the device. */
static cudnnStatus_t device_call(void)
{
    cudaError_t error = call();
    return error == cudaSuccess ? CUDNN_STATUS_SUCCESS
           : error == cudaErrorMemoryAllocation
               ? CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
               : CUDNN_STATUS_EXECUTION_FAILED;
}

static void *thing(size_t bytes)
{
    fake_gpu.live++;
    return calloc(1, bytes + 1);
}

static cudaError_t made(void **out)
{
    cudaError_t error = call();
    if (error == cudaSuccess)
        *out = thing(1);
    return error;
}

static cudaError_t gone(void *p)
{
    fake_gpu.live -= p != NULL;
    free(p);
    return cudaSuccess;
}

/* ---- the runtime ----------------------------------------------------------------------------- */

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "a fake error";
}

cudaError_t cudaGetLastError(void)
{
    return broken && fake_gpu.sticky ? (cudaError_t)fake_gpu.error : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    (void)device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return call();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Fake");
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    cudaError_t error = call();
    if (error == cudaSuccess && fake_gpu.memory_bytes > 0 &&
        used + (long long)bytes > fake_gpu.memory_bytes)
        error = cudaErrorMemoryAllocation;
    if (error != cudaSuccess)
        return error;
    char *p = thing(bytes + HEADER);
    memcpy(p, &bytes, sizeof bytes);
    used += (long long)bytes;
    *out = p + HEADER;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    size_t bytes;
    if (!p)
        return cudaSuccess;
    memcpy(&bytes, (char *)p - HEADER, sizeof bytes);
    used -= (long long)bytes;
    return gone((char *)p - HEADER);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    memset(p, value, bytes);
    return call();
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    return cudaMemset(p, value, bytes);
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    cudaError_t error = call();
    if (error == cudaSuccess)
        *out = thing(bytes);
    return error;
}

cudaError_t cudaFreeHost(void *p)
{
    return gone(p);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    (void)stream;
    memcpy(to, from, bytes);
    return call();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    (void)flags;
    return made((void **)out);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return gone(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    return call();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)stream;
    (void)event;
    (void)flags;
    return call();
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return made((void **)out);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    (void)flags;
    return made((void **)out);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return gone(event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)event;
    (void)stream;
    return call();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    (void)event;
    return call();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    (void)begin;
    (void)end;
    *ms = 0.1f;
    return call();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)stream;
    (void)mode;
    return call();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    (void)stream;
    return made((void **)out);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return gone(graph);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    (void)graph;
    (void)flags;
    return made((void **)out);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return gone(exec);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)exec;
    (void)stream;
    return call();
}

int cuda_launch(enum kernel kernel, const union kernel_args *args, int64_t items, void *stream)
{
    (void)kernel;
    (void)args;
    (void)items;
    (void)stream;
    return call();
}

/* ---- cuDNN ----------------------------------------------------------------------------------- */

size_t cudnnGetVersion(void)
{
    return 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    (void)status;
    return "a fake status";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *out)
{
    if (fake_gpu.handles > 0 && atomic_fetch_add(&handles, 1) >= fake_gpu.handles)
        return CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    cudnnStatus_t status = device_call();
    if (status == CUDNN_STATUS_SUCCESS)
        *out = thing(1);
    return status;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    gone(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    (void)handle;
    (void)stream;
    return device_call();
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    (void)type;
    *out = thing(1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    gone(d);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *value)
{
    (void)d;
    (void)type;
    (void)count;
    if (name == CUDNN_ATTR_ENGINEHEUR_MODE)
        heuristic = *(const cudnnBackendHeurMode_t *)value;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d)
{
    (void)d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       int64_t *got, void *value)
{
    (void)d;
    (void)type;
    *got = 0;
    bool offers = !(broken && fake_gpu.sticky) &&
                  !(fake_gpu.one_heuristic && heuristic == CUDNN_HEUR_MODE_FALLBACK);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && offers)
        *got = count < 3 ? count : 3;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        memcpy(value, &fake_gpu.workspace, sizeof fake_gpu.workspace);
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && fake_gpu.note >= 0)
        ((cudnnBackendNumericalNote_t *)value)[(*got)++] = fake_gpu.note;
    if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE && fake_gpu.compiled)
        ((cudnnBackendBehaviorNote_t *)value)[(*got)++] = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION) {
        *got = (int64_t)strlen(fake_gpu.json) + 1;
        if (value)
            memcpy(value, fake_gpu.json, (size_t)*got);
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    (void)handle;
    (void)plan;
    (void)pack;
    return device_call();
}

#endif
