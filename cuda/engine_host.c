/* engine_host.c - the engine "cuda-host", see engine_cuda.h */
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "cuda/engine_plan.h"
#include "node/base/err.h"

/* One word of the device option: "bias", "memory=1000000". 0, or -1: what is that? */
static int word_read(const char *word, size_t n, struct host_options *h)
{
    static const char *const fused[] = {"bare", "bias", "all"};
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++)
        if (strlen(fused[i]) == n && strncmp(word, fused[i], n) == 0) {
            h->fused = (enum convolution_fused)i;
            return 0;
        }
    if (n == 5 && strncmp(word, "wrong", 5) == 0)
        h->wrong = true;
    else if (strncmp(word, "memory=", 7) == 0)
        h->memory_bytes = strtoll(word + 7, NULL, 10);
    else if (strncmp(word, "replays=", 8) == 0)
        h->replays = strtoll(word + 8, NULL, 10);
    else
        return -1;
    return 0;
}

static int open_device(const struct engine_options *o, struct device **out, struct err *e)
{
    struct host_options h = {.cache_folder = o->cache_folder, .key = o->model_digest};
    for (const char *word = o->device ? o->device : ""; *word;) {
        size_t n = strcspn(word, ",");
        if (word_read(word, n, &h) != 0)
            return err_set(e, ERR_NOT_FOUND, "the host twin knows no '%s'", word);
        word += n + (word[n] == ',');
    }
    return device_host_open(&h, out, e);
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    return cuda_compile_on(open_device, g, o, impl, e);
}

const struct engine engine_cuda_host = {
    .name = "cuda-host",
    .compile = compile,
    CUDA_ENGINE_MEMBERS,
};
