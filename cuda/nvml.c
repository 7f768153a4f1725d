/* nvml.c - see nvml.h */
#include "cuda/nvml.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* The library's own types, by its documentation; 0 is success everywhere. */
typedef void *nvml_device;
struct nvml_utilisation {
    unsigned gpu, memory; /* percent */
};
struct nvml_memory {
    unsigned long long total, available, used; /* bytes */
};
#define NVML_SENSOR_GPU 0

struct nvml {
    void *library;
    unsigned count;
    int (*shutdown)(void);
    int (*handle)(unsigned, nvml_device *);
    int (*uuid)(nvml_device, char *, unsigned);
    int (*utilisation)(nvml_device, struct nvml_utilisation *);
    int (*memory)(nvml_device, struct nvml_memory *);
    int (*temperature)(nvml_device, int, unsigned *);
};

/* A function of the library; ISO C has no cast from an object pointer to one. */
static int find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol ? 0 : -1;
}

int nvml_open(const char *library, struct nvml **out, struct err *e)
{
    const char *name = library ? library : "libnvidia-ml.so.1";
    int (*init)(void) = NULL;
    int (*count)(unsigned *) = NULL;
    struct nvml *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(e, ERR_NOMEM, "no memory for NVML");
    n->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        free(n);
        return err_set(e, ERR_NOT_FOUND, "no NVIDIA driver: %s is not here", name);
    }
    int missing = find(n->library, "nvmlInit_v2", &init);
    missing |= find(n->library, "nvmlDeviceGetCount_v2", &count);
    missing |= find(n->library, "nvmlShutdown", &n->shutdown);
    missing |= find(n->library, "nvmlDeviceGetHandleByIndex_v2", &n->handle);
    missing |= find(n->library, "nvmlDeviceGetUUID", &n->uuid);
    missing |= find(n->library, "nvmlDeviceGetUtilizationRates", &n->utilisation);
    missing |= find(n->library, "nvmlDeviceGetMemoryInfo", &n->memory);
    missing |= find(n->library, "nvmlDeviceGetTemperature", &n->temperature);
    if (missing || init() != 0) {
        dlclose(n->library);
        free(n);
        return err_set(e, ERR_NOT_FOUND, "%s does not start", name);
    }
    if (count(&n->count) != 0)
        n->count = 0;
    *out = n;
    return 0;
}

void nvml_close(struct nvml *n)
{
    if (!n)
        return;
    n->shutdown();
    dlclose(n->library);
    free(n);
}

int nvml_count(const struct nvml *n)
{
    return (int)n->count;
}

int nvml_read(const struct nvml *n, int i, struct nvml_figures *out, struct err *e)
{
    nvml_device device;
    struct nvml_utilisation utilisation;
    struct nvml_memory memory;
    unsigned celsius;
    *out = (struct nvml_figures){.utilisation = -1,
                                 .memory_used_bytes = -1,
                                 .memory_total_bytes = -1,
                                 .temperature_celsius = -1};
    if (i < 0 || i >= nvml_count(n) || n->handle((unsigned)i, &device) != 0 ||
        n->uuid(device, out->uuid, sizeof out->uuid) != 0)
        return err_set(e, ERR_DEVICE, "GPU %d does not answer", i);
    if (n->utilisation(device, &utilisation) == 0)
        out->utilisation = utilisation.gpu / 100.0;
    if (n->memory(device, &memory) == 0) {
        out->memory_used_bytes = (int64_t)memory.used;
        out->memory_total_bytes = (int64_t)memory.total;
    }
    if (n->temperature(device, NVML_SENSOR_GPU, &celsius) == 0)
        out->temperature_celsius = celsius;
    return 0;
}
