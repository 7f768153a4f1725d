/* cmd_models.c - `spinenode models`: what model files say of themselves, and what they cost */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/buf.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/json.h"

#include "model/engine.h"
#include "model/package.h"
#include "model/passes.h"
#include "model/quality.h"
#include "node/cmd.h"
#include "node/engines.h"
#include "node/scan.h"

static const char help[] =
    "usage: spinenode models PATH... [--json] [--explain] [--engine NAME]\n"
    "\n"
    "For each model file (*.onnx) at or under PATH: task, version, what it takes and gives,\n"
    "SHA-256, parameters, multiply-accumulates of a slice, and memory for series with all\n"
    "processors, both of the largest square source that it accepts (512 x 512 at most). A\n"
    "file that is no model is reported with the reason, and the exit status is 1.\n"
    "\n"
    "      --json         one JSON array\n"
    "      --explain      also training data, intended use, limits, licence and figures, and what\n"
    "                     each rewrite makes of the network: nodes, multiply-accumulates and\n"
    "                     activations before and after\n"
    "      --engine NAME  memory for this engine: ref, cpu or cuda (the fastest on this machine)\n"
    "  -h, --help         this text\n";

/* Side of the source for which costs are reckoned, where the model takes it. */
#define TYPICAL_SIDE 512

/* Of the passes' figures: what engines allow by default. */
#define ACTIVATIONS_MAX ((int64_t)16 << 30)

struct report {
    const char *path;
    char digest[DIGEST_HEX];
    int64_t bytes;
    struct package *package;
    int rows, columns; /* of the source for which the cost is */
    struct shape input;
    bool has_cost;
    struct engine_cost cost;
    struct pass_report passes; /* n is 0 if the network cannot be lowered */
    struct err problem, no_cost;
};

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

static void look_at(struct report *r, const struct engine *engine)
{
    struct stat st;
    if (package_open(r->path, NULL, &r->package, &r->problem) != 0)
        return;
    if (digest_file(r->path, r->digest, &r->problem) != 0)
        return;
    r->bytes = stat(r->path, &st) == 0 ? st.st_size : 0;
    const struct package *p = r->package;
    r->rows = clamp(TYPICAL_SIDE, p->rows_min, p->rows_max);
    r->columns = clamp(TYPICAL_SIDE, p->columns_min, p->columns_max);
    const struct engine_options of_a_series = {.stream = true};
    r->has_cost =
        package_input_shape(p, r->rows, r->columns, 1, &r->input, &r->no_cost) == 0 &&
        engine_estimate(engine, p->graph, &r->input, &of_a_series, &r->cost, &r->no_cost) == 0;
    struct graph *lowered;
    if (r->has_cost &&
        graph_lower(p->graph, &r->input, ACTIVATIONS_MAX, &lowered, &r->passes, NULL) == 0)
        graph_free(lowered);
}

static void grid_text(const struct package *p, char *out, size_t size)
{
    if (p->multiple > 0)
        snprintf(out, size, "any:%d", p->multiple);
    else
        snprintf(out, size, "%dx%d", p->grid_rows, p->grid_columns);
}

static void json_range(struct buf *out, const char *name, double low, double high)
{
    json_open(out, name, '[');
    json_real(out, NULL, low);
    json_real(out, NULL, high);
    json_close(out, ']');
}

