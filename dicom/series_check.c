/* series_check.c - see series_check.h */
#include "dicom/series_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/sop.h"

/* Direction cosines: how far a length may be from 1, and their product from 0 (a right angle). */
#define UNIT_TOLERANCE  1e-2
#define ANGLE_TOLERANCE 1e-2

/* Two acquisitions are the same protocol if their times differ by less than this part. */
#define TIME_PART 0.01

/* A neighbour may be shifted within its plane by this, in mm. */
#define SHIFT_MM 2.0

/* Field of view per pixel that a scanner or an x-ray detector can have, in mm. */
#define SPACING_MIN_MM 0.01
#define SPACING_MAX_MM 50.0

static double dot(const double a[3], const double b[3])
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

bool series_is_xray(const struct series *s)
{
    return strcmp(s->sop_class_uid, SOP_CR) == 0 ||
           strcmp(s->sop_class_uid, SOP_DX_PRESENTATION) == 0 ||
           strcmp(s->sop_class_uid, SOP_DX_PROCESSING) == 0;
}

static void problem(struct series *s, const char *text)
{
    err_set(&s->problem, ERR_REFUSED, "%s", text);
}

/* Both missing, or near each other. */
static bool same_time(double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    return fabs(a - b) <= TIME_PART * fmax(fabs(a), fabs(b));
}

/* The first three values: what later ones say (filters) may differ from image to image. */
static bool same_image_type(const char *a, const char *b)
{
    for (int values = 0; values < 3; a++, b++) {
        bool end_a = *a == '\0' || *a == '\\', end_b = *b == '\0' || *b == '\\';
        if (end_a != end_b || (!end_a && *a != *b))
            return false;
        if (end_a && (*a == '\0' || *b == '\0'))
            return *a == *b || values == 2;
        if (end_a)
            values++;
    }
    return true;
}

/* What differs between two images' protocols, NULL if nothing does. */
static const char *protocol_difference(const struct series_facts *a, const struct series_facts *b)
{
    if (strcmp(a->modality, b->modality) != 0)
        return "Modality";
    if (strcmp(a->photometric, b->photometric) != 0)
        return "PhotometricInterpretation";
    if (strcmp(a->scanning_sequence, b->scanning_sequence) != 0)
        return "ScanningSequence";
    if (!same_time(a->repetition_ms, b->repetition_ms))
        return "RepetitionTime";
    if (!same_time(a->echo_ms, b->echo_ms))
        return "EchoTime";
    if (!same_time(a->inversion_ms, b->inversion_ms))
        return "InversionTime";
    if (strcmp(a->synthetic_data, b->synthetic_data) != 0)
        return "SyntheticData";
    if (a->has_synthesizer != b->has_synthesizer)
        return "ContributingEquipmentSequence";
    if (strcmp(a->contrast_agent, b->contrast_agent) != 0)
        return "ContrastBolusAgent";
    if (!same_image_type(a->image_type, b->image_type))
        return "ImageType";
    return NULL;
}

static int compare_uids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Is some SOP instance there twice? */
static bool has_same_instance_twice(const struct series_header *h, unsigned n, bool *twice)
{
    const char **uids = calloc(n, sizeof *uids);
    if (!uids)
        return false;
    for (unsigned i = 0; i < n; i++)
        uids[i] = h[i].sop_instance_uid;
    qsort(uids, n, sizeof *uids, compare_uids);
    *twice = false;
    for (unsigned i = 1; i < n; i++)
        *twice = *twice || strcmp(uids[i - 1], uids[i]) == 0;
    free(uids);
    return true;
}

/* All images belong together: one series, one size, one protocol. */
static void check_identity(struct series *s, const struct series_header *h,
                           const struct series_limits *limits)
{
    bool twice = false;
    for (unsigned i = 1; i < s->slices; i++) {
        if (strcmp(h[i].series_uid, h[0].series_uid) != 0 ||
            strcmp(h[i].study_uid, h[0].study_uid) != 0)
            return problem(s, "images of several series or studies were given as one series");
        if (strcmp(h[i].sop_class_uid, h[0].sop_class_uid) != 0)
            return problem(s, "images of several SOP classes under one SeriesInstanceUID");
        if (h[i].rows != h[0].rows || h[i].columns != h[0].columns) {
            err_set(&s->problem, ERR_REFUSED,
                    "images of several sizes under one SeriesInstanceUID (%u × %u and %u × %u)",
                    h[0].rows, h[0].columns, h[i].rows, h[i].columns);
            return;
        }
        const char *what = protocol_difference(&h[0].facts, &h[i].facts);
        if (what) {
            err_set(&s->problem, ERR_REFUSED,
                    "several protocols under one SeriesInstanceUID: %s is not the same in all "
                    "images",
                    what);
            return;
        }
    }
    if (!has_same_instance_twice(h, s->slices, &twice)) {
        err_set(&s->problem, ERR_NOMEM, "no memory to check a series");
    } else if (twice) {
        problem(s, "the same SOPInstanceUID twice in one series");
    } else if (h[0].facts.samples_per_pixel != 1 ||
               strncmp(h[0].facts.photometric, "MONOCHROME", 10) != 0) {
        problem(s, "colour images: only grey ones are processed");
    } else if (h[0].facts.frames > 1) {
        err_set(&s->problem, ERR_UNSUPPORTED, "multi-frame images are not supported");
    } else if (s->rows > limits->side || s->columns > limits->side) {
        err_set(&s->problem, ERR_LIMIT,
                "images of %u × %u pixels, more than the limit of %u (limits: side)", s->rows,
                s->columns, limits->side);
    }
}

