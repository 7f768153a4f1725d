/*
 * secondary_modules.c - see secondary_modules.h
 *
 * Clauses are PS3.3's. An attribute of the source that is not named here does not reach the result.
 */
#include "dicom/secondary_modules.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

#include "dicom/dataset.h"
#include "dicom/series.h"
#include "dicom/tags.h"

#define EQUIPMENT_NAME "Spinenode"
#define PRIVATE_SCHEME "99SPINENODE"
#define MAP_IMAGE_TYPE "SYNTH_MAP"

/* Longest values, in characters (PS3.5 table 6.2-1). */
#define LO_CHARACTERS 64
#define ST_CHARACTERS 1024

/* Largest source Series Number of which a hundredfold still is an IS. */
#define SERIES_NUMBER_MAX 21000000

/* A direction belongs to a letter of Patient Orientation from this cosine on. */
#define LETTER_COSINE 0.2

/* ---- small steps; each does nothing once *rc is an error ---- */

static void put(int *rc, struct item *to, uint32_t tag, const char *value, struct err *e)
{
    if (*rc == 0)
        *rc = item_set_text(to, tag, value, e);
}

static void put_integer(int *rc, struct item *to, uint32_t tag, int64_t value, struct err *e)
{
    if (*rc == 0)
        *rc = item_set_integer(to, tag, value, e);
}

static void put_decimals(int *rc, struct item *to, uint32_t tag, const double *values, unsigned n,
                         struct err *e)
{
    if (*rc == 0)
        *rc = item_set_decimals(to, tag, values, n, e);
}

static void copy(int *rc, const struct secondary_parts *p, uint32_t tag, struct err *e)
{
    if (*rc == 0)
        *rc = item_copy(p->to, p->from, tag, e);
}

/* Numbers are written anew: scanners send DS values longer than the standard's 16 characters. */
static void copy_decimals(int *rc, const struct secondary_parts *p, uint32_t tag, struct err *e)
{
    double values[2];
    unsigned n = 0;
    while (n < sizeof values / sizeof *values && item_number(p->from, tag, n, &values[n]))
        n++;
    if (n > 0)
        put_decimals(rc, p->to, tag, values, n, e);
    else if (item_has(p->from, tag))
        put(rc, p->to, tag, "", e);
}

/* Type 2: there, empty if the source has none. */
static void copy_or_empty(int *rc, const struct secondary_parts *p, uint32_t tag, struct err *e)
{
    copy(rc, p, tag, e);
    if (*rc == 0 && !item_has(p->to, tag))
        *rc = item_set_text(p->to, tag, "", e);
}

/*
 * text (UTF-8) as one value of at most `characters`: no backslash, no control characters, and
 * beyond ASCII only if the data set is in UTF-8.
 */
static void put_plain(int *rc, const struct secondary_parts *p, struct item *to, uint32_t tag,
                      const char *text, unsigned characters, struct err *e)
{
    char set[DATASET_TEXT_BYTES], out[4 * ST_CHARACTERS + 1];
    bool utf8 = item_all_text(p->from, TAG_SPECIFIC_CHARACTER_SET, set, sizeof set) &&
                strcmp(set, "ISO_IR 192") == 0;
    size_t n = 0;
    for (unsigned count = 0; *text && count < characters && n + 4 < sizeof out; count++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x80) {
            out[n++] = c < 0x20 || c == 0x7f || c == '\\' ? ' ' : *text;
            text++;
            continue;
        }
        if (!utf8)
            out[n++] = '?';
        do {
            if (utf8)
                out[n++] = *text;
            text++;
        } while (((unsigned char)*text & 0xc0) == 0x80 && n + 4 < sizeof out);
    }
    out[n] = '\0';
    put(rc, to, tag, out, e);
}

