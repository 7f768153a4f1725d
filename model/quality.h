/*
 * quality.h - the quality gate: may this series go into the model, may this result leave the node?
 *
 * Two kinds of question, both answered by numbers that are compared with limits:
 *   input    Is a slice like what the model was trained on? QUALITY_FEATURES numbers describe it
 *            (grey levels, gradients, where the brightness lies, bands of detail, noise, ridges,
 *            voids, a coarse layout). A regularised Mahalanobis distance over the first
 *            QUALITY_SHAPE of them says how unlike it is; linear discriminants over all of them say
 *            whether it looks turned, mirrored, inverted, ... (the gate's classes).
 *   result   Super-resolution: made small again, is it the source, within its noise? Translation:
 *            are the edges where they were (normalised gradient fields), whole image and worst
 *            block, and have blocks moved? Does the model say the same when its input is mirrored
 *            and moved by a pixel?
 * Every figure is "the larger, the worse". A gate has a limit to mark and one to refuse for each.
 *
 * The limits come with the model: metadata spinenode.gate, written by scripts/calibrate, which asks
 * this very code for the figures of its validation subjects. Without it nothing here refuses
 * anything.
 *
 * Format of spinenode.gate: words between blanks and line ends; each key once, in any order, but
 * `limit` and `class` once for each name:
 *   gate 1
 *   features VERSION COUNT           QUALITY_VERSION and QUALITY_FEATURES of this build
 *   refusal RATE SERIES              limits aim at this share of ordinary series; from so many
 *   field_mm MIN MAX                 rows * spacing and columns * spacing accepted
 *   towards LETTERS                  optional; where rows and columns of the images lead, by the
 *                                    letters of Patient Orientation: PF, to the back and the feet
 *   mean COUNT numbers, scale COUNT numbers
 *   whiten S*(S+1)/2 numbers         lower triangle, row by row, of L; distance = |L z| / sqrt(S)
 *                                    with z the first S = QUALITY_SHAPE of (feature - mean) / scale
 *   class NAME MARK REFUSE COUNT numbers      score = sum of weight * (feature - mean) / scale
 *   limit NAME MARK REFUSE           NAME: unlike, or one of the figures of a result below
 *
 * Nothing here knows DICOM or the engines. Any thread; only new memory is written.
 */
#ifndef SPINENODE_MODEL_QUALITY_H
#define SPINENODE_MODEL_QUALITY_H

#include <stdbool.h>
#include <stdint.h>

#include "node/base/err.h"

/* Raised with every change of what a feature or figure means. */
#define QUALITY_VERSION 1

#define QUALITY_SHAPE    32 /* numbers, by name */
#define QUALITY_CELLS    36 /* mean of 6 x 6 cells */
#define QUALITY_LEANS    32 /* of 4 x 4 cells, which way edges run */
#define QUALITY_FEATURES (QUALITY_SHAPE + QUALITY_CELLS + QUALITY_LEANS)
#define QUALITY_NOISE    22 /* which of them is log(standard deviation of the noise + 0.001) */

#define QUALITY_CLASSES_MAX 12
#define QUALITY_CLASS_NAME  24 /* bytes, with the terminator */
#define QUALITY_TEXT_MAX    32768

/* Fewest rows and columns of an image that is looked at. */
#define QUALITY_SIDE_MIN 16

/* Most slices of a series that are looked at: those around the middle. */
#define QUALITY_SLICES_MAX 3

enum quality_figure {
    QUALITY_UNLIKE, /* of the input, the rest of a result */
    QUALITY_DOWNSAMPLED,
    QUALITY_DOWNSAMPLED_BLOCK,
    QUALITY_STRUCTURE,
    QUALITY_STRUCTURE_BLOCK,
    QUALITY_MOVED,
    QUALITY_DISAGREEMENT,
    QUALITY_DISAGREEMENT_BLOCK,
    QUALITY_FIGURE_COUNT
};
const char *quality_figure_name(enum quality_figure f); /* "structure-block" ... */

struct quality_limit {
    double mark, refuse; /* INFINITY: none */
};

struct quality_class {
    char name[QUALITY_CLASS_NAME]; /* "upside-down" ... */
    struct quality_limit limit;
    float weight[QUALITY_FEATURES];
};

