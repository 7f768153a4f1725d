/*
 * package.h - what a model file says of itself: its metadata_props, checked, and its graph
 *
 * Every key below is required unless "optional" stands beside it. Format of the values, one line
 * each, by key:
 *   spinenode.format         "1"
 *   spinenode.task           super-resolution | t1-to-t2 | t2-to-t1 | t2-to-stir | t2-to-tirm |
 *                            xray-to-t2
 *   spinenode.version        semantic version, "1.0.0"
 *   spinenode.name           at most 64 characters
 *   spinenode.input_contrast, spinenode.output_contrast      T1 | T2 | STIR | TIRM | XR
 *   spinenode.input_slices   odd number 1-31 = channels of the input
 *   spinenode.scale          "1"; super-resolution "2" ... "8"
 *   spinenode.grid           "any:K" or "RxC"
 *   spinenode.pixel_mm       "1", optional, with "any:K" only: sources are resampled to pixels of
 *                            this size before everything else, and the result keeps that grid
 *   spinenode.spacing_mm     "min-max" of the source
 *   spinenode.rows, spinenode.columns    "min-max" of the source, after pixel_mm
 *   spinenode.normalisation  "percentile LO HI"
 *   spinenode.output         "unit" | "source"
 *   spinenode.training_data, spinenode.intended_use, spinenode.limits, spinenode.licence
 *                            free text
 *   spinenode.figures        free text, optional
 *   spinenode.gate           limits of the quality gate, optional; format: model/quality.h
 *
 * The graph must have one input "image" [N, input_slices, H, W] and one output "synthetic"
 * [N, 1, scale * H, scale * W]. With a grid "RxC" its H and W may be fixed, and then are R and C.
 * No sample of a batch may depend on another.
 */
#ifndef SPINENODE_MODEL_PACKAGE_H
#define SPINENODE_MODEL_PACKAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/graph.h"

struct err;
struct onnx_limits;
struct quality_gate;

enum model_task {
    TASK_SUPER_RESOLUTION,
    TASK_T1_TO_T2,
    TASK_T2_TO_T1,
    TASK_T2_TO_STIR,
    TASK_T2_TO_TIRM,
    TASK_XRAY_TO_T2,
    TASK_COUNT
};
/* "super-resolution" ...; parse: the task, or -1. */
const char *model_task_name(enum model_task task);
int model_task_parse(const char *word);

enum model_contrast { MODEL_T1, MODEL_T2, MODEL_STIR, MODEL_TIRM, MODEL_XR, MODEL_CONTRAST_COUNT };
const char *model_contrast_name(enum model_contrast c);

enum model_output_scale {
    MODEL_OUTPUT_UNIT,  /* [-1,1] is stored 0 ... 4095 */
    MODEL_OUTPUT_SOURCE /* [-1,1] is p_LO ... p_HI of the source series */
};

struct package {
    enum model_task task;
    const char *version, *name; /* these and all texts: borrowed from the graph */
    enum model_contrast input_contrast, output_contrast;
    int input_slices;
    int scale;
    int multiple;                /* grid "any:K": K; 0 with a fixed grid */
    int grid_rows, grid_columns; /* grid "RxC"; 0 with "any:K" */
    double pixel_mm;             /* 0: the source's own pixels */
    double spacing_mm_min, spacing_mm_max;
    int rows_min, rows_max, columns_min, columns_max;
    double percentile_low, percentile_high; /* 0 <= low < high <= 100 */
    enum model_output_scale output;
    const char *training_data, *intended_use, *limits, *licence, *figures; /* figures may be "" */
    int64_t parameters;
    struct quality_gate *gate; /* owned; NULL: the model was not calibrated */
    struct graph *graph;       /* owned */
};

/* Reads and checks. *out is NULL after a failure, else for package_free(). Errors of onnx_open(),
 * ERR_INVALID naming the key and what was expected. */
int package_open(const char *path, const struct onnx_limits *limits, struct package **out,
                 struct err *e);
void package_free(struct package *p);

/* The grid that a source of rows x columns pixels of row_mm x column_mm is brought to: its own, or
 * with pixel_mm the nearest whole number of such pixels. ERR_REFUSED: pixel_mm is given and the
 * source's pixels have no known size (0 or NAN), or the grid passes 65536. */
int package_grid(const struct package *p, unsigned rows, unsigned columns, double row_mm,
                 double column_mm, int *out_rows, int *out_columns, struct err *e);

/* The size of the network's input for a source of rows x columns: the fixed grid, or rounded up to
 * a multiple of K. ERR_REFUSED if the model does not accept such a source. */
int package_input_shape(const struct package *p, int rows, int columns, int batch,
                        struct shape *out, struct err *e);

#endif