static void put_format(int *rc, const struct secondary_parts *p, struct item *to, uint32_t tag,
                       unsigned characters, struct err *e, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
static void put_format(int *rc, const struct secondary_parts *p, struct item *to, uint32_t tag,
                       unsigned characters, struct err *e, const char *format, ...)
{
    char text[2 * ST_CHARACTERS];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_plain(rc, p, to, tag, text, characters, e);
}

static struct item *add(int *rc, struct item *to, uint32_t tag, struct err *e)
{
    struct item *added = NULL;
    if (*rc == 0)
        *rc = item_add(to, tag, &added, e);
    return added;
}

static void add_code(int *rc, struct item *to, uint32_t tag, const char *value, const char *scheme,
                     const char *meaning, struct err *e)
{
    if (*rc == 0)
        *rc = item_add_code(to, tag, value, scheme, meaning, e);
}

/* ---- modules ---- */

/* The job's time into a date and a time attribute. */
static void put_created(int *rc, const struct secondary_parts *p, uint32_t date, uint32_t time,
                        struct err *e)
{
    char day[9];
    snprintf(day, sizeof day, "%.8s", p->spec->created);
    put(rc, p->to, date, day, e);
    put(rc, p->to, time, p->spec->created + 8, e);
}

/* Patient (C.7.1.1), General Study (C.7.2.1), Patient Study (C.7.2.2): the source's. */
static int patient_and_study(const struct secondary_parts *p, struct err *e)
{
    static const uint32_t copied[] = {
        TAG_SPECIFIC_CHARACTER_SET,
        TAG_TIMEZONE_OFFSET,
        TAG_ISSUER_OF_PATIENT_ID,
        TAG_ISSUER_OF_PATIENT_ID_QUALIFIERS,
        TAG_OTHER_PATIENT_IDS_SEQUENCE,
        TAG_PATIENT_IDENTITY_REMOVED,
        TAG_DEIDENTIFICATION_METHOD,
        TAG_DEIDENTIFICATION_CODE_SEQUENCE,
        TAG_PATIENT_AGE,
        TAG_STUDY_INSTANCE_UID,
        TAG_STUDY_DESCRIPTION,
        TAG_ISSUER_OF_ACCESSION_NUMBER,
    };
    static const uint32_t type_2[] = {
        TAG_PATIENT_NAME,     TAG_PATIENT_ID, TAG_PATIENT_BIRTH_DATE,       TAG_PATIENT_SEX,
        TAG_STUDY_DATE,       TAG_STUDY_TIME, TAG_REFERRING_PHYSICIAN_NAME, TAG_STUDY_ID,
        TAG_ACCESSION_NUMBER,
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++)
        copy(&rc, p, copied[i], e);
    copy_decimals(&rc, p, TAG_PATIENT_SIZE, e);
    copy_decimals(&rc, p, TAG_PATIENT_WEIGHT, e);
    for (size_t i = 0; i < sizeof type_2 / sizeof *type_2; i++)
        copy_or_empty(&rc, p, type_2[i], e);
    return rc;
}

/* "SYNTH AI " and the rule's words, or the task's. */
static void put_description(int *rc, const struct secondary_parts *p, struct err *e)
{
    const char *words = p->spec->description;
    /* Before the words, so that it is not cut off. */
    const char *kind = p->spec->map ? "DISAGREEMENT MAP " : p->spec->doubt ? "UNSURE " : "";
    if (words && words[0])
        put_format(rc, p, p->to, TAG_SERIES_DESCRIPTION, LO_CHARACTERS, e, "SYNTH AI %s%s", kind,
                   words);
    else if (p->task->same_contrast)
        put_format(rc, p, p->to, TAG_SERIES_DESCRIPTION, LO_CHARACTERS, e, "SYNTH AI %s%s %s", kind,
                   p->spec->output_contrast, p->task->mark);
    else
        put_format(rc, p, p->to, TAG_SERIES_DESCRIPTION, LO_CHARACTERS, e, "SYNTH AI %s%s", kind,
                   p->task->mark);
}

/* General Series (C.7.3.1), General Equipment (C.7.5.1), SC Equipment (C.8.6.1). */
static int series_and_equipment(const struct secondary_parts *p, struct err *e)
{
    int rc = 0;
    int64_t number = 0;
    if (!item_integer(p->from, TAG_SERIES_NUMBER, 0, &number) || number < 0 ||
        number > SERIES_NUMBER_MAX)
        number = 0;
    put(&rc, p->to, TAG_MODALITY, p->task->from_xray ? "OT" : "MR", e);
    put(&rc, p->to, TAG_SERIES_INSTANCE_UID, p->uids->series_uid, e);
    put_integer(&rc, p->to, TAG_SERIES_NUMBER, number * 100 + p->spec->series_number, e);
    put_created(&rc, p, TAG_SERIES_DATE, TAG_SERIES_TIME, e);
    put_description(&rc, p, e);
    copy(&rc, p, TAG_BODY_PART_EXAMINED, e);
    copy(&rc, p, TAG_ANATOMIC_REGION_SEQUENCE, e);
    copy(&rc, p, TAG_LATERALITY, e);
    if (!p->task->from_xray)
        copy_or_empty(&rc, p, TAG_PATIENT_POSITION, e);

    put(&rc, p->to, TAG_MANUFACTURER, EQUIPMENT_NAME, e);
    put(&rc, p->to, TAG_MODEL_NAME, EQUIPMENT_NAME, e);
    put(&rc, p->to, TAG_SOFTWARE_VERSIONS, SPINENODE_VERSION, e);
    copy(&rc, p, TAG_INSTITUTION_NAME, e);
    if (p->spec->type == SECONDARY_CAPTURE) {
        put(&rc, p->to, TAG_CONVERSION_TYPE, "SYN", e);
        put(&rc, p->to, TAG_SECONDARY_CAPTURE_MANUFACTURER, EQUIPMENT_NAME, e);
        put(&rc, p->to, TAG_SECONDARY_CAPTURE_MODEL, EQUIPMENT_NAME, e);
        put(&rc, p->to, TAG_SECONDARY_CAPTURE_SOFTWARE, SPINENODE_VERSION, e);
        put_created(&rc, p, TAG_SECONDARY_CAPTURE_DATE, TAG_SECONDARY_CAPTURE_TIME, e);
    }
    return rc;
}

/* A direction as the letters of the axes that it points along, the strongest first (C.7.6.1.1.1).
 */
static void orientation_letters(const double direction[3], char out[4])
{
    static const char positive[] = "LPH", negative[] = "RAF";
    bool used[3] = {false, false, false};
    int n = 0;
    for (int k = 0; k < 3; k++) {
        int best = -1;
        for (int axis = 0; axis < 3; axis++)
            if (!used[axis] && (best < 0 || fabs(direction[axis]) > fabs(direction[best])))
                best = axis;
        used[best] = true;
        if (fabs(direction[best]) >= LETTER_COSINE)
            out[n++] = direction[best] > 0 ? positive[best] : negative[best];
    }
    out[n] = '\0';
}

/* Frame of Reference (C.7.4.1), Image Plane (C.7.6.2), Patient Orientation. */
static int plane(const struct secondary_parts *p, struct err *e)
{
    const struct series *s = p->series;
    const struct slice *slice = &s->slice[p->index];
    char along_row[4], along_column[4];
    int rc = 0;
    /* The grid's outer edges stay where they are, so a finer grid's first centre moves outward. */
    double rows = s->row_spacing_mm * s->rows / p->spec->rows;
    double columns = s->column_spacing_mm * s->columns / p->spec->columns;
    double position[3], orientation[6];
    for (int k = 0; k < 3; k++) {
        position[k] = slice->position_mm[k] +
                      s->row_direction[k] * (columns - s->column_spacing_mm) / 2 +
                      s->column_direction[k] * (rows - s->row_spacing_mm) / 2;
        orientation[k] = s->row_direction[k];
        orientation[k + 3] = s->column_direction[k];
    }
    put(&rc, p->to, TAG_FRAME_OF_REFERENCE_UID, s->frame_of_reference_uid, e);
    copy_or_empty(&rc, p, TAG_POSITION_REFERENCE_INDICATOR, e);
    put_decimals(&rc, p->to, TAG_PIXEL_SPACING, (const double[]){rows, columns}, 2, e);
    put_decimals(&rc, p->to, TAG_IMAGE_ORIENTATION_PATIENT, orientation, 6, e);
    put_decimals(&rc, p->to, TAG_IMAGE_POSITION_PATIENT, position, 3, e);
    put_decimals(&rc, p->to, TAG_SPACING_BETWEEN_SLICES, &s->slice_spacing_mm, 1, e);
    if (isnan(s->slice_thickness_mm))
        put(&rc, p->to, TAG_SLICE_THICKNESS, "", e);
    else
        put_decimals(&rc, p->to, TAG_SLICE_THICKNESS, &s->slice_thickness_mm, 1, e);
    copy_decimals(&rc, p, TAG_SLICE_LOCATION, e);
    orientation_letters(s->row_direction, along_row);
    orientation_letters(s->column_direction, along_column);
    char both[9];
    snprintf(both, sizeof both, "%s\\%s", along_row, along_column);
    put(&rc, p->to, TAG_PATIENT_ORIENTATION, both, e);
    return rc;
}

/* What an x-ray knows of its geometry: a view, and a size only where it was calibrated. */
static int projection(const struct secondary_parts *p, struct err *e)
{
    int rc = 0;
    copy_or_empty(&rc, p, TAG_PATIENT_ORIENTATION, e);
    if (item_count(p->from, TAG_PIXEL_SPACING_CALIBRATION_TYPE) > 0) {
        double spacing[2];
        if (item_number(p->from, TAG_PIXEL_SPACING, 0, &spacing[0]) &&
            item_number(p->from, TAG_PIXEL_SPACING, 1, &spacing[1])) {
            spacing[0] *= (double)p->series->rows / p->spec->rows;
            spacing[1] *= (double)p->series->columns / p->spec->columns;
            put_decimals(&rc, p->to, TAG_PIXEL_SPACING, spacing, 2, e);
        }
        copy(&rc, p, TAG_PIXEL_SPACING_CALIBRATION_TYPE, e);
        copy(&rc, p, TAG_PIXEL_SPACING_CALIBRATION_DESC, e);
        /* Type 1C, required beside the type (10.7.1.3). */
        if (rc == 0 && item_count(p->to, TAG_PIXEL_SPACING_CALIBRATION_DESC) == 0)
            put(&rc, p->to, TAG_PIXEL_SPACING_CALIBRATION_DESC, "not described by the source", e);
    }
    return rc;
}

static bool is_lossy_syntax(const char *uid)
{
    static const char *const lossy[] = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51",
                                        "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"};
    for (size_t i = 0; i < sizeof lossy / sizeof *lossy; i++)
        if (strcmp(uid, lossy[i]) == 0)
            return true;
    return false;
}

