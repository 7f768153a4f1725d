/*
 * fuzz_dataset.c - any bytes as a DICOM file: opened, decoded, recognised, made a result of
 *
 * The file lies in memory (memfd), so that the same code runs that reads the spool.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dicom/dataset.h"
#include "dicom/pixel.h"
#include "dicom/recognise.h"
#include "dicom/series.h"
#include "dicom/tags.h"
#include "node/base/buf.h"
#include "node/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Larger images only cost time. */
#define PIXELS_MAX (1u << 20)

static void decode(struct dataset *d)
{
    struct pixel_info info;
    if (pixel_info(d, &info, NULL) != 0 || (uint64_t)info.rows * info.columns > PIXELS_MAX)
        return;
    size_t n = (size_t)info.rows * info.columns;
    float *values = malloc(n * sizeof *values);
    if (values)
        pixel_decode(d, info.frames - 1, values, n, NULL);
    free(values);
}

static void copy(const struct dataset *d)
{
    static const uint32_t tags[] = {TAG_SOP_CLASS_UID, TAG_SOP_INSTANCE_UID, TAG_PATIENT_NAME,
                                    TAG_ANATOMIC_REGION_SEQUENCE,
                                    TAG_CONTRIBUTING_EQUIPMENT_SEQUENCE};
    struct dataset *to = dataset_new();
    struct buf bytes;
    buf_init(&bytes, 1 << 24);
    for (size_t i = 0; to && i < sizeof tags / sizeof *tags; i++)
        item_copy(dataset_root(to), dataset_root(d), tags[i], NULL);
    if (to)
        dataset_encode(to, &bytes, NULL);
    buf_fini(&bytes);
    dataset_free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct dataset_limits limits = {.file_bytes = 1 << 20, .depth = 32};
    struct series_limits series_limits = series_default_limits;
    struct dataset *d = NULL;
    struct series *s = NULL;
    struct recognition r;
    char path[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (dataset_open(path, &limits, &d, NULL) == 0) {
        decode(d);
        copy(d);
    }
    dataset_free(d);
    const char *const paths[] = {path};
    series_limits.file = &limits;
    if (series_read(paths, 1, &series_limits, &s, NULL) == 0) {
        recognise(s, NULL, &r);
        if (r.refusal.code == 0 && s->problem.code != 0)
            abort();
    }
    series_free(s);
    close(fd);
    return 0;
}
