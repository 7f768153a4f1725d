/*
 * stand_in.c - the engine "cuda" of build/tests/spinenode-stand-in: GPUs that are files
 *
 * The node of the tests is linked with this in place of cuda/engine_cuda.c. Behind it is the host
 * twin, so that what the node does with a GPU, and with one that fails, is tested without one.
 * SPINENODE_STAND_IN names a folder; each GPU is a file in it, its name the index, its text
 *
 *     UUID [DEVICE-OPTIONS]      options of "cuda-host": memory=BYTES, wrong
 *
 * A GPU whose file is removed has vanished, at once. N.fail makes GPU N fail for good in the
 * process that opens it next, after so many runs as its text says; the file is consumed. N.fails
 * does so in every process. N.used is made when GPU N is opened.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "cuda/engine_plan.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

#define GPUS_MAX 8

static char paths[GPUS_MAX][PATH_BYTES];

static const char *path_of(int gpu, const char *end, char out[PATH_BYTES])
{
    const char *folder = getenv("SPINENODE_STAND_IN");
    snprintf(out, PATH_BYTES, "%s/%d%s", folder ? folder : "/nowhere", gpu, end);
    return out;
}

static bool is_there(int gpu)
{
    char path[PATH_BYTES];
    return access(path_of(gpu, "", path), F_OK) == 0;
}

static bool present(void)
{
    bool any = false;
    for (int i = 0; i < GPUS_MAX; i++)
        any |= is_there(i);
    return any;
}

/* The words of a GPU's file: UUID and options. */
static int read_gpu(int gpu, const char *end, char *out, size_t size)
{
    char path[PATH_BYTES];
    struct buf b;
    buf_init(&b, 4096);
    int rc = file_read(path_of(gpu, end, path), &b, NULL);
    if (rc == 0)
        snprintf(out, size, "%s", buf_text(&b));
    buf_fini(&b);
    out[rc == 0 ? strcspn(out, "\n") : 0] = '\0';
    return rc;
}

static bool lost(void *ctx)
{
    return access(ctx, F_OK) != 0;
}

static int find(const char *selector, char text[256], struct err *e)
{
    for (int i = 0; i < GPUS_MAX; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        if (read_gpu(i, "", text, 256) == 0 && (!selector || strcmp(selector, index) == 0 ||
                                                strncmp(selector, text, strlen(selector)) == 0))
            return i;
    }
    return err_set(e, ERR_DEVICE, "no GPU '%s'", selector ? selector : "");
}

static int open_device(const struct engine_options *o, struct device **out, struct err *e)
{
    char text[256], fail[64], path[PATH_BYTES];
    int gpu = find(o->device, text, e);
    if (gpu < 0)
        return gpu;
    path_of(gpu, "", paths[gpu]);
    struct host_options h = {.cache_folder = o->cache_folder,
                             .key = o->model_digest,
                             .fused = CONVOLUTION_ALL,
                             .lost = lost,
                             .ctx = paths[gpu]};
    h.wrong = strstr(text, " wrong") != NULL;
    const char *memory = strstr(text, "memory=");
    if (memory)
        h.memory_bytes = strtoll(memory + 7, NULL, 10);
    if (read_gpu(gpu, ".fail", fail, sizeof fail) == 0) {
        h.replays = strtoll(fail, NULL, 10);
        unlink(path_of(gpu, ".fail", path));
    } else if (read_gpu(gpu, ".fails", fail, sizeof fail) == 0) {
        h.replays = strtoll(fail, NULL, 10);
    }
    int rc = file_write_durable(path_of(gpu, ".used", path), "", 0, e);
    return rc != 0 ? rc : device_host_open(&h, out, e);
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    return cuda_compile_on(open_device, g, o, impl, e);
}

const struct engine engine_cuda = {
    .name = "cuda",
    .compile = compile,
    CUDA_ENGINE_MEMBERS,
    .present = present,
};
