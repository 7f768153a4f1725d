/* test_dicom_objects.c - UIDs, the visible mark, geometry checks, windows, decimals */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dicom/banner.h"
#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "dicom/secondary.h"
#include "dicom/series.h"
#include "dicom/series_check.h"
#include "dicom/tags.h"
#include "dicom/uid.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "node/base/pool.h"

static void uid__is_the_digest_as_a_version_8_uuid(void **state)
{
    (void)state;
    const char *const parts[] = {"a", "bc"};
    char uid[UID_BYTES];
    assert_int_equal(uid_derive(uid, "salt", parts, 2, NULL), 0);
    /* Python: SHA-256 of b"salt\0a\0bc\0", first 16 bytes, version and variant set */
    assert_string_equal(uid, "2.25.116597007811346234185001638552715890071");
    assert_true(uid_is_valid(uid));
}

static void uid__differs_when_parts_are_cut_elsewhere(void **state)
{
    (void)state;
    const char *const one[] = {"a", "bc"}, *const two[] = {"ab", "c"};
    char a[UID_BYTES], b[UID_BYTES];
    uid_derive(a, "salt", one, 2, NULL);
    uid_derive(b, "salt", two, 2, NULL);
    assert_string_not_equal(a, b);
    uid_derive(b, "other", one, 2, NULL);
    assert_string_not_equal(a, b);
}

