/*
 * series.h - the instances of one series, in order, with their geometry checked
 *
 * Reads the headers of the given files (pixels stay where they are) into a struct series: what the
 * series is made of, and the attributes by which recognise.h tells what it shows. What keeps a
 * readable series from being processed (mixed orientations, gaps, colour …) is not an error of
 * series_read() but its `problem`: so that the series can still be recognised, listed and
 * explained. Only files that cannot be read at all are errors.
 *
 * Geometry: PS3.3 C.7.6.2. n = row × column direction cosines; slices are sorted by position·n,
 * never by Instance Number. A projection x-ray (CR, DX) is a series of one image without position.
 */
#ifndef SPINENODE_DICOM_SERIES_H
#define SPINENODE_DICOM_SERIES_H

#include <stdbool.h>
#include <stddef.h>

#include "dicom/uid.h"
#include "node/base/err.h"

struct dataset;
struct dataset_limits;

/* Longest value kept of a text attribute, terminator included; longer ones are cut. */
#define FACT_BYTES 129

struct series_limits {
    unsigned slices;     /* most images in a series */
    unsigned side;       /* most rows, and most columns */
    double position_mm;  /* slices nearer to each other than this are at the same position */
    double angle_cosine; /* directions whose cosine is below this are different */
    double spacing_part; /* a step between slices may differ by this part from the median step */
    const struct dataset_limits *file; /* NULL: the defaults */
};

/* 512 slices, 8192, 0.01 mm, 0.9995 (1.8°), 0.1. */
extern const struct series_limits series_default_limits;

/* One image. */
struct slice {
    char *path;
    char sop_instance_uid[UID_BYTES];
    double position_mm[3]; /* centre of the first pixel, patient coordinates (LPS) */
    double location_mm;    /* position · n */
    int instance_number;   /* 0 if missing */
    struct dataset *kept;  /* series_open(); NULL: not kept */
};

/* What recognition looks at, from the first image that has it; all images agree on the physics.
 * Missing text is "", a missing number NAN. */
struct series_facts {
    char modality[17];
    char image_type[FACT_BYTES]; /* values joined by backslashes, as all below */
    char scanning_sequence[FACT_BYTES];
    char sequence_variant[FACT_BYTES];
    char scan_options[FACT_BYTES];
    char acquisition_type[17]; /* 2D, 3D */
    char acquisition_contrast[17];
    char sequence_name[FACT_BYTES];
    char protocol_name[FACT_BYTES];
    char series_description[FACT_BYTES];
    char body_part[FACT_BYTES]; /* Body Part Examined */
    char region_code[17];       /* Anatomic Region Sequence, code value if its scheme is SCT */
    char contrast_agent[FACT_BYTES];
    char view_position[17];
    char view_code[17]; /* View Code Sequence, code value if its scheme is SCT */
    char patient_orientation[FACT_BYTES];
    char photometric[17];
    char presentation_intent[17];
    char synthetic_data[17]; /* (0008,001C) */
    char manufacturer[FACT_BYTES];
    double repetition_ms, echo_ms, inversion_ms, flip_degrees, field_tesla, echo_train;
    double samples_per_pixel, frames;
    bool has_contrast_agent_sequence;
    bool has_synthesizer; /* contributing equipment (109100,DCM), "Synthesizing Equipment" */
};

struct series {
    char study_uid[UID_BYTES];
    char series_uid[UID_BYTES];
    char sop_class_uid[UID_BYTES];
    char frame_of_reference_uid[UID_BYTES]; /* "" for a projection x-ray */
    struct series_facts facts;

    unsigned slices; /* how many; sorted by location_mm once the geometry is sound */
    struct slice *slice;
    unsigned rows, columns;
    bool has_geometry; /* what follows is set */
    /* Pixel Spacing: between rows, between columns. Of a projection x-ray, which has no geometry:
     * on the detector (Imager Pixel Spacing), else Pixel Spacing; 0 if neither is sound. */
    double row_spacing_mm, column_spacing_mm;
    double row_direction[3];    /* along a row, towards higher columns (first triple of IOP) */
    double column_direction[3]; /* down a column (second triple) */
    double normal[3];           /* row × column */
    double slice_spacing_mm;    /* median step between neighbours; slice thickness for one slice */
    double slice_thickness_mm;  /* NAN if missing */

    struct err problem; /* code 0: sound. Else why it must not be processed, in one line */
};

/*
 * Reads n files. limits NULL: the defaults. One file more than limits->slices and nothing is read:
 * ERR_LIMIT in problem. Errors: what dataset_open() says of the first file that cannot be read.
 * The caller frees *out with series_free(). Many files are read by several threads.
 */
int series_read(const char *const *paths, size_t n, const struct series_limits *limits,
                struct series **out, struct err *e);

void series_free(struct series *s); /* s may be NULL */

/* The file of slice index (below slices): as series_read() read it where that could be kept, so
 * that no header is read twice, else opened now; the errors of dataset_open(). Its pixels are in
 * the file still, which must stay as it is. To be given back by series_close(). One thread at a
 * time for each slice. */
int series_open(const struct series *s, unsigned index, struct dataset **out, struct err *e);
void series_close(const struct series *s, unsigned index, struct dataset *d); /* d may be NULL */

/*
 * The pixels of slice index, as pixel_decode() gives them, into out[rows * columns].
 * ERR_REFUSED with s->problem's text when the series is not sound.
 */
int series_pixels(const struct series *s, unsigned index, float *out, size_t capacity,
                  struct err *e);

/*
 * Groups files into series by their Series Instance UID: *group[i] is the number (from 0, in order
 * of first appearance) of file i's series, or -1 for a file that is no readable DICOM image.
 * Returns the number of series or an error. The caller frees *group. Many files are read by several
 * threads.
 */
int series_group(const char *const *paths, size_t n, int **group, struct err *e);

#endif
