/*
 * cmd_quality.c - `spinenode quality`: what the quality gate measures and says of a volume
 *
 * Volumes are NumPy files, slices x rows x columns, as a calibration has them by the hundred; no
 * DICOM. Prints one JSON object a line, in the order of the files.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/json.h"

#include "model/engine.h"
#include "model/npy.h"
#include "model/package.h"
#include "model/percentile.h"
#include "model/prepare.h"
#include "node/cmd.h"
#include "node/engines.h"
#include "node/gate.h"

static const char help[] =
    "usage: spinenode quality MODEL VOLUME.npy... [OPTION]...\n"
    "\n"
    "Says what the quality gate of a model measures: how unlike its training data a volume is, "
    "and\n"
    "how consistent the model's result is with it. One JSON object for each volume, a float32 "
    "array\n"
    "of slices x rows x columns in NumPy's format. scripts/calibrate makes a model's limits from "
    "it.\n"
    "\n"
    "      --spacing-mm X   pixel spacing of the volumes; without it, no field of view is checked\n"
    "      --input-only     do not run the model\n"
    "      --engine NAME    ref, cpu or cuda; else the fastest\n"
    "      --threads N      0 = all processors\n"
    "  -h, --help           this text\n";

#define VOLUME_BYTES_MAX (INT64_C(1) << 30)

struct ask {
    const char *verb;
    struct package *package;
    const struct engine *engine;
    double spacing_mm;
    bool input_only;
    int threads;
    /* compiled for this size */
    int rows, columns;
    struct plan *plan;
    struct workspace *workspace;
};

static void plan_drop(struct ask *a)
{
    engine_workspace_free(a->workspace);
    engine_plan_free(a->plan);
    a->workspace = NULL;
    a->plan = NULL;
}

static int plan_get(struct ask *a, int rows, int columns, struct err *e)
{
    struct shape shape;
    if (a->plan != NULL && a->rows == rows && a->columns == columns)
        return 0;
    plan_drop(a);
    int rc = package_input_shape(a->package, rows, columns, 1, &shape, e);
    if (rc == 0)
        rc = engine_compile(a->engine, a->package->graph, &shape,
                            &(struct engine_options){.threads = a->threads}, &a->plan, e);
    if (rc == 0)
        rc = engine_workspace_new(a->plan, &a->workspace, e);
    a->rows = rows;
    a->columns = columns;
    return rc;
}

static void print(const struct ask *a, const char *path, const struct quality_report *r,
                  const float (*features)[QUALITY_FEATURES], int n, const double ms[2])
{
    const struct quality_gate *gate = a->package->gate;
    struct buf out;
    buf_init(&out, 1 << 20);
    json_open(&out, NULL, '{');
    json_text(&out, "path", path);
    json_int(&out, "version", QUALITY_VERSION);
    json_bool(&out, "calibrated", r->calibrated);
    json_text(&out, "outcome", quality_outcome_name(r->outcome));
    json_text(&out, "reason", r->reason);
    json_real(&out, "input_ms", ms[0]);
    json_real(&out, "result_ms", ms[1]);
    json_open(&out, "figures", '{');
    for (int i = 0; i < QUALITY_FIGURE_COUNT; i++)
        json_real(&out, quality_figure_name((enum quality_figure)i), r->figure[i]);
    json_close(&out, '}');
    json_open(&out, "classes", '{');
    for (int i = 0; gate != NULL && i < gate->classes; i++)
        json_real(&out, gate->class[i].name, r->class_score[i]);
    json_close(&out, '}');
    json_open(&out, "names", '[');
    for (int i = 0; i < QUALITY_FEATURES; i++)
        json_text(&out, NULL, quality_feature_name(i));
    json_close(&out, ']');
    json_open(&out, "features", '[');
    for (int s = 0; s < n; s++) {
        json_open(&out, NULL, '[');
        for (int i = 0; i < QUALITY_FEATURES; i++)
            json_real(&out, NULL, features[s][i]);
        json_close(&out, ']');
    }
    json_close(&out, ']');
    json_close(&out, '}');
    buf_puts(&out, "\n");
    fputs(buf_text(&out), stdout);
    buf_fini(&out);
}

/* The slices that are looked at, and no others. */
static int run_slices(const struct gate *g, uint16_t *stored, struct err *e)
{
    int slice[QUALITY_SLICES_MAX], n = quality_slices(g->slices, slice), rc = 0;
    int64_t size = (int64_t)prepare_rows(g->prepare) * prepare_columns(g->prepare);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = gate_run(g, slice[i], stored + slice[i] * size, e);
    return rc;
}

