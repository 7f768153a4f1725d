/* secondary_modules.h - the attributes of a synthetic image, module by module; inside of
 * secondary.c */
#ifndef SPINENODE_DICOM_SECONDARY_MODULES_H
#define SPINENODE_DICOM_SECONDARY_MODULES_H

#include <stdbool.h>

#include "dicom/secondary.h"

struct item;

/* What a task means in DICOM. */
struct secondary_task {
    const char *name;
    const char *image_type; /* value 4 of Image Type, and the code of the derivation */
    const char *meaning;    /* Code Meaning of the derivation; NULL: super-resolution's own */
    const char *mark;       /* in the pixels and in Series Description */
    bool same_contrast;     /* super-resolution: the source's contrast, on a finer grid */
    bool from_xray;
};

/* NULL: no such task. */
const struct secondary_task *secondary_task(const char *name);

/* What one object is made from. */
struct secondary_parts {
    const struct series *series;
    unsigned index;
    const struct secondary_spec *spec;
    const struct secondary_task *task;
    const struct secondary_result *uids;
    const char *source_syntax;
    const struct item *from; /* the source image */
    struct item *to;
};

/* Sets everything but the pixel data. */
int secondary_set_modules(const struct secondary_parts *p, struct err *e);

#endif
