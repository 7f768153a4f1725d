/*
 * gate.h - a series, its result and the model's second opinions, put before the quality gate
 *
 * The one way from a volume through a model to the figures of model/quality.h: the worker and
 * `spinenode infer` go it, and so does `spinenode quality`, from which scripts/calibrate takes the
 * limits. What the limits were made from and what is compared with them is therefore the same.
 */
#ifndef SPINENODE_GATE_H
#define SPINENODE_GATE_H

#include <stdint.h>

#include "model/quality.h"
#include "node/config.h"

struct err;
struct package;
struct plan;
struct pool;
struct prepare;
struct series;
struct workspace;

/* All borrowed. One thread at a time. */
struct gate {
    const struct package *package;
    const struct plan *plan;
    struct workspace *workspace;
    struct prepare *prepare; /* made with low and high */
    const float *volume;     /* slices x rows x columns of the source, normalised */
    int slices, rows, columns;
    double low, high; /* values at the package's percentiles */
    struct pool
        *pool; /* who looks at the slices; NULL: the caller alone. The figures are the same */
};

/* How the input lies and looks into *r, which is begun here. plan, workspace and prepare are not
 * used. features: of the slices that were looked at, NULL or room for QUALITY_SLICES_MAX; *n says
 * how many. */
int gate_input(const struct gate *g, const struct quality_view *view, struct quality_report *r,
               float (*features)[QUALITY_FEATURES], int *n, struct err *e);

/* Runs the model on one slice; stored: prepare_rows() x prepare_columns(). */
int gate_run(const struct gate *g, int slice, uint16_t *stored, struct err *e);

/* Stored values as 0 ... 1. */
void gate_unit(const struct gate *g, const uint16_t *stored, float *unit);

/* What the model is given for a second opinion on a slice: the slice mirrored or moved, and its
 * neighbours with it. tensor: as from prepare_input(). ERR_NOMEM. */
int gate_second_input(const struct gate *g, int slice, enum quality_way way, float *tensor,
                      struct err *e);

/* The model's answer to that, brought back, as 0 ... 1: as many values as stored. */
int gate_second(const struct gate *g, int slice, enum quality_way way, float *unit, struct err *e);

/* The slice on which gate_result() has a second opinion, by QUALITY_BOTH. */
int gate_middle(const struct gate *g);

/* Figures of the slices that are looked at into *r, one second opinion on the middle one, and the
 * verdict. stored: result of slice i at stored + i * prepare_rows() * prepare_columns(). second:
 * what the model said of gate_second_input() for gate_middle(), stored in the same way; NULL: it is
 * asked now. */
int gate_result(const struct gate *g, const uint16_t *stored, const uint16_t *second,
                struct quality_report *r, struct err *e);

/* How far a second opinion on each pixel is from the first, PREPARE_VALUE_MAX being the whole
 * range: the larger one of the answers for the mirrored and for the moved slice. As many as stored.
 */
int gate_map(const struct gate *g, int slice, const uint16_t *stored, uint16_t *map, struct err *e);

/* How the images of a series lie. towards: memory for the letters. */
struct quality_view gate_view(const struct series *s, char towards[3]);

/* Does what a report says, as far as that is allowed: a refusal is ERR_REFUSED ("quality: " and the
 * reason), a mark goes into *outcome and doubt, unless there is one. */
int gate_act(const struct quality_report *r, enum config_quality most,
             enum quality_outcome *outcome, char doubt[ERR_TEXT_MAX], struct err *e);

/* What there is to say of a model without limits. */
extern const struct quality_report gate_uncalibrated;

#endif