/* The source's Instance Numbers if they tell its images apart, else the order of position. */
static int instance_number(const struct series *s, unsigned index)
{
    for (unsigned i = 0; i < s->slices; i++) {
        if (s->slice[i].instance_number <= 0)
            return (int)index + 1;
        for (unsigned k = 0; k < i; k++)
            if (s->slice[i].instance_number == s->slice[k].instance_number)
                return (int)index + 1;
    }
    return s->slice[index].instance_number;
}

/* General Image (C.7.6.1) without what derives; Image Pixel (C.7.6.3); VOI and Modality LUT. */
static int image(const struct secondary_parts *p, struct err *e)
{
    const struct secondary_spec *spec = p->spec;
    char type[64];
    int rc = 0;
    snprintf(type, sizeof type, "DERIVED\\SECONDARY\\OTHER\\%s",
             spec->map ? MAP_IMAGE_TYPE : p->task->image_type);
    put(&rc, p->to, TAG_IMAGE_TYPE, type, e);
    put_integer(&rc, p->to, TAG_INSTANCE_NUMBER, instance_number(p->series, p->index), e);
    put_created(&rc, p, TAG_CONTENT_DATE, TAG_CONTENT_TIME, e);
    copy(&rc, p, TAG_ACQUISITION_DATE, e);
    copy(&rc, p, TAG_ACQUISITION_TIME, e);
    put(&rc, p->to, TAG_BURNED_IN_ANNOTATION, "NO", e);
    copy(&rc, p, TAG_LOSSY_IMAGE_COMPRESSION, e);
    copy(&rc, p, TAG_LOSSY_COMPRESSION_RATIO, e);
    copy(&rc, p, TAG_LOSSY_COMPRESSION_METHOD, e);
    if (is_lossy_syntax(p->source_syntax))
        put(&rc, p->to, TAG_LOSSY_IMAGE_COMPRESSION, "01", e);

    put_integer(&rc, p->to, TAG_SAMPLES_PER_PIXEL, 1, e);
    put(&rc, p->to, TAG_PHOTOMETRIC_INTERPRETATION, "MONOCHROME2", e);
    put_integer(&rc, p->to, TAG_ROWS, spec->rows, e);
    put_integer(&rc, p->to, TAG_COLUMNS, spec->columns, e);
    put_integer(&rc, p->to, TAG_BITS_ALLOCATED, 16, e);
    put_integer(&rc, p->to, TAG_BITS_STORED, 12, e);
    put_integer(&rc, p->to, TAG_HIGH_BIT, 11, e);
    put_integer(&rc, p->to, TAG_PIXEL_REPRESENTATION, 0, e);

    /* The window acts on what the rescale gives (C.11.2.1.2). */
    double centre = spec->window_centre * spec->slope + spec->intercept;
    double width = spec->window_width * spec->slope;
    put_decimals(&rc, p->to, TAG_WINDOW_CENTER, &centre, 1, e);
    put_decimals(&rc, p->to, TAG_WINDOW_WIDTH, &width, 1, e);
    if (spec->slope != 1 || spec->intercept != 0) {
        put_decimals(&rc, p->to, TAG_RESCALE_INTERCEPT, &spec->intercept, 1, e);
        put_decimals(&rc, p->to, TAG_RESCALE_SLOPE, &spec->slope, 1, e);
        put(&rc, p->to, TAG_RESCALE_TYPE, "US", e);
    }
    return rc;
}

