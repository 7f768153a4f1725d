/* fake_nvml.c - a libnvidia-ml.so.1 with two GPUs, of which the second tells no temperature; a
 * third does not answer. FAKE_NVML_FAIL in the environment: it does not start. */
#include <stdio.h>
#include <stdlib.h>

typedef void *device;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *out);
int nvmlDeviceGetUUID(device d, char *out, unsigned n);
int nvmlDeviceGetUtilizationRates(device d, unsigned out[2]);
int nvmlDeviceGetMemoryInfo(device d, unsigned long long out[3]);
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *out);

static int gpus[3];

int nvmlInit_v2(void)
{
    return getenv("FAKE_NVML_FAIL") ? 9 : 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = 3;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *out)
{
    *out = &gpus[i];
    return i == 2 ? 15 : 0;
}

int nvmlDeviceGetUUID(device d, char *out, unsigned n)
{
    snprintf(out, n, "GPU-0000%d", (int)((int *)d - gpus));
    return 0;
}

int nvmlDeviceGetUtilizationRates(device d, unsigned out[2])
{
    out[0] = d == &gpus[0] ? 75 : 0;
    out[1] = 10;
    return 0;
}

int nvmlDeviceGetMemoryInfo(device d, unsigned long long out[3])
{
    (void)d;
    out[0] = 150000000000ULL;
    out[1] = 149000000000ULL;
    out[2] = 1000000000ULL;
    return 0;
}

int nvmlDeviceGetTemperature(device d, int sensor, unsigned *out)
{
    *out = 61;
    return sensor != 0 || d == &gpus[1] ? 3 : 0;
}
