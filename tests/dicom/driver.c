/*
 * driver.c - the object half of dicom/ from a command line, so that pydicom can be its oracle
 *
 * driver series [--by-name] FILE…              one JSON object: problem, geometry, recognition
 * driver pixels FILE FRAME OUT                 float32 values, host order
 * driver open FILE…                            a line each: word of the error, or "ok"
 * driver text FILE TAG…                        a line each: values as the node reads them
 * driver group FILE…                           a number each
 * driver secondary TASK TYPE SCALE OUT FILE…   a synthetic object per slice, smaller where SCALE is
 *                                              negative; key of $DRIVER_KEY
 * driver dictionary init|vendors|default       the data dictionary as dicom_init() leaves it, as
 *                                              dicom_add_vendors() does, as DCMTK itself reads it
 *
 * Exit status 0, or 1 with the error's word and text on standard error. Not part of the node.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/dataset.h"
#include "dicom/pixel.h"
#include "dicom/recognise.h"
#include "dicom/secondary.h"
#include "dicom/series.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "node/base/json.h"

static int fail(const struct err *e)
{
    fprintf(stderr, "%s: %s\n", err_word(e->code), e->text);
    return 1;
}

static void add_vector(struct buf *b, const char *name, const double *v, unsigned n)
{
    json_open(b, name, '[');
    for (unsigned i = 0; i < n; i++)
        json_real(b, NULL, v[i]);
    json_close(b, ']');
}

static void describe(struct buf *b, const struct series *s, const struct recognition *r)
{
    json_open(b, NULL, '{');
    json_text(b, "series_uid", s->series_uid);
    json_text(b, "problem", s->problem.code ? s->problem.text : "");
    json_text(b, "problem_word", err_word(s->problem.code));
    json_int(b, "slices", s->slices);
    json_int(b, "rows", s->rows);
    json_int(b, "columns", s->columns);
    add_vector(b, "spacing", (const double[]){s->row_spacing_mm, s->column_spacing_mm}, 2);
    if (s->has_geometry) {
        add_vector(b, "normal", s->normal, 3);
        json_real(b, "slice_spacing", s->slice_spacing_mm);
    }
    json_open(b, "paths", '[');
    for (unsigned i = 0; i < s->slices; i++)
        json_text(b, NULL, s->slice[i].path);
    json_close(b, ']');
    json_text(b, "kind", r->kind);
    json_text(b, "contrast", r->contrast);
    json_text(b, "plane", r->plane);
    json_text(b, "body_part", r->body_part);
    json_text(b, "refusal", r->refusal.code ? r->refusal.text : "");
    json_text(b, "refusal_word", err_word(r->refusal.code));
    json_open(b, "reasons", '[');
    for (unsigned i = 0; i < r->reasons; i++)
        json_text(b, NULL, r->reason[i]);
    json_close(b, ']');
    json_close(b, '}');
    buf_puts(b, "\n");
}

static int run_series(int n, char **paths, struct err *e)
{
    struct recognise_options options = recognise_defaults;
    struct series *s = NULL;
    struct recognition r;
    struct buf b;
    if (n > 0 && strcmp(paths[0], "--by-name") == 0) {
        options.allow_body_part_by_name = true;
        n--;
        paths++;
    }
    if (series_read((const char *const *)paths, (size_t)n, NULL, &s, e) != 0)
        return fail(e);
    recognise(s, &options, &r);
    buf_init(&b, 1 << 22);
    describe(&b, s, &r);
    fputs(buf_text(&b), stdout);
    buf_fini(&b);
    series_free(s);
    return 0;
}

static int run_pixels(char **args, struct err *e)
{
    struct dataset *d = NULL;
    struct pixel_info info;
    float *values = NULL;
    FILE *f = NULL;
    int rc = dataset_open(args[0], NULL, &d, e);
    if (rc == 0)
        rc = pixel_info(d, &info, e);
    if (rc == 0) {
        size_t n = (size_t)info.rows * info.columns;
        values = malloc(n * sizeof *values);
        rc = values ? pixel_decode(d, (unsigned)atoi(args[1]), values, n, e) : ERR_NOMEM;
        f = rc == 0 ? fopen(args[2], "wb") : NULL;
        if (rc == 0 && (!f || fwrite(values, sizeof *values, n, f) != n))
            rc = err_set(e, ERR_IO, "cannot write %s", args[2]);
    }
    if (f)
        fclose(f);
    free(values);
    dataset_free(d);
    return rc == 0 ? 0 : fail(e);
}

/* Everything that is done with a file from outside, once. */
static int touch(const char *path, struct err *e)
{
    struct dataset *d = NULL;
    struct series *s = NULL;
    struct recognition r;
    struct pixel_info info;
    int rc = dataset_open(path, NULL, &d, e);
    if (rc == 0)
        rc = pixel_info(d, &info, e);
    if (rc == 0) {
        size_t n = (size_t)info.rows * info.columns;
        float *values = malloc(n * sizeof *values);
        rc = values ? pixel_decode(d, info.frames - 1, values, n, e) : ERR_NOMEM;
        free(values);
    }
    dataset_free(d);
    if (series_read(&path, 1, NULL, &s, NULL) == 0)
        recognise(s, NULL, &r);
    series_free(s);
    return rc;
}

static int run_open(int n, char **paths)
{
    for (int i = 0; i < n; i++) {
        struct err e = {0};
        int rc = touch(paths[i], &e);
        printf("%s\t%s\t%s\n", err_word(rc), paths[i], rc ? e.text : "");
    }
    return 0;
}