static int look(struct ask *a, const char *path, struct err *e)
{
    struct npy volume = {0};
    struct gate g = {.package = a->package};
    struct quality_report r;
    float features[QUALITY_SLICES_MAX][QUALITY_FEATURES];
    uint16_t *stored = NULL;
    double value[2], ms[2] = {0, 0};
    int n = 0, rc = npy_read(path, VOLUME_BYTES_MAX, &volume, e);
    if (rc == 0 && volume.shape.rank != 3)
        rc = err_set(e, ERR_INVALID, "%s: expected slices x rows x columns", path);
    if (rc == 0 && (volume.shape.dim[1] > 65536 || volume.shape.dim[2] > 65536))
        rc = err_set(e, ERR_LIMIT, "%s: more than 65536 rows or columns", path);
    if (rc != 0)
        goto out;
    g.volume = volume.data;
    g.slices = (int)volume.shape.dim[0];
    g.rows = (int)volume.shape.dim[1];
    g.columns = (int)volume.shape.dim[2];
    const double at[2] = {a->package->percentile_low, a->package->percentile_high};
    double start = clock_exact_ms();
    rc = percentiles(g.volume, (size_t)shape_count(&volume.shape), at, 2, value, NULL, e);
    if (rc == 0)
        rc = prepare_new(a->package, g.rows, g.columns, g.low = value[0], g.high = value[1],
                         &g.prepare, e);
    if (rc == 0)
        prepare_normalise(g.prepare, volume.data, (size_t)shape_count(&volume.shape), NULL);
    const struct quality_view view = {g.rows * a->spacing_mm, g.columns * a->spacing_mm, NULL};
    if (rc == 0)
        rc = gate_input(&g, &view, &r, features, &n, e);
    ms[0] = clock_exact_ms() - start;
    if (rc == 0 && !a->input_only) {
        rc = plan_get(a, g.rows, g.columns, e);
        g.plan = a->plan;
        g.workspace = a->workspace;
        size_t size = (size_t)prepare_rows(g.prepare) * (size_t)prepare_columns(g.prepare);
        if (rc == 0 && (stored = calloc(size * (size_t)g.slices, sizeof *stored)) == NULL)
            rc = err_set(e, ERR_NOMEM, "running the model: no memory");
        if (rc == 0)
            rc = run_slices(&g, stored, e);
        start = clock_exact_ms();
        if (rc == 0)
            rc = gate_result(&g, stored, NULL, &r, e);
        ms[1] = clock_exact_ms() - start;
    }
    if (rc == 0)
        print(a, path, &r, features, n, ms);
out:
    prepare_free(g.prepare);
    free(stored);
    npy_fini(&volume);
    return rc;
}

int cmd_quality(int argc, char **argv)
{
    struct ask a = {.verb = argv[0]};
    const char *spacing = NULL, *engine = NULL, *threads = NULL;
    int64_t count = 0;
    struct err e;
    const struct cmd_option options[] = {{"spacing-mm", 0, NULL, &spacing},
                                         {"input-only", 0, &a.input_only, NULL},
                                         {"engine", 0, NULL, &engine},
                                         {"threads", 0, NULL, &threads},
                                         {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status == CMD_GO && threads != NULL)
        status = cmd_number(a.verb, "threads", threads, 0, 1024, &count);
    if (status == CMD_GO && operands < 2)
        status = cmd_usage_error(a.verb, "expected a model and a volume");
    if (status == CMD_GO && spacing != NULL) {
        char *end;
        a.spacing_mm = strtod(spacing, &end);
        if (end == spacing || *end != '\0' || !(a.spacing_mm > 0) || a.spacing_mm > 1000)
            status =
                cmd_usage_error(a.verb, "--spacing-mm: expected millimetres, not '%s'", spacing);
    }
    if (status != CMD_GO)
        return status;
    a.threads = (int)count;
    int rc = engines_choose(engine != NULL ? engine : "auto", &a.engine, &e);
    if (rc != 0)
        return cmd_usage_error(a.verb, "%s", e.text);
    rc = package_open(argv[1], NULL, &a.package, &e);
    status = rc != 0 ? cmd_failed(a.verb, "%s", e.text) : 0;
    for (int i = 2; rc == 0 && i <= operands; i++) {
        rc = look(&a, argv[i], &e);
        if (rc != 0)
            status = cmd_failed(a.verb, "%s: %s", argv[i], e.text);
    }
    plan_drop(&a);
    package_free(a.package);
    int written = cmd_finish_output(a.verb);
    return status != 0 ? status : written;
}