static void json_passes(struct buf *out, const struct pass_report *r)
{
    json_open(out, "passes", '[');
    for (int i = 0; i < r->n; i++) {
        const struct pass_figures *f = &r->pass[i].after;
        json_open(out, NULL, '{');
        json_text(out, "pass", r->pass[i].name);
        json_int(out, "changes", r->pass[i].changes);
        json_int(out, "nodes", f->nodes);
        json_int(out, "macs", f->macs);
        json_int(out, "parameters", f->parameters);
        json_int(out, "activation_bytes", f->activation_bytes);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void print_json(struct buf *out, const struct report *r, const struct engine *engine,
                       bool explain)
{
    const struct package *p = r->package;
    char grid[32];
    json_open(out, NULL, '{');
    json_text(out, "path", r->path);
    if (r->problem.code != 0) {
        json_text(out, "problem", r->problem.text);
        json_close(out, '}');
        return;
    }
    grid_text(p, grid, sizeof grid);
    json_text(out, "sha256", r->digest);
    json_int(out, "bytes", r->bytes);
    json_text(out, "task", model_task_name(p->task));
    json_text(out, "name", p->name);
    json_text(out, "version", p->version);
    json_text(out, "input_contrast", model_contrast_name(p->input_contrast));
    json_text(out, "output_contrast", model_contrast_name(p->output_contrast));
    json_int(out, "input_slices", p->input_slices);
    json_int(out, "scale", p->scale);
    json_text(out, "grid", grid);
    json_range(out, "rows", p->rows_min, p->rows_max);
    json_range(out, "columns", p->columns_min, p->columns_max);
    json_range(out, "spacing_mm", p->spacing_mm_min, p->spacing_mm_max);
    json_range(out, "percentiles", p->percentile_low, p->percentile_high);
    json_text(out, "output", p->output == MODEL_OUTPUT_UNIT ? "unit" : "source");
    json_int(out, "parameters", p->parameters);
    if (p->pixel_mm > 0)
        json_real(out, "pixel_mm", p->pixel_mm);
    if (p->gate != NULL) {
        json_open(out, "gate", '{');
        json_real(out, "false_refusal", p->gate->refusal);
        json_int(out, "series", p->gate->series);
        json_close(out, '}');
    }
    if (r->has_cost) {
        json_open(out, "cost", '{');
        json_text(out, "engine", engine->name);
        json_int(out, "rows", r->rows);
        json_int(out, "columns", r->columns);
        json_int(out, "macs", r->cost.macs);
        json_int(out, "plan_bytes", r->cost.plan_bytes);
        json_int(out, "workspace_bytes", r->cost.workspace_bytes);
        json_int(out, "compile_bytes", r->cost.compile_bytes);
        json_close(out, '}');
    } else {
        json_text(out, "no_cost", r->no_cost.text);
    }
    if (explain) {
        json_text(out, "training_data", p->training_data);
        json_text(out, "intended_use", p->intended_use);
        json_text(out, "limits", p->limits);
        json_text(out, "licence", p->licence);
        json_text(out, "figures", p->figures);
        json_passes(out, &r->passes);
    }
    json_close(out, '}');
}

/* Each pass: its changes, and the network before and after it. */
static void print_passes(struct buf *out, const struct pass_report *r)
{
    if (r->n > 0)
        buf_printf(out, "  %-22s %7s  %15s  %21s  %21s\n", "rewrites", "changes", "nodes",
                   "G multiply-accumulates", "MB of activations");
    for (int i = 1; i < r->n; i++) {
        const struct pass_figures *a = &r->pass[i - 1].after, *b = &r->pass[i].after;
        buf_printf(out, "    %-20s %7d  %6d to %5d  %9.3f to %9.3f  %9.1f to %9.1f\n",
                   r->pass[i].name, r->pass[i].changes, a->nodes, b->nodes, (double)a->macs / 1e9,
                   (double)b->macs / 1e9, (double)a->activation_bytes / 1e6,
                   (double)b->activation_bytes / 1e6);
    }
}

static void print_text(struct buf *out, const struct report *r, const struct engine *engine,
                       bool explain)
{
    const struct package *p = r->package;
    char grid[32];
    if (r->problem.code != 0) {
        buf_printf(out, "%s\n  cannot be used: %s\n", r->path, r->problem.text);
        return;
    }
    char resampled[48] = "";
    if (p->pixel_mm > 0)
        snprintf(resampled, sizeof resampled, " (after resampling to %g mm)", p->pixel_mm);
    grid_text(p, grid, sizeof grid);
    buf_printf(out,
               "%s\n"
               "  task         %s: %s to %s%s\n"
               "  model        %s, version %s\n"
               "  SHA-256      %s\n"
               "  takes        %d slice%s, %d to %d rows, %d to %d columns%s, pixels of %g to %g "
               "mm\n"
               "  network      grid %s, scale %d, percentiles %g and %g, output %s\n"
               "  parameters   %.3f million, %.1f MB on disk\n",
               r->path, model_task_name(p->task), model_contrast_name(p->input_contrast),
               model_contrast_name(p->output_contrast), p->scale > 1 ? ", more pixels" : "",
               p->name, p->version, r->digest, p->input_slices, p->input_slices == 1 ? "" : "s",
               p->rows_min, p->rows_max, p->columns_min, p->columns_max, resampled,
               p->spacing_mm_min, p->spacing_mm_max, grid, p->scale, p->percentile_low,
               p->percentile_high, p->output == MODEL_OUTPUT_UNIT ? "unit" : "source",
               (double)p->parameters / 1e6, (double)r->bytes / 1e6);
    if (p->gate != NULL)
        buf_printf(out,
                   "  gate         limits from %d ordinary series, at most %g %% of them refused\n",
                   p->gate->series, p->gate->refusal * 100);
    else
        buf_puts(out, "  gate         none: nothing is said about the quality of its results\n");
    if (r->has_cost)
        buf_printf(out,
                   "  one slice    %d x %d: %.2f G multiply-accumulates, %.1f MB with engine %s\n",
                   r->rows, r->columns, (double)r->cost.macs / 1e9,
                   (double)(r->cost.plan_bytes + r->cost.workspace_bytes) / 1e6, engine->name);
    else
        buf_printf(out, "  one slice    cannot be run: %s\n", r->no_cost.text);
    if (explain)
        buf_printf(out,
                   "  trained on   %s\n"
                   "  meant for    %s\n"
                   "  limits       %s\n"
                   "  licence      %s\n"
                   "  figures      %s\n",
                   p->training_data, p->intended_use, p->limits, p->licence,
                   *p->figures != '\0' ? p->figures : "none given");
    if (explain)
        print_passes(out, &r->passes);
}

int cmd_models(int argc, char **argv)
{
    bool json = false, explain = false;
    const char *engine_name = NULL;
    const struct cmd_option options[] = {{"json", 0, &json, NULL},
                                         {"explain", 0, &explain, NULL},
                                         {"engine", 0, NULL, &engine_name},
                                         {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (operands == 0)
        return cmd_usage_error(argv[0], "expected the path of a model or of a folder");
    struct err e;
    const struct engine *engine = NULL;
    if (engines_choose(engine_name, &engine, &e) != 0)
        return cmd_usage_error(argv[0], "%s", e.text);
    struct scan files = {0};
    struct buf out;
    buf_init(&out, 64 * 1024 * 1024);
    status = 0;
    for (int i = 1; i <= operands; i++) {
        size_t before = files.count;
        if (scan_add(&files, argv[i], ".onnx", &e) != 0)
            status = cmd_failed(argv[0], "%s", e.text);
        else if (files.count == before)
            status = cmd_failed(argv[0], "no *.onnx under %s", argv[i]);
    }
    if (json)
        json_open(&out, NULL, '[');
    for (size_t i = 0; i < files.count; i++) {
        struct report r = {.path = files.paths[i]};
        look_at(&r, engine);
        if (r.problem.code != 0)
            status = EXIT_FAILED;
        (json ? print_json : print_text)(&out, &r, engine, explain);
        package_free(r.package);
    }
    if (json)
        json_close(&out, ']');
    buf_puts(&out, json ? "\n" : "");
    fputs(buf_text(&out), stdout);
    buf_fini(&out);
    scan_fini(&files);
    int written = cmd_finish_output(argv[0]);
    return status != 0 ? status : written;
}
