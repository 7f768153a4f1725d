/*
 * bilinear.h - a plane that nobody has to hold, made smaller or larger
 *
 * The rows of the source are asked for one after the other, once each, and go into the result at
 * once: no plane of the source's size is needed, neither of what its rows are made of nor of what
 * they become on the way. Pixel centres are aligned, and where the result is smaller a triangle as
 * wide as the larger of the two pixels is antialias: as PyTorch's interpolate with mode="bilinear",
 * antialias=True, align_corners=False.
 */
#ifndef SPINENODE_MODEL_BILINEAR_H
#define SPINENODE_MODEL_BILINEAR_H

struct err;

/* Row y of the source: somewhere in memory that stays until seven more were asked for, or written
 * to spare, which has room for it, and that. */
typedef const float *bilinear_row(const void *ctx, int y, float *spare);

/* out: out_rows x out_columns, no memory that a row lies in. Each value is the sum over columns of
 * each row, then over these, from the first to the last. Any thread. ERR_NOMEM. */
int bilinear_resample(bilinear_row *row, const void *ctx, int rows, int columns, float *out,
                      int out_rows, int out_columns, struct err *e);

#endif
