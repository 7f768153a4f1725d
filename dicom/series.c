/* series.c - see series.h; reading. What must hold of the geometry is in series_check.c */
#include "dicom/series.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/pool.h"
#include "node/base/slices.h"

#include "dicom/dataset.h"
#include "dicom/pixel.h"
#include "dicom/series_check.h"
#include "dicom/tags.h"

/* Most files that series_group() takes at once. */
#define GROUP_MAX_FILES 200000

/* Headers are read by so many threads at most, each with so many files to read at least. */
#define READERS         4
#define FILES_OF_READER 4

/* A series of no more slices keeps its files as they were read, if these are light. */
#define KEPT_MAX 64

const struct series_limits series_default_limits = {
    .slices = 512, .side = 8192, .position_mm = 0.01, .angle_cosine = 0.9995, .spacing_part = 0.1};

/* Copies the whole value, cut to fit; "" if there is none. */
static void read_text(const struct item *it, uint32_t tag, char *out, size_t size)
{
    char text[DATASET_TEXT_BYTES];
    item_all_text(it, tag, text, sizeof text);
    size_t n = strnlen(text, size - 1);
    memcpy(out, text, n);
    out[n] = '\0';
}

static double read_number(const struct item *it, uint32_t tag)
{
    double value;
    return item_number(it, tag, 0, &value) ? value : NAN;
}

/* The first SNOMED CT code in the sequence; "" if there is none. */
static void read_code(const struct item *it, uint32_t tag, char *out, size_t size)
{
    unsigned n = item_sequence_length(it, tag);
    out[0] = '\0';
    for (unsigned i = 0; i < n; i++) {
        const struct item *code = item_sequence_item(it, tag, i);
        char scheme[17];
        if (code && item_text(code, TAG_CODING_SCHEME_DESIGNATOR, 0, scheme, sizeof scheme) &&
            strcmp(scheme, "SCT") == 0 && item_text(code, TAG_CODE_VALUE, 0, out, size))
            return;
    }
}

static bool has_synthesizer(const struct item *it)
{
    unsigned n = item_sequence_length(it, TAG_CONTRIBUTING_EQUIPMENT_SEQUENCE);
    for (unsigned i = 0; i < n; i++) {
        const struct item *equipment =
            item_sequence_item(it, TAG_CONTRIBUTING_EQUIPMENT_SEQUENCE, i);
        if (equipment &&
            item_has_code(equipment, TAG_PURPOSE_OF_REFERENCE_SEQUENCE, "109100", "DCM"))
            return true;
    }
    return false;
}

static void read_facts(const struct item *it, struct series_facts *f)
{
#define TEXT(tag, field) read_text(it, tag, f->field, sizeof f->field)
    TEXT(TAG_MODALITY, modality);
    TEXT(TAG_IMAGE_TYPE, image_type);
    TEXT(TAG_SCANNING_SEQUENCE, scanning_sequence);
    TEXT(TAG_SEQUENCE_VARIANT, sequence_variant);
    TEXT(TAG_SCAN_OPTIONS, scan_options);
    TEXT(TAG_MR_ACQUISITION_TYPE, acquisition_type);
    TEXT(TAG_ACQUISITION_CONTRAST, acquisition_contrast);
    TEXT(TAG_SEQUENCE_NAME, sequence_name);
    TEXT(TAG_PROTOCOL_NAME, protocol_name);
    TEXT(TAG_SERIES_DESCRIPTION, series_description);
    TEXT(TAG_BODY_PART_EXAMINED, body_part);
    TEXT(TAG_CONTRAST_BOLUS_AGENT, contrast_agent);
    TEXT(TAG_VIEW_POSITION, view_position);
    TEXT(TAG_PATIENT_ORIENTATION, patient_orientation);
    TEXT(TAG_PHOTOMETRIC_INTERPRETATION, photometric);
    TEXT(TAG_PRESENTATION_INTENT_TYPE, presentation_intent);
    TEXT(TAG_SYNTHETIC_DATA, synthetic_data);
    TEXT(TAG_MANUFACTURER, manufacturer);
#undef TEXT
    read_code(it, TAG_ANATOMIC_REGION_SEQUENCE, f->region_code, sizeof f->region_code);
    read_code(it, TAG_VIEW_CODE_SEQUENCE, f->view_code, sizeof f->view_code);
    f->repetition_ms = read_number(it, TAG_REPETITION_TIME);
    f->echo_ms = read_number(it, TAG_ECHO_TIME);
    f->inversion_ms = read_number(it, TAG_INVERSION_TIME);
    f->flip_degrees = read_number(it, TAG_FLIP_ANGLE);
    f->field_tesla = read_number(it, TAG_MAGNETIC_FIELD_STRENGTH);
    f->echo_train = read_number(it, TAG_ECHO_TRAIN_LENGTH);
    f->samples_per_pixel = read_number(it, TAG_SAMPLES_PER_PIXEL);
    f->frames = read_number(it, TAG_NUMBER_OF_FRAMES);
    f->has_contrast_agent_sequence =
        item_sequence_length(it, TAG_CONTRAST_BOLUS_AGENT_SEQUENCE) > 0;
    f->has_synthesizer = has_synthesizer(it);
}