/* MR Image (C.8.3.1). A synthetic contrast has no echo and no repetition time. */
static int mr_image(const struct secondary_parts *p, struct err *e)
{
    static const uint32_t words[] = {TAG_SCANNING_SEQUENCE, TAG_SEQUENCE_VARIANT};
    static const uint32_t numbers[] = {TAG_REPETITION_TIME, TAG_ECHO_TIME, TAG_INVERSION_TIME,
                                       TAG_FLIP_ANGLE};
    int rc = 0;
    if (p->task->same_contrast) {
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            copy(&rc, p, words[i], e);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            copy_decimals(&rc, p, numbers[i], e);
        copy_or_empty(&rc, p, TAG_SCAN_OPTIONS, e);
        copy_or_empty(&rc, p, TAG_ECHO_TRAIN_LENGTH, e);
    } else {
        put(&rc, p->to, TAG_SCANNING_SEQUENCE, "RM", e); /* "research mode": none of the others */
        put(&rc, p->to, TAG_SEQUENCE_VARIANT, "NONE", e);
        put(&rc, p->to, TAG_SCAN_OPTIONS, "", e);
        put(&rc, p->to, TAG_REPETITION_TIME, "", e);
        put(&rc, p->to, TAG_ECHO_TIME, "", e);
        put(&rc, p->to, TAG_ECHO_TRAIN_LENGTH, "", e);
    }
    copy_or_empty(&rc, p, TAG_MR_ACQUISITION_TYPE, e);
    copy_decimals(&rc, p, TAG_MAGNETIC_FIELD_STRENGTH, e);
    copy(&rc, p, TAG_IMAGED_NUCLEUS, e);
    return rc;
}

