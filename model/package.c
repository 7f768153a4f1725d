/* package.c - see package.h */
#include "model/package.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/onnx.h"
#include "model/passes.h"
#include "model/quality.h"

#define TEXT_MAX        4096
#define NAME_MAX_LENGTH 64
#define SIDE_MAX        65536 /* rows or columns of an image */

static const char *const task_names[TASK_COUNT] = {
    [TASK_SUPER_RESOLUTION] = "super-resolution",
    [TASK_T1_TO_T2] = "t1-to-t2",
    [TASK_T2_TO_T1] = "t2-to-t1",
    [TASK_T2_TO_STIR] = "t2-to-stir",
    [TASK_T2_TO_TIRM] = "t2-to-tirm",
    [TASK_XRAY_TO_T2] = "xray-to-t2",
};
static const char *const contrast_names[MODEL_CONTRAST_COUNT] = {"T1", "T2", "STIR", "TIRM", "XR"};

static int find_word(const char *word, const char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

const char *model_task_name(enum model_task task)
{
    return (unsigned)task < TASK_COUNT ? task_names[task] : "?";
}

int model_task_parse(const char *word)
{
    return find_word(word, task_names, TASK_COUNT);
}

const char *model_contrast_name(enum model_contrast c)
{
    return (unsigned)c < MODEL_CONTRAST_COUNT ? contrast_names[c] : "?";
}

/* --- values of keys --------------------------------------------------------------------------- */

struct reader {
    const struct graph *g;
    struct err *e;
    int rc; /* the first error sticks */
};

/* A copy of a text that is fit to print in one line. */
static const char *printable(const char *text, char out[96])
{
    size_t i = 0;
    for (; i < 95 && text[i] != '\0'; i++)
        out[i] = text[i] >= 32 && text[i] < 127 ? text[i] : '?';
    out[i] = '\0';
    return out;
}

static void wrong(struct reader *r, const char *key, const char *text, const char *expected)
{
    char shown[96];
    if (r->rc == 0)
        r->rc = err_set(r->e, ERR_INVALID, "metadata spinenode.%s is \"%s\", must be %s", key,
                        printable(text, shown), expected);
}

/* "" after an error or where an optional key is absent. */
static const char *text_of(struct reader *r, const char *key, bool required)
{
    char full[64];
    snprintf(full, sizeof full, "spinenode.%s", key);
    const char *text = graph_metadata(r->g, full);
    if (r->rc != 0)
        return "";
    if (text == NULL && required)
        r->rc = err_set(r->e, ERR_INVALID,
                        "metadata %s is missing: this file was not exported as a Spinenode model",
                        full);
    if (text != NULL && strlen(text) > TEXT_MAX)
        r->rc = err_set(r->e, ERR_LIMIT, "metadata %s is longer than %d bytes", full, TEXT_MAX);
    if (text != NULL && required && text[0] == '\0')
        wrong(r, key, text, "a text");
    return r->rc == 0 && text != NULL ? text : "";
}

/* Digits only; sets *end behind them. -1: none, or too many. */
static int number(const char *text, const char **end)
{
    int value = 0, digits = 0;
    for (; isdigit((unsigned char)*text); text++, digits++) {
        if (digits == 6)
            return -1;
        value = value * 10 + (*text - '0');
    }
    *end = text;
    return digits > 0 ? value : -1;
}

/* Digits with at most one point between; -1 likewise. */
static double decimal(const char *text, const char **end)
{
    const char *p = text;
    int whole = number(text, &p);
    if (whole < 0)
        return -1;
    double value = whole, unit = 0.1;
    if (*p == '.' && isdigit((unsigned char)p[1]))
        for (p++; isdigit((unsigned char)*p) && p - text < 16; p++, unit /= 10)
            value += unit * (*p - '0');
    *end = p;
    return value;
}

static int word_of(struct reader *r, const char *key, const char *const *words, int n,
                   const char *expected)
{
    const char *text = text_of(r, key, true);
    int i = find_word(text, words, n);
    if (i < 0)
        wrong(r, key, text, expected);
    return i < 0 ? 0 : i;
}

static int integer_of(struct reader *r, const char *key, int lowest, int highest,
                      const char *expected)
{
    const char *text = text_of(r, key, true), *end = text;
    int value = number(text, &end);
    if (value < lowest || value > highest || *end != '\0')
        wrong(r, key, text, expected);
    return value;
}

static void range_of(struct reader *r, const char *key, int *min, int *max)
{
    const char *text = text_of(r, key, true), *end = text;
    *min = number(text, &end);
    *max = *end == '-' ? number(end + 1, &end) : -1;
    if (*min < 1 || *max < *min || *max > SIDE_MAX || *end != '\0')
        wrong(r, key, text, "\"min-max\" with 1 <= min <= max <= 65536");
}

static void read_spacing(struct reader *r, struct package *p)
{
    const char *text = text_of(r, "spacing_mm", true), *end = text;
    p->spacing_mm_min = decimal(text, &end);
    p->spacing_mm_max = *end == '-' ? decimal(end + 1, &end) : -1;
    if (!(p->spacing_mm_min > 0) || !(p->spacing_mm_max >= p->spacing_mm_min) || *end != '\0')
        wrong(r, "spacing_mm", text, "\"min-max\" in millimetres, as 0.3-1.2");
}

static void read_normalisation(struct reader *r, struct package *p)
{
    static const char start[] = "percentile ";
    const char *text = text_of(r, "normalisation", true), *end = text;
    p->percentile_low = p->percentile_high = -1;
    if (strncmp(text, start, sizeof start - 1) == 0) {
        p->percentile_low = decimal(text + sizeof start - 1, &end);
        if (*end == ' ')
            p->percentile_high = decimal(end + 1, &end);
    }
    if (p->percentile_low < 0 || !(p->percentile_high > p->percentile_low) ||
        p->percentile_high > 100 || *end != '\0')
        wrong(r, "normalisation", text, "\"percentile LO HI\" with 0 <= LO < HI <= 100");
}

static void read_grid(struct reader *r, struct package *p)
{
    const char *text = text_of(r, "grid", true), *end = text;
    if (strncmp(text, "any:", 4) == 0) {
        p->multiple = number(text + 4, &end);
        if (p->multiple < 1 || p->multiple > 4096 || *end != '\0')
            wrong(r, "grid", text, "\"any:K\" with K from 1 to 4096");
        return;
    }
    p->grid_rows = number(text, &end);
    p->grid_columns = *end == 'x' ? number(end + 1, &end) : -1;
    if (p->grid_rows < 1 || p->grid_rows > SIDE_MAX || p->grid_columns < 1 ||
        p->grid_columns > SIDE_MAX || *end != '\0')
        wrong(r, "grid", text, "\"any:K\" or \"RxC\"");
}

static void read_pixel(struct reader *r, struct package *p)
{
    const char *text = text_of(r, "pixel_mm", false), *end = text;
    if (*text == '\0')
        return;
    p->pixel_mm = decimal(text, &end);
    if (!(p->pixel_mm >= 0.05) || p->pixel_mm > 10 || *end != '\0' || p->multiple == 0)
        wrong(r, "pixel_mm", text, "millimetres from 0.05 to 10, with grid \"any:K\"");
}

static void read_version(struct reader *r, struct package *p)
{
    const char *end = p->version = text_of(r, "version", true);
    bool good = strlen(p->version) < NAME_MAX_LENGTH;
    for (int i = 0; i < 3; i++) {
        good = number(end, &end) >= 0 && good && (i == 2 || *end == '.');
        end += i < 2 && *end == '.';
    }
    good = good && (*end == '\0' || *end == '-' || *end == '+');
    for (; *end != '\0'; end++)
        good = good && (isalnum((unsigned char)*end) || strchr(".-+", *end) != NULL);
    if (!good)
        wrong(r, "version", p->version, "a semantic version, as 1.0.0");
}

static void read_facts(struct reader *r, struct package *p)
{
    static const char *const outputs[] = {"unit", "source"};
    static const char contrast_words[] = "T1, T2, STIR, TIRM or XR";
    if (strcmp(text_of(r, "format", true), "1") != 0)
        wrong(r, "format", text_of(r, "format", false), "1: this build reads no other format");
    p->task = (enum model_task)word_of(r, "task", task_names, TASK_COUNT,
                                       "super-resolution, t1-to-t2, t2-to-t1, t2-to-stir, "
                                       "t2-to-tirm or xray-to-t2");
    read_version(r, p);
    p->name = text_of(r, "name", true);
    if (strlen(p->name) > NAME_MAX_LENGTH)
        wrong(r, "name", p->name, "at most 64 bytes");
    p->input_contrast = (enum model_contrast)word_of(r, "input_contrast", contrast_names,
                                                     MODEL_CONTRAST_COUNT, contrast_words);
    p->output_contrast = (enum model_contrast)word_of(r, "output_contrast", contrast_names,
                                                      MODEL_CONTRAST_COUNT, contrast_words);
    p->input_slices = integer_of(r, "input_slices", 1, 31, "an odd number from 1 to 31");
    if (r->rc == 0 && p->input_slices % 2 == 0)
        wrong(r, "input_slices", text_of(r, "input_slices", true), "an odd number from 1 to 31");
    p->scale = integer_of(r, "scale", 1, 8, "a number from 1 to 8");
    if (r->rc == 0 && (p->scale > 1) != (p->task == TASK_SUPER_RESOLUTION))
        wrong(r, "scale", text_of(r, "scale", true),
              p->scale > 1 ? "1 for this task" : "2 or more for super-resolution");
    read_grid(r, p);
    read_pixel(r, p);
    read_spacing(r, p);
    range_of(r, "rows", &p->rows_min, &p->rows_max);
    range_of(r, "columns", &p->columns_min, &p->columns_max);
    read_normalisation(r, p);
    p->output = (enum model_output_scale)word_of(r, "output", outputs, 2, "unit or source");
    p->training_data = text_of(r, "training_data", true);
    p->intended_use = text_of(r, "intended_use", true);
    p->limits = text_of(r, "limits", true);
    p->licence = text_of(r, "licence", true);
    p->figures = text_of(r, "figures", false);
}

/* --- the graph must be what the facts say ----------------------------------------------------- */

static int check_input(const struct package *p, struct err *e)
{
    const struct graph *g = p->graph;
    const struct value *v = &g->value[g->input[0]];
    int64_t fixed[2] = {p->grid_rows, p->grid_columns};
    char text[128];
    if (g->n_inputs != 1 || strcmp(v->name, "image") != 0)
        return err_set(e, ERR_INVALID, "the model must have one input named 'image'");
    if (g->n_outputs != 1 || strcmp(g->value[g->output[0]].name, "synthetic") != 0)
        return err_set(e, ERR_INVALID, "the model must have one output named 'synthetic'");
    if (v->shape.rank != 4 || (v->shape.dim[1] >= 0 && v->shape.dim[1] != p->input_slices))
        return err_set(e, ERR_INVALID, "input 'image' is %s, must be N x %d x rows x columns",
                       shape_text(&v->shape, text, sizeof text), p->input_slices);
    for (int i = 0; i < 2; i++) {
        int64_t dim = v->shape.dim[2 + i];
        if (dim >= 0 && dim != fixed[i])
            return err_set(e, ERR_INVALID,
                           "input 'image' is %s, but metadata spinenode.grid says otherwise",
                           shape_text(&v->shape, text, sizeof text));
    }
    return 0;
}

/* Lowers the graph for a small source and looks at what comes out. */
static int check_output(const struct package *p, struct err *e)
{
    struct shape in;
    struct graph *lowered;
    char text[128];
    int rc = package_input_shape(p, p->rows_min, p->columns_min, 1, &in, e);
    if (rc == 0)
        rc = graph_specialise(p->graph, &in, onnx_default_limits.activation_bytes, &lowered, e);
    if (rc != 0)
        return rc;
    const struct shape *out = &lowered->value[lowered->output[0]].shape;
    if (out->rank != 4 || out->dim[0] != 1 || out->dim[1] != 1 ||
        out->dim[2] != in.dim[2] * p->scale || out->dim[3] != in.dim[3] * p->scale)
        rc = err_set(e, ERR_INVALID,
                     "for an input of %lld x %lld its output is %s, must be 1x1x%lldx%lld",
                     (long long)in.dim[2], (long long)in.dim[3], shape_text(out, text, sizeof text),
                     (long long)in.dim[2] * p->scale, (long long)in.dim[3] * p->scale);
    graph_free(lowered);
    return rc;
}

/* Would a batch of so many mix its samples? */
static int check_batch_of(const struct package *p, int batch, struct err *e)
{
    struct shape in;
    struct graph *lowered;
    int64_t images;
    int node;
    int rc = package_input_shape(p, p->rows_min, p->columns_min, batch, &in, e);
    if (rc == 0)
        rc = graph_lower(p->graph, &in, onnx_default_limits.activation_bytes, &lowered, NULL, e);
    if (rc != 0)
        return rc;
    if (!graph_images_apart(lowered, &images, &node)) {
        const struct node *n = node < 0 ? NULL : &lowered->node[node];
        rc = err_set(e, ERR_UNSUPPORTED,
                     "%s%s%s%s%s cannot be computed for each image of a batch alone, which would "
                     "mix patients: export the model with statistics per sample, or with a batch "
                     "of 1",
                     n ? "node '" : "its output", n ? n->name : "", n ? "' (" : "",
                     n ? op_name(n->op) : "", n ? ")" : "");
    }
    graph_free(lowered);
    return rc;
}

/* Two sizes, so that no other dimension is the batch by chance. */
static int check_batch(const struct package *p, struct err *e)
{
    if (p->graph->value[p->graph->input[0]].shape.dim[0] >= 0)
        return 0; /* one size of batch, that of one sample */
    int rc = check_batch_of(p, 2, e);
    return rc != 0 ? rc : check_batch_of(p, 3, e);
}

int package_open(const char *path, const struct onnx_limits *limits, struct package **out,
                 struct err *e)
{
    *out = NULL;
    struct package *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "no memory for %s", path);
    int rc = onnx_open(path, limits, &p->graph, e);
    if (rc == 0) {
        struct reader r = {.g = p->graph, .e = e};
        read_facts(&r, p);
        rc = r.rc;
        const char *gate = graph_metadata(p->graph, "spinenode.gate");
        if (rc == 0 && gate != NULL)
            rc = quality_gate_parse(gate, &p->gate, e);
        if (rc == 0 && (rc = check_input(p, e)) == 0 && (rc = check_output(p, e)) == 0)
            rc = check_batch(p, e);
        p->parameters = graph_parameters(p->graph);
        if (rc != 0)
            err_context(e, "%s", path);
    }
    if (rc != 0) {
        package_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void package_free(struct package *p)
{
    if (p == NULL)
        return;
    graph_free(p->graph);
    free(p->gate);
    free(p);
}

/* Whole pixels of pixel_mm that n pixels of mm cover, at least 1; 0 if these are too many. */
static int resampled(unsigned n, double mm, double pixel_mm)
{
    double count = round(n * mm / pixel_mm);
    return count > SIDE_MAX ? 0 : count < 1 ? 1 : (int)count;
}

int package_grid(const struct package *p, unsigned rows, unsigned columns, double row_mm,
                 double column_mm, int *out_rows, int *out_columns, struct err *e)
{
    int to_rows = (int)rows, to_columns = (int)columns;
    if (p->pixel_mm > 0) {
        if (!(row_mm > 0) || !(column_mm > 0))
            return err_set(e, ERR_REFUSED,
                           "the model %s needs to know the size of a pixel, and the images say "
                           "none (ImagerPixelSpacing, PixelSpacing)",
                           p->name);
        to_rows = resampled(rows, row_mm, p->pixel_mm);
        to_columns = resampled(columns, column_mm, p->pixel_mm);
    }
    if (rows > SIDE_MAX || columns > SIDE_MAX || to_rows == 0 || to_columns == 0)
        return err_set(e, ERR_REFUSED, "the images are larger than %d pixels of %g mm a side",
                       SIDE_MAX, p->pixel_mm);
    *out_rows = to_rows;
    *out_columns = to_columns;
    return 0;
}

int package_input_shape(const struct package *p, int rows, int columns, int batch,
                        struct shape *out, struct err *e)
{
    if (rows < p->rows_min || rows > p->rows_max || columns < p->columns_min ||
        columns > p->columns_max)
        return err_set(e, ERR_REFUSED,
                       "the model takes %d-%d rows and %d-%d columns, the source has %d x %d",
                       p->rows_min, p->rows_max, p->columns_min, p->columns_max, rows, columns);
    if (batch < 1)
        return err_set(e, ERR_USAGE, "a batch of %d", batch);
    int64_t k = p->multiple;
    *out = (struct shape){
        .rank = 4,
        .dim = {batch, p->input_slices, k ? (rows + k - 1) / k * k : p->grid_rows,
                k ? (columns + k - 1) / k * k : p->grid_columns},
    };
    return 0;
}