/* The direction cosines of one image: unit vectors at a right angle. */
static bool orientation_is_sound(const double o[6])
{
    return fabs(sqrt(dot(o, o)) - 1) <= UNIT_TOLERANCE &&
           fabs(sqrt(dot(o + 3, o + 3)) - 1) <= UNIT_TOLERANCE &&
           fabs(dot(o, o + 3)) <= ANGLE_TOLERANCE;
}

static bool spacing_is_sound(const double spacing[2])
{
    return spacing[0] >= SPACING_MIN_MM && spacing[0] <= SPACING_MAX_MM &&
           spacing[1] >= SPACING_MIN_MM && spacing[1] <= SPACING_MAX_MM;
}

static void check_planes(struct series *s, const struct series_header *h,
                         const struct series_limits *limits)
{
    for (unsigned i = 0; i < s->slices; i++) {
        const char *missing = !h[i].has_orientation ? "ImageOrientationPatient"
                              : !h[i].has_position  ? "ImagePositionPatient"
                              : !h[i].has_spacing   ? "PixelSpacing"
                                                    : NULL;
        if (missing) {
            err_set(&s->problem, ERR_REFUSED, "missing geometry: %s is missing or incomplete",
                    missing);
            return;
        }
        if (!orientation_is_sound(h[i].orientation))
            return problem(s, "ImageOrientationPatient is no pair of perpendicular unit vectors");
        if (!spacing_is_sound(h[i].spacing))
            return problem(s, "PixelSpacing is not a size that an image can have");
        if (dot(h[i].orientation, h[0].orientation) < limits->angle_cosine ||
            dot(h[i].orientation + 3, h[0].orientation + 3) < limits->angle_cosine)
            return problem(s, "images of several orientations under one SeriesInstanceUID");
        if (fabs(h[i].spacing[0] - h[0].spacing[0]) > 1e-3 * h[0].spacing[0] ||
            fabs(h[i].spacing[1] - h[0].spacing[1]) > 1e-3 * h[0].spacing[1])
            return problem(s, "images of several PixelSpacing under one SeriesInstanceUID");
        if (strcmp(h[i].frame_uid, h[0].frame_uid) != 0)
            return problem(s, "images of several frames of reference under one SeriesInstanceUID");
    }
    if (h[0].frame_uid[0] == '\0')
        problem(s, "missing geometry: FrameOfReferenceUID is missing");
}

static void set_geometry(struct series *s, const struct series_header *h)
{
    const double *r = h[0].orientation, *c = h[0].orientation + 3;
    s->has_geometry = true;
    s->row_spacing_mm = h[0].spacing[0];
    s->column_spacing_mm = h[0].spacing[1];
    memcpy(s->row_direction, r, sizeof s->row_direction);
    memcpy(s->column_direction, c, sizeof s->column_direction);
    s->normal[0] = r[1] * c[2] - r[2] * c[1];
    s->normal[1] = r[2] * c[0] - r[0] * c[2];
    s->normal[2] = r[0] * c[1] - r[1] * c[0];
    double length = sqrt(dot(s->normal, s->normal));
    for (int k = 0; k < 3; k++)
        s->normal[k] /= length;
    for (unsigned i = 0; i < s->slices; i++)
        s->slice[i].location_mm = dot(s->slice[i].position_mm, s->normal);
}

