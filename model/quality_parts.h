/* quality_parts.h - what the files of the quality gate have of each other; see quality.h */
#ifndef SPINENODE_MODEL_QUALITY_PARTS_H
#define SPINENODE_MODEL_QUALITY_PARTS_H

#include "model/quality.h"

/* An image made smaller or larger, by bilinear_resample(). ERR_NOMEM. */
int quality_resample(const struct quality_image *image, float *out, int out_rows, int out_columns,
                     struct err *e);

/* Voids with a bright rim, as metal leaves them: the darkest disc with the brightest ring around
 * it, -1 for none; of three sizes, from small to large. columns: at most QUALITY_VOIDS_COLUMNS.
 * ERR_NOMEM. */
#define QUALITY_VOIDS_COLUMNS 96
int quality_voids(const float *grey, int rows, int columns, float out[3], struct err *e);

#endif
