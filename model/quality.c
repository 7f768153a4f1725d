/* quality.c - the gate's verdict: figures against limits; see quality.h */
#include "model/quality.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/bilinear.h"
#include "model/clones.h"
#include "model/quality_parts.h"

static const struct {
    const char *name, *meaning;
} figures[QUALITY_FIGURE_COUNT] = {
    [QUALITY_UNLIKE] = {"unlike", "the images are unlike those that the model was made for"},
    [QUALITY_DOWNSAMPLED] = {"downsampled", "the result, made small again, is not the source"},
    [QUALITY_DOWNSAMPLED_BLOCK] = {"downsampled-block",
                                   "a part of the result, made small again, is not the source"},
    [QUALITY_STRUCTURE] = {"structure", "the result's structures are not those of the source"},
    [QUALITY_STRUCTURE_BLOCK] = {"structure-block",
                                 "a part of the result has structures that the source has not"},
    [QUALITY_MOVED] = {"moved", "structures of the result are not where the source has them"},
    [QUALITY_DISAGREEMENT] = {"disagreement",
                              "the model says something else when the image is mirrored and moved"},
    [QUALITY_DISAGREEMENT_BLOCK] =
        {"disagreement-block",
         "for a part of the image the model says something else when it is mirrored and moved"},
};

const char *quality_figure_name(enum quality_figure f)
{
    return (unsigned)f < QUALITY_FIGURE_COUNT ? figures[f].name : "?";
}

const char *quality_outcome_name(enum quality_outcome o)
{
    return o == QUALITY_PASS ? "pass" : o == QUALITY_MARK ? "mark" : "refuse";
}

void quality_begin(struct quality_report *r, const struct quality_gate *gate)
{
    *r = (struct quality_report){.calibrated = gate != NULL};
    for (int i = 0; i < QUALITY_FIGURE_COUNT; i++)
        r->figure[i] = NAN;
    for (int i = 0; i < QUALITY_CLASSES_MAX; i++)
        r->class_score[i] = NAN;
}

int quality_slices(int slices, int out[QUALITY_SLICES_MAX])
{
    /* A third of the series apart: the outer ones show no canal any more. */
    int middle = slices / 2, step = (int)lround(0.15 * (slices - 1)), n = 0;
    step = step > 0 ? step : 1;
    for (int i = 0; i < QUALITY_SLICES_MAX; i++) {
        int slice = middle + (i - QUALITY_SLICES_MAX / 2) * step;
        if (slice >= 0 && slice < slices)
            out[n++] = slice;
    }
    return n;
}

CLONES static void unit_of_normalised(const float *from, int n, float *to)
{
    for (int i = 0; i < n; i++)
        to[i] = (from[i] + 1) * 0.5f;
}

CLONES static void unit_of_stored(const uint16_t *from, int n, float low, float factor, float *to)
{
    for (int i = 0; i < n; i++) {
        float v = ((float)from[i] - low) * factor;
        to[i] = v > 0 ? (v < 1 ? v : 1) : 0;
    }
}

const float *quality_row(const struct quality_image *image, int y, float *spare)
{
    size_t first = (size_t)y * (size_t)image->columns;
    if (image->unit != NULL)
        return image->unit + first;
    if (image->normalised != NULL)
        unit_of_normalised(image->normalised + first, image->columns, spare);
    else
        unit_of_stored(image->stored + first, image->columns, (float)image->low,
                       (float)(1 / (image->high - image->low)), spare);
    return spare;
}

static const float *row_of(const void *ctx, int y, float *spare)
{
    return quality_row(ctx, y, spare);
}

int quality_resample(const struct quality_image *image, float *out, int out_rows, int out_columns,
                     struct err *e)
{
    return bilinear_resample(row_of, image, image->rows, image->columns, out, out_rows, out_columns,
                             e);
}

/* The worst outcome stands, with the first reason for it. */
static void found(struct quality_report *r, double value, const struct quality_limit *limit,
                  const char *format, const char *what)
{
    enum quality_outcome o = value > limit->refuse ? QUALITY_REFUSE
                             : value > limit->mark ? QUALITY_MARK
                                                   : QUALITY_PASS;
    if (o <= r->outcome)
        return;
    char words[200];
    r->outcome = o;
    snprintf(words, sizeof words, format, what);
    snprintf(r->reason, sizeof r->reason, "%s (%.3g, limit %.3g)", words, value,
             o == QUALITY_REFUSE ? limit->refuse : limit->mark);
}