static int run_text(int n, char **args, struct err *e)
{
    struct dataset *d = NULL;
    if (dataset_open(args[0], NULL, &d, e) != 0)
        return fail(e);
    for (int i = 1; i < n; i++) {
        char text[DATASET_TEXT_BYTES], name[64];
        uint32_t tag;
        if (!tag_from_text(args[i], &tag)) {
            printf("%s: no such attribute\n", args[i]);
            continue;
        }
        item_all_text(dataset_root(d), tag, text, sizeof text);
        printf("%s=%s (%u)\n", tag_to_text(tag, name, sizeof name), text,
               item_count(dataset_root(d), tag));
    }
    dataset_free(d);
    return 0;
}

static int run_group(int n, char **paths, struct err *e)
{
    int *group = NULL;
    int count = series_group((const char *const *)paths, (size_t)n, &group, e);
    if (count < 0)
        return fail(e);
    for (int i = 0; i < n; i++)
        printf("%d\n", group[i]);
    free(group);
    return 0;
}

/* Values of a slice as 12 bits on another grid, each from the pixel that it lies in. */
static int make_pixels(const struct series *s, unsigned index, unsigned rows, unsigned columns,
                       uint16_t *out, struct err *e)
{
    size_t n = (size_t)s->rows * s->columns;
    float *values = malloc(n * sizeof *values);
    int rc = values ? series_pixels(s, index, values, n, e) : ERR_NOMEM;
    for (size_t i = 0; rc == 0 && i < (size_t)rows * columns; i++) {
        float v =
            values[i / columns * s->rows / rows * s->columns + i % columns * s->columns / columns];
        out[i] = (uint16_t)fminf(fmaxf(v, 0), SECONDARY_MAX_VALUE);
    }
    free(values);
    return rc;
}

static int run_secondary(int n, char **args, struct err *e)
{
    int scale = atoi(args[2]);
    unsigned times = scale > 0 ? (unsigned)scale : 1, part = scale < 0 ? (unsigned)-scale : 1;
    const char *key = getenv("DRIVER_KEY");
    struct series *s = NULL;
    uint16_t *pixels = NULL;
    int rc = series_read((const char *const *)args + 4, (size_t)(n - 4), NULL, &s, e);
    if (rc != 0)
        return fail(e);
    struct secondary_spec spec = {
        .type = strcmp(args[1], "mr") == 0 ? SECONDARY_MR : SECONDARY_CAPTURE,
        .task = args[0],
        .input_contrast = "T2",
        .output_contrast = "T1",
        .model_name = "driver \\ model with a na\xc3\xafve name",
        .model_version = "1.2.3",
        .model_digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .parameters = "",
        .engine = "none",
        .series_number = 7,
        .salt = "salt",
        .key = key ? key : "key",
        .created = "20260102030405",
        .rows = s->rows * times / part,
        .columns = s->columns * times / part,
        .input_slices = 3,
        .window_centre = 600,
        .window_width = 1200,
        .slope = 1,
    };
    size_t count = (size_t)spec.rows * spec.columns;
    pixels = calloc(count, sizeof *pixels);
    for (unsigned i = 0; rc == 0 && i < s->slices; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%04u.dcm", args[3], i + 1);
        if (s->problem.code == 0)
            rc = make_pixels(s, i, spec.rows, spec.columns, pixels, e);
        if (rc == 0 && i == 0)
            secondary_window(pixels, count, NULL, &spec.window_centre, &spec.window_width);
        if (rc == 0)
            rc = secondary_write(s, i, &spec, pixels, path, NULL, e);
    }
    free(pixels);
    series_free(s);
    return rc == 0 ? 0 : fail(e);
}

#define DICTIONARY_BYTES ((size_t)16 << 20)

/* An empty list is none. */
static const char *chosen(void)
{
    const char *list = getenv("DCMDICTPATH");
    return list && *list ? list : "none";
}

/* Each is asked twice, since the second time must change nothing. */
static int run_dictionary(const char *which, struct err *e)
{
    char *before = strdup(chosen());
    struct buf text;
    int rc = before ? 0 : err_set(e, ERR_NOMEM, "no memory");
    buf_init(&text, DICTIONARY_BYTES);
    for (int i = 0; rc == 0 && i < 2; i++)
        rc = strcmp(which, "init") == 0      ? dicom_init(e)
             : strcmp(which, "vendors") == 0 ? dicom_add_vendors(e)
                                             : 0;
    if (rc == 0 && strcmp(chosen(), before) != 0)
        rc = err_set(e, ERR_BUG, "DCMDICTPATH was %s and is %s", before, chosen());
    if (rc == 0)
        rc = dictionary_text(&text, e);
    if (rc == 0)
        fputs(buf_text(&text), stdout);
    buf_fini(&text);
    free(before);
    return rc == 0 ? 0 : fail(e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    const char *verb = argc > 2 ? argv[1] : "";
    int n = argc - 2;
    char **args = argv + 2;
    if (strcmp(verb, "series") == 0)
        return run_series(n, args, &e);
    if (strcmp(verb, "pixels") == 0 && n == 3)
        return run_pixels(args, &e);
    if (strcmp(verb, "open") == 0)
        return run_open(n, args);
    if (strcmp(verb, "text") == 0)
        return run_text(n, args, &e);
    if (strcmp(verb, "group") == 0)
        return run_group(n, args, &e);
    if (strcmp(verb, "secondary") == 0 && n >= 5)
        return run_secondary(n, args, &e);
    if (strcmp(verb, "dictionary") == 0 && n == 1)
        return run_dictionary(args[0], &e);
    fprintf(stderr, "see driver.c for its verbs\n");
    return 2;
}
