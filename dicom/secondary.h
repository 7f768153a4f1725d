/*
 * secondary.h - synthetic images as DICOM objects, in the source's study, marked as synthetic
 *
 * One source image makes one single-frame object: Secondary Capture Image (PS3.3 A.8.1, with the
 * Frame of Reference and Image Plane modules, standard in it since 2024b), or on wish a derived MR
 * Image (A.4) for MR sources. Patient, study and frame of reference are the source's; geometry is
 * the source's, or scaled for super-resolution. Marked: SyntheticData YES, Image Type value 4
 * SYNTH_…, contributing equipment (109100,DCM), Series Description, Content Qualification, and a
 * strip burned into the pixels. Nothing but what is listed in secondary.c is taken from the source:
 * no private attributes, overlays, padding, LUTs or procedure-step references.
 *
 * Deterministic: the same source, spec and pixels give the same bytes, whenever and wherever.
 */
#ifndef SPINENODE_DICOM_SECONDARY_H
#define SPINENODE_DICOM_SECONDARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/uid.h"

struct err;
struct pool;
struct series;

/* Largest stored value: 12 bits. */
#define SECONDARY_MAX_VALUE 4095

enum secondary_type {
    SECONDARY_CAPTURE, /* Secondary Capture Image Storage: the default */
    SECONDARY_MR       /* MR Image Storage, MR → MR only */
};

/* What the images of one output series have in common. All text borrowed; UTF-8 (characters
 * beyond ASCII become '?' unless the source's character set is UTF-8). */
struct secondary_spec {
    enum secondary_type type;
    const char *task;            /* "t2-to-t1" …: one of the model metadata's tasks */
    const char *input_contrast;  /* "T2" */
    const char *output_contrast; /* "T1" */
    const char *model_name;
    const char *model_version;
    const char *model_digest;  /* 64 hexadecimal digits */
    const char *parameters;    /* what else decides the result, "" if nothing */
    const char *engine;        /* "cpu avx2" … */
    const char *description;   /* for Series Description, after "SYNTH AI "; NULL: by the task */
    const char *qualification; /* Content Qualification; NULL: RESEARCH */
    unsigned series_number;    /* k in source Series Number × 100 + k, 1…99 */
    const char *salt;          /* the site's, for the UIDs */
    const char *key;           /* the job's key: (inputs, task, model digest, parameters) */
    const char *created;       /* "YYYYMMDDhhmmss": the job's time, not the clock's, so that a
                                  repeat gives the same bytes */
    unsigned rows, columns;    /* of the result; equal to the source's, or a whole multiple; of an
                                  x-ray, whatever grid the same field was resampled to */
    unsigned input_slices;     /* source images that one result is made from: odd, 1 (or 0) or more,
                                  around its position */
    double window_centre, window_width; /* of the output series, by secondary_window() */
    double slope, intercept; /* stored → meant units; 1 and 0, written only when different */
    const char *doubt;       /* why the result is to be looked at with care: UNSURE goes into Series
                                Description and the mark, this into the derivation; NULL: it is not */
    bool map; /* no image: how far the network disagrees with itself, pixel by pixel */
};

struct secondary_result {
    char sop_class_uid[UID_BYTES];
    char sop_instance_uid[UID_BYTES];
    char series_uid[UID_BYTES];
};

/* Series Instance UID of the result, the same for every slice: SHA-256(salt, "series", source
 * series, task, model digest, key). */
int secondary_series_uid(const struct series *s, const struct secondary_spec *spec,
                         char out[UID_BYTES], struct err *e);

/*
 * Window over all n stored values of the output series (zeros left out, 0.5th to 99.5th
 * percentile; width at least 1). pool: who counts, NULL: the caller alone; the result is the same.
 */
void secondary_window(const uint16_t *values, size_t n, struct pool *pool, double *centre,
                      double *width);

/*
 * Writes the object for slice index of s, with pixels[rows * columns] ≤ 4095 (ERR_INVALID
 * otherwise), to a new file at path, fsync'd (folder: the caller). The pixels are not changed; the
 * mark goes into a copy of those under it. out may be NULL. ERR_REFUSED: s is not sound, or type
 * and source do not go together; ERR_INVALID: the spec; ERR_EXISTS, ERR_FULL, ERR_IO: the file.
 */
int secondary_write(const struct series *s, unsigned index, const struct secondary_spec *spec,
                    const uint16_t *pixels, const char *path, struct secondary_result *out,
                    struct err *e);

#endif