static void uid__validity_follows_part_5(void **state)
{
    (void)state;
    const char *const good[] = {"1.2.840.10008.1.1", "2.25.0", "0",
                                "1234567890123456789012345678901234567890123456789012345678901234"};
    const char *const bad[] = {
        "",     ".",    "1.",
        ".1",   "1..2", "1.02",
        "1.2a", " 1.2", "12345678901234567890123456789012345678901234567890123456789012345"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(uid_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(uid_is_valid(bad[i]));
}

/* ---- the mark ---- */

#define GREY 100

static uint16_t *grey_image(unsigned rows, unsigned columns)
{
    uint16_t *pixels = malloc((size_t)rows * columns * sizeof *pixels);
    assert_non_null(pixels);
    for (size_t i = 0; i < (size_t)rows * columns; i++)
        pixels[i] = GREY;
    return pixels;
}

static void banner__takes_a_strip_at_the_top_and_nothing_else(void **state)
{
    (void)state;
    static const unsigned sizes[][2] = {{64, 48},   {72, 64},    {128, 128},  {256, 256},
                                        {512, 512}, {320, 1024}, {2048, 1024}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned rows = sizes[i][0], columns = sizes[i][1], bright = 0;
        unsigned height = banner_height(rows, columns);
        uint16_t *pixels = grey_image(rows, columns);
        assert_int_equal(banner_draw(pixels, rows, columns, "T2>TIRM", 1, 999, NULL), 0);
        assert_true(height >= 11 && height <= (rows > 110 ? rows / 10 : rows / 5));
        for (size_t k = 0; k < (size_t)rows * columns; k++) {
            if (k < (size_t)height * columns) {
                assert_true(pixels[k] == 1 || pixels[k] == 999);
                bright += pixels[k] == 999;
            } else {
                assert_int_equal(pixels[k], GREY);
            }
        }
        assert_true(bright > 60); /* five letters at least */
        free(pixels);
    }
}

/* Text columns with something bright in them, from the left. */
static unsigned text_width(const uint16_t *pixels, unsigned columns, unsigned height)
{
    for (unsigned c = columns; c > 0; c--)
        for (unsigned r = 0; r < height; r++)
            if (pixels[(size_t)r * columns + c - 1] == 999)
                return c;
    return 0;
}

static void banner__grows_with_the_image_and_fits_it(void **state)
{
    (void)state;
    unsigned height = banner_height(256, 256);
    uint16_t *pixels = grey_image(256, 256);
    banner_draw(pixels, 256, 256, "T2>T1", 1, 999, NULL);
    assert_int_equal(height, 11);
    /* "SYNTHETIC - AI T2>T1 - NOT AN ACQUISITION": 41 characters of 6 columns */
    assert_int_equal(text_width(pixels, 256, height), 2 + 41 * 6 - 1);
    free(pixels);
    pixels = grey_image(256, 256); /* two characters too many: the hyphen goes, not the warning */
    banner_draw(pixels, 256, 256, "T2>TIRM", 1, 999, NULL);
    assert_int_equal(text_width(pixels, 256, height), 2 + 41 * 6 - 1);
    free(pixels);
    pixels = grey_image(512, 512);
    height = banner_height(512, 512);
    banner_draw(pixels, 512, 512, "T2>T1", 1, 999, NULL);
    assert_int_equal(height, 22);
    assert_int_equal(text_width(pixels, 512, height), 2 * (2 + 41 * 6 - 1));
    free(pixels);
}

static void banner__refuses_images_too_small_to_carry_it(void **state)
{
    (void)state;
    uint16_t *pixels = grey_image(63, 64);
    struct err e = {0};
    assert_int_equal(banner_draw(pixels, 63, 64, "", 1, 999, &e), ERR_LIMIT);
    assert_int_equal(pixels[0], GREY);
    free(pixels);
}

/* ---- geometry, without files ---- */

#define SLICES 6

struct stack {
    struct series s;
    struct slice slice[SLICES];
    struct series_header h[SLICES];
};

/* A sound sagittal stack, given in a shuffled order. */
static struct stack *stack_new(void)
{
    static const unsigned order[SLICES] = {4, 0, 3, 5, 1, 2};
    struct stack *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (unsigned i = 0; i < SLICES; i++) {
        struct series_header *h = &t->h[i];
        strcpy(h->series_uid, "1.2");
        strcpy(h->sop_class_uid, "1.2.840.10008.5.1.4.1.1.4");
        snprintf(h->sop_instance_uid, sizeof h->sop_instance_uid, "1.2.3.%u", order[i]);
        strcpy(h->frame_uid, "1.9");
        strcpy(h->facts.photometric, "MONOCHROME2");
        h->facts.samples_per_pixel = 1;
        h->facts.frames = NAN;
        h->facts.inversion_ms = NAN;
        h->rows = h->columns = 64;
        h->has_orientation = h->has_position = h->has_spacing = true;
        memcpy(h->orientation, (const double[]){0, 1, 0, 0, 0, -1}, sizeof h->orientation);
        h->position[0] = -4.0 * order[i];
        h->spacing[0] = 0.5, h->spacing[1] = 0.6;
        h->thickness_mm = 3.5;
        h->between_mm = NAN;
        memcpy(t->slice[i].position_mm, h->position, sizeof h->position);
        strcpy(t->slice[i].sop_instance_uid, h->sop_instance_uid);
    }
    strcpy(t->s.sop_class_uid, t->h[0].sop_class_uid);
    strcpy(t->s.frame_of_reference_uid, "1.9");
    t->s.facts = t->h[0].facts;
    t->s.rows = t->s.columns = 64;
    t->s.slices = SLICES;
    t->s.slice = t->slice;
    t->s.slice_thickness_mm = 3.5;
    return t;
}

static void move_slice(struct stack *t, unsigned i, double x)
{
    t->h[i].position[0] = t->slice[i].position_mm[0] = x;
}

static void series_check__sorts_along_the_normal(void **state)
{
    (void)state;
    struct stack *t = stack_new();
    series_check(&t->s, t->h, &series_default_limits);
    assert_int_equal(t->s.problem.code, 0);
    assert_true(t->s.has_geometry);
    /* row (0,1,0) × column (0,0,-1) = (-1,0,0): smaller x is further along */
    assert_true(t->s.normal[0] == -1);
    for (unsigned i = 0; i < SLICES; i++) {
        char uid[UID_BYTES];
        snprintf(uid, sizeof uid, "1.2.3.%u", i);
        assert_string_equal(t->slice[i].sop_instance_uid, uid);
        assert_true(t->slice[i].location_mm == 4.0 * i);
    }
    assert_true(t->s.slice_spacing_mm == 4);
    assert_true(t->s.row_spacing_mm == 0.5 && t->s.column_spacing_mm == 0.6);
    free(t);
}

static void series_check__counts_what_is_missing(void **state)
{
    (void)state;
    struct stack *t = stack_new();
    move_slice(t, 3, -4.0 * 8); /* the last one: three more gone before it */
    series_check(&t->s, t->h, &series_default_limits);
    assert_int_equal(t->s.problem.code, ERR_REFUSED);
    assert_non_null(strstr(t->s.problem.text, "missing slices: 3 between image 5 and 6 of 6"));
    free(t);
}

static void series_check__spacing_tolerance_is_the_limits(void **state)
{
    (void)state;
    struct series_limits limits = series_default_limits;
    struct stack *t = stack_new();
    move_slice(t, 3, -20.3); /* 4.3 instead of 4: 7.5 % */
    series_check(&t->s, t->h, &limits);
    assert_int_equal(t->s.problem.code, 0);
    free(t);
    t = stack_new();
    move_slice(t, 3, -20.3);
    limits.spacing_part = 0.05;
    series_check(&t->s, t->h, &limits);
    assert_non_null(strstr(t->s.problem.text, "uneven slice spacing"));
    free(t);
}

static void series_check__gap_attribute_of_some_scanners_is_no_gap(void **state)
{
    (void)state;
    struct stack *t = stack_new();
    t->h[0].between_mm = 0.5; /* the gap, where the standard wants 4 */
    series_check(&t->s, t->h, &series_default_limits);
    assert_int_equal(t->s.problem.code, 0);
    free(t);
}

/* ---- recognition of a struct ---- */

static void recognise__thresholds_are_the_options(void **state)
{
    (void)state;
    struct stack *t = stack_new();
    struct recognise_options options = recognise_defaults;
    struct recognition r;
    struct series_facts *f = &t->s.facts;
    strcpy(f->scanning_sequence, "SE");
    strcpy(f->body_part, "LSPINE");
    f->repetition_ms = 1800;
    f->echo_ms = 80;
    series_check(&t->s, t->h, &series_default_limits);
    recognise(&t->s, NULL, &r);
    assert_string_equal(r.contrast, "unknown");
    assert_int_equal(r.refusal.code, ERR_REFUSED);
    options.t2_min_tr_ms = 1700;
    recognise(&t->s, &options, &r);
    assert_string_equal(r.contrast, "T2");
    assert_int_equal(r.refusal.code, 0);
    options = recognise_defaults;
    options.assume_contrast = "T1";
    recognise(&t->s, &options, &r);
    assert_string_equal(r.contrast, "T1");
    assert_int_equal(r.refusal.code, 0);
    free(t);
}

static void recognise__assumed_contrast_does_not_open_the_loop_guard(void **state)
{
    (void)state;
    struct stack *t = stack_new();
    struct recognise_options options = recognise_defaults;
    struct recognition r;
    options.assume_contrast = "T2";
    options.allow_unknown_body_part = true;
    strcpy(t->s.facts.synthetic_data, "YES");
    series_check(&t->s, t->h, &series_default_limits);
    recognise(&t->s, &options, &r);
    assert_int_equal(r.refusal.code, ERR_REFUSED);
    free(t);
}

/* ---- values ---- */

static void window__spans_the_values_without_background_and_outliers(void **state)
{
    (void)state;
    enum { N = 100000 };
    uint16_t *values = calloc(N, sizeof *values);
    double centre = 0, width = 0;
    assert_non_null(values);
    for (int i = 0; i < N / 2; i++)
        values[i] = (uint16_t)(500 + i % 1001); /* 500 … 1500, half of the pixels; the rest 0 */
    values[0] = 4095;
    for (int threads = 1; threads < 7; threads += 2) {
        struct pool *pool = NULL;
        assert_int_equal(pool_new(&pool, threads, false, NULL), 0);
        secondary_window(values, N, pool, &centre, &width);
        assert_true(fabs(centre - 1000) < 10);
        assert_true(fabs(width - 990) < 15);
        /* Two values with nothing between them, at the ends of what each thread counts. */
        uint16_t ends[5] = {700, 0, 0, 0, 900};
        secondary_window(ends, 5, pool, &centre, &width);
        assert_true(centre == 800 && width == 200);
        pool_free(pool);
    }
    memset(values, 0, N * sizeof *values);
    secondary_window(values, N, NULL, &centre, &width);
    assert_true(width >= 1);
    free(values);
}

static void decimals__read_back_and_have_no_exponent(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{-100, "-100"},
                 {4.4, "4.4"},
                 {4.3999999999999986, "4.4"},
                 {0.1 + 0.2, "0.3"},
                 {-0.0, "0"},
                 {1e6, "1000000"},
                 {0.00001, "0.00001"},
                 {1.0 / 3, "0.33333333333333"},
                 {123456.789, "123456.789"}};
    struct dataset *d = dataset_new();
    char text[DATASET_TEXT_BYTES];
    assert_int_equal(dicom_init(NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct item *root = dataset_root(d);
        assert_int_equal(item_set_decimals(root, TAG_SLICE_LOCATION, &cases[i].value, 1, NULL), 0);
        assert_true(item_all_text(root, TAG_SLICE_LOCATION, text, sizeof text));
        assert_string_equal(text, cases[i].text);
    }
    double bad = NAN;
    assert_int_equal(item_set_decimals(dataset_root(d), TAG_SLICE_LOCATION, &bad, 1, NULL),
                     ERR_NUMERIC);
    dataset_free(d);
}

static void dataset__reads_what_was_set_and_nothing_else(void **state)
{
    (void)state;
    struct dataset *d = dataset_new();
    struct item *root = dataset_root(d), *code = NULL;
    char text[DATASET_TEXT_BYTES];
    double number;
    int64_t integer;
    assert_int_equal(dicom_init(NULL), 0);
    assert_int_equal(item_set_text(root, TAG_SYNTHETIC_DATA, "YES", NULL), 0);
    assert_true(item_text(root, TAG_SYNTHETIC_DATA, 0, text, sizeof text));
    assert_string_equal(text, "YES");
    assert_false(item_text(root, TAG_SYNTHETIC_DATA, 1, text, sizeof text));
    assert_false(item_text(root, TAG_SYNTHETIC_DATA, 0, text, 3));
    assert_string_equal(text, "");
    assert_int_equal(item_set_text(root, TAG_ECHO_TIME, " 1e2 ", NULL), 0);
    assert_true(item_number(root, TAG_ECHO_TIME, 0, &number) && number == 100);
    const char *const no_numbers[] = {"12x", "nan", "inf", "0x10", "1e999", "", "  "};
    for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++) {
        item_set_text(root, TAG_ECHO_TIME, no_numbers[i], NULL);
        assert_false(item_number(root, TAG_ECHO_TIME, 0, &number));
    }
    assert_int_equal(item_set_integer(root, TAG_ROWS, 70000, NULL), ERR_INVALID);
    assert_int_equal(item_set_integer(root, TAG_ROWS, 512, NULL), 0);
    assert_true(item_integer(root, TAG_ROWS, 0, &integer) && integer == 512);
    assert_int_equal(item_add_code(root, TAG_VIEW_CODE_SEQUENCE, "1", "SCT", "x", NULL), 0);
    assert_int_equal(item_add(root, TAG_VIEW_CODE_SEQUENCE, &code, NULL), 0);
    assert_int_equal(item_sequence_length(root, TAG_VIEW_CODE_SEQUENCE), 2);
    assert_true(item_has_code(root, TAG_VIEW_CODE_SEQUENCE, "1", "SCT"));
    assert_false(item_has_code(root, TAG_VIEW_CODE_SEQUENCE, "1", "DCM"));
    assert_null(item_sequence_item(root, TAG_VIEW_CODE_SEQUENCE, 2));
    assert_null(item_sequence_item(root, TAG_ROWS, 0));
    dataset_free(d);
    dataset_free(NULL);
}

static void dataset__pixels_are_the_end_of_the_file(void **state)
{
    (void)state;
    static const uint16_t words[] = {0x0102, 0x0a0b, 0x0c0d};
    static const uint8_t end[] = {0xe0, 0x7f, 0x10, 0x00, 'O',  'W',  0,    0,    6,
                                  0,    0,    0,    0x02, 0x01, 0x0b, 0x0a, 0x0d, 0x0c};
    const struct dataset_words pixels[] = {{words, 1}, {words + 1, 2}};
    char folder[] = "/tmp/spinenode-objects-XXXXXX", path[64];
    struct dataset *d = dataset_new();
    struct item *root = dataset_root(d), *added = NULL;
    struct buf bytes, alone;
    buf_init(&bytes, 65536);
    buf_init(&alone, 65536);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/image", folder);
    assert_int_equal(dicom_init(NULL), 0);
    assert_int_equal(item_set_text(root, TAG_SOP_CLASS_UID, "1.2", NULL), 0);
    assert_int_equal(item_set_text(root, TAG_SOP_INSTANCE_UID, "1.3", NULL), 0);
    assert_int_equal(dataset_encode(d, &alone, NULL), 0);
    assert_int_equal(dataset_write(d, pixels, 2, path, NULL), 0);
    assert_int_equal(file_read(path, &bytes, NULL), 0);
    unlink(path);
    assert_int_equal(bytes.len, alone.len + sizeof end);
    assert_memory_equal(bytes.data, alone.data, alone.len);
    assert_memory_equal(bytes.data + alone.len, end, sizeof end);
    /* Behind this one Pixel Data would be out of order. */
    assert_int_equal(item_add(root, 0xfffafffa, &added, NULL), 0);
    assert_int_equal(dataset_write(d, pixels, 2, path, NULL), ERR_INVALID);
    assert_int_equal(access(path, F_OK), -1);
    rmdir(folder);
    buf_fini(&bytes);
    buf_fini(&alone);
    dataset_free(d);
}

/* A slice with so many private elements besides, and maybe pixels; the file's path. */
static void write_slice(const char *folder, unsigned privates, bool pixels, char path[64])
{
    static const uint32_t uids[] = {TAG_SOP_CLASS_UID, TAG_STUDY_INSTANCE_UID,
                                    TAG_SERIES_INSTANCE_UID, TAG_FRAME_OF_REFERENCE_UID};
    static const uint16_t words[4] = {1, 2, 3, 4};
    const struct dataset_words all = {words, 4};
    struct dataset *d = dataset_new();
    struct item *root = dataset_root(d);
    char uid[32], position[32];
    snprintf(position, sizeof position, "%u\\0\\0", privates);
    snprintf(path, 64, "%s/%u", folder, privates);
    snprintf(uid, sizeof uid, "1.2.3.%u", privates);
    for (size_t i = 0; i < sizeof uids / sizeof *uids; i++)
        assert_int_equal(item_set_text(root, uids[i], "1.2.840.10008.5.1.4.1.1.4", NULL), 0);
    assert_int_equal(item_set_text(root, TAG_SOP_INSTANCE_UID, uid, NULL), 0);
    static const struct {
        uint32_t tag;
        int value;
    } numbers[] = {{TAG_ROWS, 2},
                   {TAG_COLUMNS, 2},
                   {TAG_SAMPLES_PER_PIXEL, 1},
                   {TAG_BITS_ALLOCATED, 16},
                   {TAG_BITS_STORED, 16},
                   {TAG_HIGH_BIT, 15},
                   {TAG_PIXEL_REPRESENTATION, 0}};
    const struct {
        uint32_t tag;
        const char *value;
    } texts[] = {{TAG_PHOTOMETRIC_INTERPRETATION, "MONOCHROME2"},
                 {TAG_IMAGE_ORIENTATION_PATIENT, "0\\1\\0\\0\\0\\-1"},
                 {TAG_IMAGE_POSITION_PATIENT, position},
                 {TAG_PIXEL_SPACING, "1\\1"}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_int_equal(item_set_integer(root, numbers[i].tag, numbers[i].value, NULL), 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(item_set_text(root, texts[i].tag, texts[i].value, NULL), 0);
    for (unsigned i = 0; i < privates; i++) {
        struct item *unused;
        assert_int_equal(item_add(root, 0x00091000u + i, &unused, NULL), 0);
    }
    assert_int_equal(dataset_write(d, &all, pixels, path, NULL), 0);
    dataset_free(d);
}

static void write_slice_of(const char *folder, unsigned privates, char path[64])
{
    write_slice(folder, privates, true, path);
}

static void series__keeps_the_files_that_it_read_if_they_are_light(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-objects-XXXXXX", paths[2][64];
    struct series *s = NULL;
    struct dataset *d = NULL;
    struct err e;
    assert_int_equal(dicom_init(NULL), 0);
    assert_non_null(mkdtemp(folder));
    write_slice_of(folder, 1, paths[0]);
    write_slice_of(folder, 5000, paths[1]);
    assert_int_equal(series_read((const char *const[]){paths[0], paths[1]}, 2, NULL, &s, &e), 0);
    assert_int_equal(unlink(paths[0]), 0);
    assert_int_equal(unlink(paths[1]), 0);
    for (int i = 0; i < 2; i++) {
        bool light = strcmp(s->slice[i].path, paths[0]) == 0;
        assert_int_equal(series_open(s, (unsigned)i, &d, &e), light ? 0 : ERR_NOT_FOUND);
        if (light) {
            char uid[UID_BYTES];
            assert_true(item_text(dataset_root(d), TAG_SOP_INSTANCE_UID, 0, uid, sizeof uid));
            assert_string_equal(uid, s->slice[i].sop_instance_uid);
            series_close(s, (unsigned)i, d);
            assert_ptr_equal(s->slice[i].kept, d); /* still there */
        }
    }
    series_free(s);
    rmdir(folder);
}

/* RLE Lossless in place of Explicit VR Little Endian, whose UID is as long. */
static void compress(const char *path)
{
    static const char plain[] = "1.2.840.10008.1.2.1";
    char bytes[1024];
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    char *uid = memmem(bytes, n, plain, sizeof plain);
    assert_non_null(uid);
    assert_int_equal(fseek(f, uid + sizeof plain - 2 - bytes, SEEK_SET), 0);
    assert_int_equal(fputc('5', f), '5');
    assert_int_equal(fclose(f), 0);
}

/* Their pixels would be decoded into the data set, which would then hold them. */
static void series__of_compressed_files_keeps_none(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-objects-XXXXXX", path[64];
    struct series *s = NULL;
    assert_int_equal(dicom_init(NULL), 0);
    assert_non_null(mkdtemp(folder));
    write_slice(folder, 1, false, path);
    assert_int_equal(series_read((const char *const[]){path}, 1, NULL, &s, NULL), 0);
    assert_non_null(s->slice[0].kept);
    series_free(s);
    compress(path);
    assert_int_equal(series_read((const char *const[]){path}, 1, NULL, &s, NULL), 0);
    assert_null(s->slice[0].kept);
    series_free(s);
    unlink(path);
    rmdir(folder);
}

/* Pixels are read from the file when they are asked for. */
static void series__gives_no_pixels_of_a_file_that_has_changed(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-objects-XXXXXX", paths[2][64], other[64];
    struct series *s = NULL;
    struct err e;
    float out[4];
    assert_int_equal(dicom_init(NULL), 0);
    assert_non_null(mkdtemp(folder));
    write_slice_of(folder, 1, paths[0]);
    write_slice_of(folder, 2, paths[1]);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(series_read((const char *const[]){paths[0], paths[1]}, 2, NULL, &s, NULL),
                         0);
        unsigned i = strcmp(s->slice[0].path, paths[0]) == 0 ? 0 : 1;
        if (k == 1) {
            assert_int_equal(unlink(paths[0]), 0);
            assert_int_equal(series_pixels(s, i, out, 4, &e), ERR_NOT_FOUND);
            write_slice_of(folder, 1, other); /* another of the same name and size */
            assert_string_equal(other, paths[0]);
            assert_int_equal(series_pixels(s, i, out, 4, &e), ERR_INVALID);
            assert_non_null(strstr(e.text, "has changed since the series was read"));
            i = 1 - i;
        }
        assert_int_equal(series_pixels(s, i, out, 4, &e), 0);
        assert_true(out[0] == 1 && out[3] == 4);
        series_free(s);
    }
    unlink(paths[0]);
    unlink(paths[1]);
    rmdir(folder);
}

/* More than 64 at once would be much memory. */
static void series__of_many_slices_keeps_none(void **state)
{
    (void)state;
    char folder[] = "/tmp/spinenode-objects-XXXXXX", path[64];
    const char *paths[65];
    struct series *s = NULL;
    struct dataset *d = NULL;
    assert_int_equal(dicom_init(NULL), 0);
    assert_non_null(mkdtemp(folder));
    write_slice_of(folder, 1, path);
    for (int i = 0; i < 65; i++)
        paths[i] = path;
    assert_int_equal(series_read(paths, 64, NULL, &s, NULL), 0);
    assert_non_null(s->slice[63].kept);
    series_free(s);
    assert_int_equal(series_read(paths, 65, NULL, &s, NULL), 0);
    for (int i = 0; i < 65; i++)
        assert_null(s->slice[i].kept);
    assert_int_equal(series_open(s, 3, &d, NULL), 0); /* read again, and freed */
    series_close(s, 3, d);
    series_free(s);
    unlink(path);
    rmdir(folder);
}

static void tags__are_found_by_keyword_and_by_number(void **state)
{
    (void)state;
    const char *const texts[] = {"PatientID", "00100020", "0010,0020", "(0010,0020)"};
    char name[64];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint32_t tag = 0;
        assert_true(tag_from_text(texts[i], &tag));
        assert_int_equal(tag, TAG_PATIENT_ID);
    }
    uint32_t tag = 7;
    assert_false(tag_from_text("NoSuchThing", &tag));
    assert_false(tag_from_text("0010002", &tag));
    assert_int_equal(tag, 7);
    assert_string_equal(tag_to_text(TAG_SYNTHETIC_DATA, name, sizeof name), "SyntheticData");
    assert_string_equal(tag_to_text(0x00091234, name, sizeof name), "(0009,1234)");
    /* A private attribute has no place that its keyword could stand for. */
    assert_int_equal(dicom_add_vendors(NULL), 0);
    assert_false(tag_from_text("CSAImageHeaderType", &tag));
    assert_true(tag_from_text("00291008", &tag));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uid__is_the_digest_as_a_version_8_uuid),
        cmocka_unit_test(uid__differs_when_parts_are_cut_elsewhere),
        cmocka_unit_test(uid__validity_follows_part_5),
        cmocka_unit_test(banner__takes_a_strip_at_the_top_and_nothing_else),
        cmocka_unit_test(banner__grows_with_the_image_and_fits_it),
        cmocka_unit_test(banner__refuses_images_too_small_to_carry_it),
        cmocka_unit_test(series_check__sorts_along_the_normal),
        cmocka_unit_test(series_check__counts_what_is_missing),
        cmocka_unit_test(series_check__spacing_tolerance_is_the_limits),
        cmocka_unit_test(series_check__gap_attribute_of_some_scanners_is_no_gap),
        cmocka_unit_test(recognise__thresholds_are_the_options),
        cmocka_unit_test(recognise__assumed_contrast_does_not_open_the_loop_guard),
        cmocka_unit_test(window__spans_the_values_without_background_and_outliers),
        cmocka_unit_test(decimals__read_back_and_have_no_exponent),
        cmocka_unit_test(dataset__reads_what_was_set_and_nothing_else),
        cmocka_unit_test(dataset__pixels_are_the_end_of_the_file),
        cmocka_unit_test(series__keeps_the_files_that_it_read_if_they_are_light),
        cmocka_unit_test(series__of_compressed_files_keeps_none),
        cmocka_unit_test(series__gives_no_pixels_of_a_file_that_has_changed),
        cmocka_unit_test(series__of_many_slices_keeps_none),
        cmocka_unit_test(tags__are_found_by_keyword_and_by_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