/* The images that this one was made from, its own position first. */
static int source_images(const struct secondary_parts *p, struct err *e)
{
    const struct series *s = p->series;
    unsigned reach = p->spec->input_slices / 2;
    int rc = 0;
    for (unsigned k = 0; k <= 2 * reach; k++) {
        long at = (long)p->index + (k % 2 ? -(long)(k + 1) / 2 : (long)k / 2);
        if (at < 0 || at >= (long)s->slices)
            continue;
        struct item *source = add(&rc, p->to, TAG_SOURCE_IMAGE_SEQUENCE, e);
        put(&rc, source, TAG_REFERENCED_SOP_CLASS_UID, s->sop_class_uid, e);
        put(&rc, source, TAG_REFERENCED_SOP_INSTANCE_UID, s->slice[at].sop_instance_uid, e);
        add_code(&rc, source, TAG_PURPOSE_OF_REFERENCE_SEQUENCE, "121322", "DCM",
                 "Source image for image processing operation", e);
        if (!p->task->same_contrast)
            put(&rc, source, TAG_SPATIAL_LOCATIONS_PRESERVED,
                p->task->from_xray || k != 0 ? "NO" : "YES", e);
    }
    return rc;
}

/* General Image, derivation (C.7.6.1.1.3): what was done, by which model, from what. */
static int derivation(const struct secondary_parts *p, struct err *e)
{
    const struct secondary_spec *spec = p->spec;
    const char *meaning = p->task->meaning;
    int rc = 0;
    put_format(&rc, p, p->to, TAG_DERIVATION_DESCRIPTION, ST_CHARACTERS, e,
               "%s (%s, %s to %s) by a neural network, not an acquisition. Model %s %s, SHA-256 "
               "%s. %s %s%s%s%s%s",
               spec->map ? "Not an image: map of how far the answers for the mirrored and for the "
                           "moved source are from the synthetic image, in percent of its range"
                         : "Synthetic image",
               spec->task, spec->input_contrast, spec->output_contrast, spec->model_name,
               spec->model_version, spec->model_digest, EQUIPMENT_NAME, SPINENODE_VERSION,
               spec->parameters[0] ? ", " : "", spec->parameters,
               spec->doubt ? ". Quality gate, look with care: " : "",
               spec->doubt ? spec->doubt : "");
    if (spec->map) {
        add_code(&rc, p->to, TAG_DERIVATION_CODE_SEQUENCE, MAP_IMAGE_TYPE, PRIVATE_SCHEME,
                 "Map of a neural network's disagreement with itself", e);
        return rc == 0 ? source_images(p, e) : rc;
    }
    if (p->task->same_contrast || spec->rows != p->series->rows ||
        spec->columns != p->series->columns)
        add_code(&rc, p->to, TAG_DERIVATION_CODE_SEQUENCE, "113085", "DCM", "Spatial resampling",
                 e);
    add_code(&rc, p->to, TAG_DERIVATION_CODE_SEQUENCE, p->task->image_type, PRIVATE_SCHEME,
             meaning ? meaning : "Super-resolution image synthesized by a neural network", e);
    return rc == 0 ? source_images(p, e) : rc;
}