/* n numbers, all there and finite, and no more. */
static bool read_numbers(const struct item *it, uint32_t tag, unsigned n, double *out)
{
    if (item_count(it, tag) != n)
        return false;
    for (unsigned i = 0; i < n; i++)
        if (!item_number(it, tag, i, &out[i]))
            return false;
    return true;
}

/* What one file says, to be compared with the first. */
static void read_header(const struct item *it, struct series_header *h)
{
    int64_t number;
    *h = (struct series_header){0};
    item_text(it, TAG_STUDY_INSTANCE_UID, 0, h->study_uid, sizeof h->study_uid);
    item_text(it, TAG_SERIES_INSTANCE_UID, 0, h->series_uid, sizeof h->series_uid);
    item_text(it, TAG_SOP_CLASS_UID, 0, h->sop_class_uid, sizeof h->sop_class_uid);
    item_text(it, TAG_SOP_INSTANCE_UID, 0, h->sop_instance_uid, sizeof h->sop_instance_uid);
    item_text(it, TAG_FRAME_OF_REFERENCE_UID, 0, h->frame_uid, sizeof h->frame_uid);
    if (item_integer(it, TAG_ROWS, 0, &number) && number > 0 && number <= UINT16_MAX)
        h->rows = (unsigned)number;
    if (item_integer(it, TAG_COLUMNS, 0, &number) && number > 0 && number <= UINT16_MAX)
        h->columns = (unsigned)number;
    if (item_integer(it, TAG_INSTANCE_NUMBER, 0, &number) && number > 0 && number <= INT32_MAX)
        h->instance_number = (int)number;
    h->has_orientation = read_numbers(it, TAG_IMAGE_ORIENTATION_PATIENT, 6, h->orientation);
    h->has_position = read_numbers(it, TAG_IMAGE_POSITION_PATIENT, 3, h->position);
    h->has_spacing = read_numbers(it, TAG_PIXEL_SPACING, 2, h->spacing);
    h->has_imager_spacing = read_numbers(it, TAG_IMAGER_PIXEL_SPACING, 2, h->imager_spacing);
    h->thickness_mm = read_number(it, TAG_SLICE_THICKNESS);
    h->between_mm = read_number(it, TAG_SPACING_BETWEEN_SLICES);
    read_facts(it, &h->facts);
}

/* *kept becomes the file, for the caller to free, if it is light; kept may be NULL. */
static int read_one(const char *path, const struct dataset_limits *limits,
                    struct series_header *out, struct dataset **kept, struct err *e)
{
    struct dataset *d = NULL;
    int rc = dataset_open(path, limits, &d, e);
    if (rc == 0) {
        read_header(dataset_root(d), out);
        if (out->rows == 0 || out->columns == 0)
            rc = err_set(e, ERR_INVALID, "%s is no image: it has no Rows and Columns", path);
    }
    if (rc == 0 && kept && dataset_is_light(d)) {
        *kept = d;
        return 0;
    }
    dataset_free(d);
    return rc;
}