/* By location; by instance, so that equal locations do not depend on the order of the files. */
static int compare_slices(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    if (x->location_mm != y->location_mm)
        return x->location_mm < y->location_mm ? -1 : 1;
    return strcmp(x->sop_instance_uid, y->sop_instance_uid);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The lower median of the steps between neighbours; 0 if there is no memory. */
static double median_step(const struct series *s)
{
    unsigned n = s->slices - 1;
    double *steps = calloc(n, sizeof *steps), median = 0;
    if (!steps)
        return 0;
    for (unsigned i = 0; i < n; i++)
        steps[i] = s->slice[i + 1].location_mm - s->slice[i].location_mm;
    qsort(steps, n, sizeof *steps, compare_doubles);
    median = steps[(n - 1) / 2];
    free(steps);
    return median;
}

/* One step is not like the others: are slices missing there, or is the stack just uneven? */
static void report_step(struct series *s, unsigned at, double step, double usual)
{
    double times = step / usual, missing = round(times) - 1;
    if (missing >= 1 && fabs(times - round(times)) <= 0.1 * round(times))
        err_set(&s->problem, ERR_REFUSED,
                "missing slices: %.0f between image %u and %u of %u (%.2f mm apart, %.2f mm "
                "elsewhere)",
                missing, at + 1, at + 2, s->slices, step, usual);
    else
        err_set(&s->problem, ERR_REFUSED,
                "uneven slice spacing: image %u and %u of %u are %.2f mm apart, others %.2f mm",
                at + 1, at + 2, s->slices, step, usual);
}

/* Distance of neighbours within their plane. */
static double shift_mm(const struct series *s, unsigned i)
{
    double between[3];
    for (int k = 0; k < 3; k++)
        between[k] = s->slice[i + 1].position_mm[k] - s->slice[i].position_mm[k];
    return hypot(dot(between, s->row_direction), dot(between, s->column_direction));
}

static void check_steps(struct series *s, const struct series_header *h,
                        const struct series_limits *limits)
{
    if (s->slices == 1) {
        s->slice_spacing_mm = isnan(s->slice_thickness_mm) ? 0 : s->slice_thickness_mm;
        return problem(s, "only one slice: a series of at least two is needed");
    }
    unsigned same = 0, at = 0;
    for (unsigned i = 0; i + 1 < s->slices; i++) {
        if (s->slice[i + 1].location_mm - s->slice[i].location_mm < limits->position_mm) {
            at = same == 0 ? i : at;
            same++;
        }
    }
    if (same > 0) {
        err_set(&s->problem, ERR_REFUSED,
                "duplicate slice positions: %u images lie where another one does, first at "
                "image %u of %u in order of position (several echoes, phases or repetitions?)",
                same, at + 2, s->slices);
        return;
    }
    double usual = median_step(s);
    if (usual <= 0) {
        err_set(&s->problem, ERR_NOMEM, "no memory to check a series");
        return;
    }
    s->slice_spacing_mm = usual;
    for (unsigned i = 0; i + 1 < s->slices; i++) {
        double step = s->slice[i + 1].location_mm - s->slice[i].location_mm;
        if (fabs(step - usual) > limits->spacing_part * usual)
            return report_step(s, i, step, usual);
        if (shift_mm(s, i) > SHIFT_MM) {
            err_set(&s->problem, ERR_REFUSED,
                    "slices are shifted against each other: image %u and %u by %.1f mm in plane",
                    i + 1, i + 2, shift_mm(s, i));
            return;
        }
    }
    /* Every other slice missing leaves an even stack. Spacing Between Slices tells, unless a
     * scanner has put the gap there, which is less than the thickness. */
    double said = h[0].between_mm, times = usual / said;
    if (said > 0 && said >= 0.9 * s->slice_thickness_mm && round(times) >= 2 &&
        fabs(times - round(times)) <= limits->spacing_part)
        err_set(&s->problem, ERR_REFUSED,
                "missing slices: images are %.2f mm apart, SpacingBetweenSlices says %.2f mm",
                usual, said);
}

void series_check(struct series *s, const struct series_header *h,
                  const struct series_limits *limits)
{
    check_identity(s, h, limits);
    if (s->problem.code != 0)
        return;
    if (series_is_xray(s)) {
        s->frame_of_reference_uid[0] = '\0';
        if (s->slices > 1)
            err_set(&s->problem, ERR_REFUSED,
                    "x-ray series of %u images: one image alone is processed", s->slices);
        const double *spacing = h[0].has_imager_spacing ? h[0].imager_spacing
                                : h[0].has_spacing      ? h[0].spacing
                                                        : NULL;
        if (spacing && spacing_is_sound(spacing)) {
            s->row_spacing_mm = spacing[0];
            s->column_spacing_mm = spacing[1];
        }
        return;
    }
    check_planes(s, h, limits);
    if (s->problem.code != 0)
        return;
    set_geometry(s, h);
    qsort(s->slice, s->slices, sizeof *s->slice, compare_slices);
    check_steps(s, h, limits);
}
