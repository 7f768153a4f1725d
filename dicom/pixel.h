/*
 * pixel.h - the pixels of a data set as numbers
 *
 * Monochrome only, 1 to 16 bits stored. Uncompressed syntaxes are read here; JPEG, JPEG-LS and RLE
 * by DCMTK's decoders. JPEG 2000 and newer are ERR_UNSUPPORTED. Sizes are checked before anything
 * is allocated, and Rows, Columns and Bits against the length of the pixel data.
 */
#ifndef SPINENODE_DICOM_PIXEL_H
#define SPINENODE_DICOM_PIXEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dataset;
struct err;

/* Largest image side and number of frames that are decoded. */
#define PIXEL_MAX_SIDE   16384
#define PIXEL_MAX_FRAMES 4096
/* Most pixels of all frames of one data set together. */
#define PIXEL_MAX_TOTAL (UINT64_C(1) << 28)

struct pixel_info {
    unsigned rows, columns, frames, samples;
    unsigned bits_allocated, bits_stored, high_bit;
    bool is_signed;
    char photometric[17];    /* Photometric Interpretation */
    bool has_modality_lut;   /* a table, not slope and intercept */
    double slope, intercept; /* 1 and 0 where there are none */
};

/* What the Image Pixel module says. ERR_INVALID: missing or contradictory; ERR_LIMIT. Colour is
 * reported, not refused. */
int pixel_info(const struct dataset *d, struct pixel_info *out, struct err *e);

/*
 * Decodes frame (from 0) into out[rows * columns], row by row: stored value (sign extended from
 * bits_stored), then Modality LUT or slope and intercept, then for MONOCHROME1 mirrored about the
 * range of its stored values so that bright is high (PS3.3 C.7.6.3.1.2). capacity is out's size in
 * values. ERR_INVALID: pixel data missing, too short, broken; ERR_UNSUPPORTED; ERR_REFUSED: colour.
 */
int pixel_decode(struct dataset *d, unsigned frame, float *out, size_t capacity, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
