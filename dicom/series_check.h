/*
 * series_check.h - does what the headers of a series say make one stack of images?
 *
 * Inside of series.c; apart so that geometry can be tested without files.
 */
#ifndef SPINENODE_DICOM_SERIES_CHECK_H
#define SPINENODE_DICOM_SERIES_CHECK_H

#include <stdbool.h>

#include "dicom/series.h"

/* What one file says. UIDs and texts "" and numbers NAN where missing. */
struct series_header {
    char study_uid[UID_BYTES];
    char series_uid[UID_BYTES];
    char sop_class_uid[UID_BYTES];
    char sop_instance_uid[UID_BYTES];
    char frame_uid[UID_BYTES];
    unsigned rows, columns;
    int instance_number;
    bool has_orientation, has_position, has_spacing, has_imager_spacing;
    double orientation[6], position[3], spacing[2], imager_spacing[2];
    double thickness_mm, between_mm;
    struct series_facts facts;
};

/*
 * headers[s->slices], in the order of s->slice. Sets the geometry of s and sorts its slices; or
 * sets s->problem.
 */
void series_check(struct series *s, const struct series_header *headers,
                  const struct series_limits *limits);

/* Is it a projection x-ray (CR, DX)? */
bool series_is_xray(const struct series *s);

#endif
