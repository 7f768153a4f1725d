/* cmd_route.c - `spinenode route`: what the rules make of the series in some folders, and why */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/json.h"

#include "dicom/dataset.h"
#include "dicom/series.h"
#include "node/catalogue.h"
#include "node/cmd.h"
#include "node/config.h"
#include "node/load.h"
#include "node/rules.h"
#include "node/scan.h"

static const char help[] =
    "usage: spinenode route -c FILE PATH... [--json]\n"
    "\n"
    "For every series in the DICOM files at or under PATH: what it is recognised as and from\n"
    "which attributes, and for each rule of the configuration whether it matches, with which\n"
    "model, or why not. Needs no running node, sends nothing, changes nothing.\n"
    "\n"
    "  -c, --config FILE  the configuration file\n"
    "      --json         one JSON object\n"
    "  -h, --help         this text\n";

struct route {
    const char *verb;
    struct config *config;
    struct catalogue *models;
    struct scan files;
    int *group; /* series of each file */
    int series_count;
    size_t ignored; /* files that are no DICOM images */
    bool json;
    struct buf out;
};

static void print_rule_json(struct buf *out, const struct rule_decision *d)
{
    json_open(out, NULL, '{');
    json_text(out, "rule", d->rule->name);
    json_text(out, "outcome", rule_outcome_word(d->outcome));
    if (d->reason.code != 0)
        json_text(out, "reason", d->reason.text);
    if (d->model != NULL) {
        json_text(out, "task", model_task_name(d->model->facts.task));
        json_text(out, "model", d->model->file);
        json_text(out, "version", d->model->facts.version);
        json_text(out, "sha256", d->model->digest);
    }
    if (d->outcome == RULE_MATCHED) {
        json_open(out, "destinations", '[');
        for (uint32_t i = 0; i < d->rule->destinations_count; i++)
            json_text(out, NULL, d->rule->destinations[i]);
        json_close(out, ']');
    }
    json_close(out, '}');
}

static void print_json(struct buf *out, const struct series *s, const struct rule_decisions *d)
{
    const struct recognition *r = &d->recognition;
    json_open(out, NULL, '{');
    json_text(out, "series", s->series_uid);
    json_text(out, "study", s->study_uid);
    json_int(out, "images", s->slices);
    json_int(out, "rows", s->rows);
    json_int(out, "columns", s->columns);
    if (s->has_geometry || s->row_spacing_mm > 0) {
        json_open(out, "spacing_mm", '[');
        json_real(out, NULL, s->row_spacing_mm);
        json_real(out, NULL, s->column_spacing_mm);
        json_close(out, ']');
    }
    if (s->has_geometry)
        json_real(out, "slice_spacing_mm", s->slice_spacing_mm);
    json_text(out, "kind", r->kind);
    json_text(out, "contrast", r->contrast);
    json_text(out, "plane", r->plane);
    json_text(out, "body_part", r->body_part);
    json_open(out, "reasons", '[');
    for (unsigned i = 0; i < r->reasons; i++)
        json_text(out, NULL, r->reason[i]);
    json_close(out, ']');
    if (r->refusal.code != 0)
        json_text(out, "refusal", r->refusal.text);
    json_open(out, "rules", '[');
    for (unsigned i = 0; i < d->count; i++)
        print_rule_json(out, &d->decision[i]);
    json_close(out, ']');
    json_int(out, "matched", d->matched);
    json_close(out, '}');
}

static void print_rule_text(struct buf *out, const struct rule_decision *d)
{
    buf_printf(out, "  rule %-18s ", d->rule->name);
    switch (d->outcome) {
    case RULE_MATCHED:
        buf_printf(out, "matches: %s (%s %s) to", d->model->file, d->model->facts.name,
                   d->model->facts.version);
        for (uint32_t i = 0; i < d->rule->destinations_count; i++)
            buf_printf(out, "%s %s", i > 0 ? "," : "", d->rule->destinations[i]);
        buf_puts(out, "\n");
        break;
    case RULE_REFUSED:
        buf_printf(out, "matches, but will be refused: %s\n", d->reason.text);
        break;
    case RULE_NO_MODEL:
        buf_printf(out, "matches, but cannot run: %s\n", d->reason.text);
        break;
    default:
        buf_printf(out, "does not match: %s\n", d->reason.text);
        break;
    }
}