static void copy_uid(char out[UID_BYTES], const char in[UID_BYTES])
{
    memcpy(out, in, UID_BYTES);
}

/* Calls fn for each of n files, by several threads where it pays: slices_run(). */
static int each_file(size_t n, slices_fn *fn, void *arg, struct err *e)
{
    struct pool *pool = NULL;
    cpu_set_t set;
    size_t threads = sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
    threads = threads < READERS ? threads : READERS;
    threads = threads < n / FILES_OF_READER ? threads : n / FILES_OF_READER;
    if (threads > 1 && pool_new(&pool, (int)threads, false, NULL) != 0)
        pool = NULL; /* the caller's thread alone, then */
    int rc = slices_run(pool, 0, (unsigned)n, fn, arg, e);
    pool_free(pool);
    return rc;
}

struct reading {
    const char *const *paths;
    const struct series_limits *limits;
    struct series_header *headers;
    struct slice *slice;
    bool keep;
};

static int read_slice(void *arg, unsigned i, struct err *e)
{
    const struct reading *r = arg;
    struct slice *slice = &r->slice[i];
    const struct series_header *h = &r->headers[i];
    int rc =
        read_one(r->paths[i], r->limits->file, &r->headers[i], r->keep ? &slice->kept : NULL, e);
    if (rc != 0)
        return rc;
    copy_uid(slice->sop_instance_uid, h->sop_instance_uid);
    memcpy(slice->position_mm, h->position, sizeof slice->position_mm);
    slice->instance_number = h->instance_number;
    slice->path = strdup(r->paths[i]);
    return slice->path ? 0 : err_set(e, ERR_NOMEM, "no memory for the path of an image");
}

/* The series' own facts are those of its first file. */
static void start_series(struct series *s, const struct series_header *h)
{
    copy_uid(s->study_uid, h->study_uid);
    copy_uid(s->series_uid, h->series_uid);
    copy_uid(s->sop_class_uid, h->sop_class_uid);
    copy_uid(s->frame_of_reference_uid, h->frame_uid);
    s->facts = h->facts;
    s->rows = h->rows;
    s->columns = h->columns;
    s->slice_thickness_mm = h->thickness_mm;
}

int series_read(const char *const *paths, size_t n, const struct series_limits *limits,
                struct series **out, struct err *e)
{
    if (!limits)
        limits = &series_default_limits;
    if (n == 0)
        return err_set(e, ERR_INVALID, "a series without images");
    bool too_many = n > limits->slices;
    size_t kept = too_many ? 1 : n;
    int rc = 0;
    struct series *s = calloc(1, sizeof *s);
    struct series_header *headers = calloc(kept, sizeof *headers);
    if (s)
        s->slice = calloc(kept, sizeof *s->slice);
    if (!s || !headers || !s->slice) {
        rc = err_set(e, ERR_NOMEM, "no memory for a series of %zu images", n);
        goto out;
    }
    s->slices = (unsigned)kept;
    rc = each_file(kept, read_slice,
                   &(struct reading){paths, limits, headers, s->slice, kept <= KEPT_MAX}, e);
    if (rc != 0)
        goto out;
    start_series(s, &headers[0]);
    if (too_many)
        err_set(&s->problem, ERR_LIMIT,
                "series has %zu images, more than the limit of %u (limits: slices)", n,
                limits->slices);
    else
        series_check(s, headers, limits);
    *out = s;
    s = NULL;
out:
    free(headers);
    series_free(s);
    return rc;
}

void series_free(struct series *s)
{
    if (!s)
        return;
    for (unsigned i = 0; s->slice && i < s->slices; i++) {
        dataset_free(s->slice[i].kept);
        free(s->slice[i].path);
    }
    free(s->slice);
    free(s);
}