/* Contributing Equipment (C.12.1): the model, and the scanner. */
static int contributors(const struct secondary_parts *p, struct err *e)
{
    static const uint32_t scanner[] = {TAG_INSTITUTION_NAME, TAG_STATION_NAME, TAG_MODEL_NAME,
                                       TAG_DEVICE_SERIAL_NUMBER, TAG_SOFTWARE_VERSIONS};
    const struct secondary_spec *spec = p->spec;
    int rc = 0;
    struct item *model = add(&rc, p->to, TAG_CONTRIBUTING_EQUIPMENT_SEQUENCE, e);
    add_code(&rc, model, TAG_PURPOSE_OF_REFERENCE_SEQUENCE, "109100", "DCM",
             "Synthesizing Equipment", e);
    put(&rc, model, TAG_MANUFACTURER, EQUIPMENT_NAME, e);
    put_plain(&rc, p, model, TAG_MODEL_NAME, spec->model_name, LO_CHARACTERS, e);
    put_plain(&rc, p, model, TAG_SOFTWARE_VERSIONS, spec->model_version, LO_CHARACTERS, e);
    put(&rc, model, TAG_CONTRIBUTION_DATE_TIME, spec->created, e);
    put_format(&rc, p, model, TAG_CONTRIBUTION_DESCRIPTION, ST_CHARACTERS, e,
               "task %s; model SHA-256 %s; engine %s%s%s", spec->task, spec->model_digest,
               spec->engine, spec->parameters[0] ? "; " : "", spec->parameters);

    struct item *acquired = add(&rc, p->to, TAG_CONTRIBUTING_EQUIPMENT_SEQUENCE, e);
    add_code(&rc, acquired, TAG_PURPOSE_OF_REFERENCE_SEQUENCE, "109101", "DCM",
             "Acquisition Equipment", e);
    if (rc == 0)
        rc = item_copy(acquired, p->from, TAG_MANUFACTURER, e);
    if (rc == 0 && item_count(acquired, TAG_MANUFACTURER) == 0)
        put(&rc, acquired, TAG_MANUFACTURER, "unknown", e); /* type 1 here */
    for (size_t i = 0; rc == 0 && i < sizeof scanner / sizeof *scanner; i++)
        rc = item_copy(acquired, p->from, scanner[i], e);
    return rc;
}

/* SOP Common (C.12.1). */
static int sop_common(const struct secondary_parts *p, struct err *e)
{
    const char *qualification = p->spec->qualification;
    int rc = 0;
    put(&rc, p->to, TAG_SOP_CLASS_UID, p->uids->sop_class_uid, e);
    put(&rc, p->to, TAG_SOP_INSTANCE_UID, p->uids->sop_instance_uid, e);
    put_created(&rc, p, TAG_INSTANCE_CREATION_DATE, TAG_INSTANCE_CREATION_TIME, e);
    put(&rc, p->to, TAG_SYNTHETIC_DATA, "YES", e);
    put(&rc, p->to, TAG_CONTENT_QUALIFICATION, qualification ? qualification : "RESEARCH", e);
    return rc;
}

int secondary_set_modules(const struct secondary_parts *p, struct err *e)
{
    int rc = sop_common(p, e);
    if (rc == 0)
        rc = patient_and_study(p, e);
    if (rc == 0)
        rc = series_and_equipment(p, e);
    if (rc == 0)
        rc = p->task->from_xray ? projection(p, e) : plane(p, e);
    if (rc == 0)
        rc = image(p, e);
    if (rc == 0 && p->spec->type == SECONDARY_MR)
        rc = mr_image(p, e);
    if (rc == 0)
        rc = derivation(p, e);
    if (rc == 0)
        rc = contributors(p, e);
    return rc;
}