static void print_text(struct buf *out, const struct series *s, const struct rule_decisions *d)
{
    const struct recognition *r = &d->recognition;
    buf_printf(out, "%sseries %s\n  images     %u of %u x %u", out->len > 0 ? "\n" : "",
               s->series_uid, s->slices, s->rows, s->columns);
    if (s->has_geometry)
        buf_printf(out, ", pixels of %.4g x %.4g mm, %.4g mm apart", s->row_spacing_mm,
                   s->column_spacing_mm, s->slice_spacing_mm);
    else if (s->row_spacing_mm > 0)
        buf_printf(out, ", pixels of %.4g x %.4g mm on the detector", s->row_spacing_mm,
                   s->column_spacing_mm);
    buf_printf(out, "\n  recognised kind %s, contrast %s, plane %s, body part %s\n", r->kind,
               r->contrast, r->plane, r->body_part);
    for (unsigned i = 0; i < r->reasons; i++)
        buf_printf(out, "             %s\n", r->reason[i]);
    if (r->refusal.code != 0)
        buf_printf(out, "  refused    %s\n", r->refusal.text);
    for (unsigned i = 0; i < d->count; i++)
        print_rule_text(out, &d->decision[i]);
}

/* One series: a file of it that cannot be read is said of the series, and the others go on. */
static int route_series(struct route *w, int number)
{
    struct err e;
    size_t n = 0;
    struct series *series = NULL;
    struct rule_decisions *decisions = NULL;
    const char **paths = malloc(w->files.count * sizeof *paths);
    if (paths == NULL)
        return cmd_failed(w->verb, "no memory");
    for (size_t i = 0; i < w->files.count; i++) {
        if (w->group[i] == number)
            paths[n++] = w->files.paths[i];
    }
    int status = 0;
    if (load_series(paths, n, &w->config->limits, &series, &e) != 0 ||
        rules_decide(w->config, w->models, series, &decisions, &e) != 0) {
        status = cmd_failed(w->verb, "%s", e.text);
    } else {
        (w->json ? print_json : print_text)(&w->out, series, decisions);
    }
    rules_free(decisions);
    series_free(series);
    free(paths);
    return status;
}

static int load(struct route *w, const char *config, char *const *paths, int count, struct err *e)
{
    int rc = config_load(config, &w->config, e);
    if (rc != 0)
        return rc;
    w->models = catalogue_new(w->config->models.folder);
    if (w->models == NULL)
        return err_set(e, ERR_NOMEM, "listing the models: no memory");
    rc = catalogue_refresh(w->models, e);
    for (int i = 0; rc == 0 && i < count; i++)
        rc = scan_add(&w->files, paths[i], NULL, e);
    if (rc == 0)
        rc = dicom_init(e);
    if (rc != 0)
        return rc;
    rc = series_group((const char *const *)w->files.paths, w->files.count, &w->group, e);
    if (rc < 0)
        return rc;
    w->series_count = rc;
    for (size_t i = 0; i < w->files.count; i++)
        w->ignored += w->group[i] < 0;
    if (w->series_count == 0)
        return err_set(e, ERR_NOT_FOUND, "no DICOM images among %zu files", w->files.count);
    return 0;
}

static int print_all(struct route *w)
{
    int status = 0;
    if (w->json) {
        json_open(&w->out, NULL, '{');
        json_open(&w->out, "series", '[');
    }
    for (int i = 0; i < w->series_count; i++)
        if (route_series(w, i) != 0)
            status = EXIT_FAILED;
    if (w->json) {
        json_close(&w->out, ']');
        json_int(&w->out, "ignored_files", (int64_t)w->ignored);
        json_close(&w->out, '}');
        buf_puts(&w->out, "\n");
    } else if (w->ignored > 0) {
        buf_printf(&w->out, "\nfiles that are no DICOM images: %zu\n", w->ignored);
    }
    fwrite(buf_text(&w->out), 1, w->out.len, stdout);
    int written = cmd_finish_output(w->verb);
    return status != 0 ? status : written;
}

int cmd_route(int argc, char **argv)
{
    const char *config = NULL;
    struct route w = {.verb = argv[0]};
    const struct cmd_option options[] = {
        {"config", 'c', NULL, &config}, {"json", 0, &w.json, NULL}, {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (config == NULL)
        return cmd_usage_error(argv[0], "-c FILE is missing");
    if (operands == 0)
        return cmd_usage_error(argv[0], "expected the path of a DICOM file or of a folder");
    struct err e;
    buf_init(&w.out, 256 * 1024 * 1024);
    if (load(&w, config, argv + 1, operands, &e) != 0)
        status = cmd_failed(argv[0], "%s", e.text);
    else
        status = print_all(&w);
    buf_fini(&w.out);
    free(w.group);
    scan_fini(&w.files);
    catalogue_free(w.models);
    config_free(w.config);
    return status;
}