int series_open(const struct series *s, unsigned index, struct dataset **out, struct err *e)
{
    const struct slice *slice = &s->slice[index];
    if (!slice->kept)
        return dataset_open(slice->path, NULL, out, e);
    *out = slice->kept;
    return 0;
}

void series_close(const struct series *s, unsigned index, struct dataset *d)
{
    if (d != s->slice[index].kept)
        dataset_free(d);
}

int series_pixels(const struct series *s, unsigned index, float *out, size_t capacity,
                  struct err *e)
{
    if (s->problem.code != 0)
        return err_set(e, ERR_REFUSED, "%s", s->problem.text);
    if (index >= s->slices || capacity < (size_t)s->rows * s->columns)
        return err_set(e, ERR_BUG, "slice %u of %u asked for, into room for %zu pixels", index,
                       s->slices, capacity);
    const char *path = s->slice[index].path;
    struct dataset *d = NULL;
    struct pixel_info info;
    int rc = series_open(s, index, &d, e);
    if (rc == 0)
        rc = pixel_info(d, &info, e);
    if (rc == 0 && (info.rows != s->rows || info.columns != s->columns))
        rc = err_set(e, ERR_INVALID, "image has changed since the series was read");
    if (rc == 0)
        rc = pixel_decode(d, 0, out, capacity, e);
    if (rc == 0) /* now: pixels came from the file that it still is */
        rc = dataset_unchanged(d, path, e);
    if (rc != 0)
        err_context(e, "%s", path);
    series_close(s, index, d);
    return rc;
}

/* The number of uid in a list of count, or count if it is not there; last is where the one before
 * was found. */
static int find_uid(char (*uids)[UID_BYTES], int count, int last, const char *uid)
{
    if (last >= 0 && strcmp(uids[last], uid) == 0)
        return last;
    for (int k = 0; k < count; k++)
        if (strcmp(uids[k], uid) == 0)
            return k;
    return count;
}

struct naming {
    const char *const *paths;
    char (*series_uid)[UID_BYTES]; /* "": no readable image */
};

static int read_name(void *arg, unsigned i, struct err *e)
{
    const struct naming *n = arg;
    struct series_header h;
    (void)e; /* what cannot be read belongs to no series */
    if (read_one(n->paths[i], NULL, &h, NULL, NULL) == 0)
        copy_uid(n->series_uid[i], h.series_uid);
    return 0;
}

int series_group(const char *const *paths, size_t n, int **group, struct err *e)
{
    if (n > GROUP_MAX_FILES)
        return err_set(e, ERR_LIMIT, "%zu files are more than the limit of %d", n, GROUP_MAX_FILES);
    int count = 0, capacity = 0, last = -1, rc = 0;
    char(*uids)[UID_BYTES] = NULL;
    int *numbers = calloc(n ? n : 1, sizeof *numbers);
    char(*names)[UID_BYTES] = calloc(n ? n : 1, sizeof *names);
    if (!numbers || !names) {
        rc = err_set(e, ERR_NOMEM, "no memory to group %zu files", n);
        goto out;
    }
    each_file(n, read_name, &(struct naming){paths, names}, NULL);
    for (size_t i = 0; i < n; i++) {
        numbers[i] = -1;
        if (names[i][0] == '\0')
            continue;
        last = find_uid(uids, count, last, names[i]);
        numbers[i] = last;
        if (last < count)
            continue;
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            void *grown = realloc(uids, (size_t)capacity * sizeof *uids);
            if (!grown) {
                rc = err_set(e, ERR_NOMEM, "no memory to group %zu files", n);
                goto out;
            }
            uids = grown;
        }
        copy_uid(uids[count++], names[i]);
    }
    *group = numbers;
    numbers = NULL;
    rc = count;
out:
    free(numbers);
    free(names);
    free(uids);
    return rc;
}