static void refused(struct quality_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void refused(struct quality_report *r, const char *format, ...)
{
    va_list args;
    if (r->outcome == QUALITY_REFUSE)
        return;
    va_start(args, format);
    vsnprintf(r->reason, sizeof r->reason, format, args);
    va_end(args);
    r->outcome = QUALITY_REFUSE;
}

void quality_view(struct quality_report *r, const struct quality_gate *gate,
                  const struct quality_view *view)
{
    double least = fmin(view->height_mm, view->width_mm);
    double most = fmax(view->height_mm, view->width_mm);
    if (gate == NULL)
        return;
    if (least > 0 && (least < gate->field_mm_min || most > gate->field_mm_max))
        refused(r, "the images show %.0f x %.0f mm, and the model was made for %.0f to %.0f mm",
                view->height_mm, view->width_mm, gate->field_mm_min, gate->field_mm_max);
    if (view->towards != NULL && gate->towards[0] != '\0' &&
        strcmp(view->towards, gate->towards) != 0)
        refused(r,
                "the images are turned or mirrored: their rows and columns lead towards %s, and "
                "those that the model was made for towards %s",
                view->towards, gate->towards);
}

static double distance(const struct quality_gate *gate, const float f[QUALITY_FEATURES])
{
    double sum = 0, z[QUALITY_SHAPE];
    const float *row = gate->whiten;
    for (int i = 0; i < QUALITY_SHAPE; row += ++i) {
        double y = 0;
        z[i] = (f[i] - gate->mean[i]) / gate->scale[i];
        for (int k = 0; k <= i; k++)
            y += row[k] * z[k];
        sum += y * y;
    }
    return sqrt(sum / QUALITY_SHAPE);
}

static double score(const struct quality_gate *gate, const struct quality_class *c,
                    const float f[QUALITY_FEATURES])
{
    double sum = 0;
    for (int i = 0; i < QUALITY_FEATURES; i++)
        sum += c->weight[i] * ((f[i] - gate->mean[i]) / gate->scale[i]);
    return sum;
}

void quality_input(struct quality_report *r, const struct quality_gate *gate,
                   const float (*features)[QUALITY_FEATURES], int n)
{
    if (gate == NULL || n < 1)
        return;
    double sum = 0, worst = 0;
    for (int i = 0; i < n; i++)
        sum += distance(gate, features[i]);
    r->figure[QUALITY_UNLIKE] = sum / n;
    /* First, because what it looks like says more than how far it is off; and what it looks like
     * most of all. */
    const struct quality_class *most = NULL;
    double excess = -INFINITY;
    for (int c = 0; c < gate->classes; c++) {
        const struct quality_class *class = &gate->class[c];
        sum = 0;
        for (int i = 0; i < n; i++)
            sum += score(gate, class, features[i]);
        r->class_score[c] = sum / n;
        double over = class->limit.refuse > 0 ? sum / n / class->limit.refuse : sum / n;
        if (r->class_score[c] > class->limit.mark && over > excess) {
            most = class;
            excess = over;
            worst = r->class_score[c];
        }
    }
    if (most != NULL) {
        char look[QUALITY_CLASS_NAME];
        memcpy(look, most->name, sizeof look);
        for (char *p = look; *p != '\0'; p++)
            *p = *p == '-' ? ' ' : *p;
        found(r, worst, &most->limit, "the images look %s", look);
    }
    found(r, r->figure[QUALITY_UNLIKE], &gate->limit[QUALITY_UNLIKE], "%s",
          figures[QUALITY_UNLIKE].meaning);
}

void quality_judge(struct quality_report *r, const struct quality_gate *gate)
{
    for (int i = QUALITY_UNLIKE + 1; gate != NULL && i < QUALITY_FIGURE_COUNT; i++)
        if (!isnan(r->figure[i]))
            found(r, r->figure[i], &gate->limit[i], "%s", figures[i].meaning);
}