struct quality_gate {
    double refusal;
    int series;
    double field_mm_min, field_mm_max;
    char towards[3]; /* "": any way */
    float mean[QUALITY_FEATURES], scale[QUALITY_FEATURES];
    float whiten[QUALITY_SHAPE * (QUALITY_SHAPE + 1) / 2];
    int classes;
    struct quality_class class[QUALITY_CLASSES_MAX];
    struct quality_limit limit[QUALITY_FIGURE_COUNT];
};

/* Reads spinenode.gate. *out is to be given to free(). ERR_INVALID naming the word, ERR_LIMIT,
 * ERR_UNSUPPORTED: calibrated for other features than these; ERR_NOMEM. */
int quality_gate_parse(const char *text, struct quality_gate **out, struct err *e);

enum quality_outcome { QUALITY_PASS, QUALITY_MARK, QUALITY_REFUSE };
const char *quality_outcome_name(enum quality_outcome o); /* "pass", "mark", "refuse" */

/* What was found so far. Figures that were not asked for are NAN. */
struct quality_report {
    bool calibrated; /* there is a gate */
    enum quality_outcome outcome;
    double figure[QUALITY_FIGURE_COUNT];
    double class_score[QUALITY_CLASSES_MAX];
    char reason[ERR_TEXT_MAX]; /* of the outcome, one sentence for an admin; "" for a pass */
};

/* gate may be NULL: nothing is compared then. */
void quality_begin(struct quality_report *r, const struct quality_gate *gate);

/* Which slices of a series are looked at: indices into out, ascending, slices / 2 at out[n / 2];
 * returns n. */
int quality_slices(int slices, int out[QUALITY_SLICES_MAX]);

/* What all that follows takes for an image: values of 0 ... 1, made of one of three kinds, row by
 * row as they are needed. All borrowed. */
struct quality_image {
    int rows, columns;
    const float *unit;       /* 0 ... 1 already; NULL: */
    const float *normalised; /* -1 ... 1 (prepare.h); NULL: */
    const uint16_t *stored;  /* low ... high, clipped to that */
    double low, high;
};

/* Row y of it, columns values: in the image's own memory, or in spare, which has room for them. */
const float *quality_row(const struct quality_image *image, int y, float *spare);

/* The features of one image. ERR_NOMEM; ERR_REFUSED: less than QUALITY_SIDE_MIN rows or columns;
 * ERR_NUMERIC: a value is not finite. */
int quality_features(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e);
const char *quality_feature_name(int i); /* of the first QUALITY_SHAPE; "cell", "lean" */

/* The same in two parts, which two threads may make at once: all but the noise; the noise alone. */
int quality_picture(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e);
int quality_noise(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e);

/* How the images lie, as far as it is known. */
struct quality_view {
    double height_mm, width_mm; /* of the field of view; 0: unknown */
    const char *towards;        /* as in the gate; NULL: unknown */
};
void quality_view(struct quality_report *r, const struct quality_gate *gate,
                  const struct quality_view *view);

/* The input, by the features of n slices: distances and scores are averaged. */
void quality_input(struct quality_report *r, const struct quality_gate *gate,
                   const float (*features)[QUALITY_FEATURES], int n);

/* A result and what it is compared with: scale times as many rows and columns. */
struct quality_pair {
    struct quality_image source, result;
    int scale;
};

/* One slice's figures into the report: with a scale above 1 whether the result is still the source,
 * else whether the structures stayed; the worst of several calls stands. ERR_NOMEM. */
int quality_result(struct quality_report *r, const struct quality_pair *pair, struct err *e);

/* The figures of a report on other slices of the same result into r: the worst of both stand. */
void quality_add(struct quality_report *r, const struct quality_report *other);

/* Mirrored left to right, moved one pixel down and to the right (edge repeated), or first mirrored,
 * then moved. */
enum quality_way { QUALITY_FLIP = 1, QUALITY_SHIFT = 2, QUALITY_BOTH = 3 };
/* out: other memory than in, for both. */
void quality_do(enum quality_way way, const float *in, int rows, int columns, float *out);
/* The opposite, for a result with scale pixels for each of the source. */
void quality_undo(enum quality_way way, const float *in, int rows, int columns, int scale,
                  float *out);

/* How far a result and a second opinion on it are apart, that being the model's answer to what
 * quality_do() made of the source, as quality_undo() would bring it back. The worst of several
 * calls stands. ERR_NOMEM. */
int quality_disagreement(struct quality_report *r, const struct quality_image *result,
                         const struct quality_image *second, enum quality_way way, int scale,
                         struct err *e);

/* Compares the figures of the result with the gate. */
void quality_judge(struct quality_report *r, const struct quality_gate *gate);

#endif
