/* cmd_route.c - `spinenode route`: what the rules make of the series in some folders, and why */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/err.h"

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

static void json_texts(struct buf *out, char *const *texts, uint32_t count)
{
    buf_puts(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        buf_puts(out, i > 0 ? ", " : "");
        buf_json_string(out, texts[i]);
    }
    buf_puts(out, "]");
}

static void json_member(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, ", \"%s\": ", key);
    buf_json_string(out, text);
}

static void print_rule_json(struct buf *out, const struct rule_decision *d)
{
    buf_puts(out, "{\"rule\": ");
    buf_json_string(out, d->rule->name);
    json_member(out, "outcome", rule_outcome_word(d->outcome));
    if (d->reason.code != 0)
        json_member(out, "reason", d->reason.text);
    if (d->model != NULL) {
        json_member(out, "task", model_task_name(d->model->facts.task));
        json_member(out, "model", d->model->file);
        json_member(out, "version", d->model->facts.version);
        json_member(out, "sha256", d->model->digest);
    }
    if (d->outcome == RULE_MATCHED) {
        buf_puts(out, ", \"destinations\": ");
        json_texts(out, d->rule->destinations, d->rule->destinations_count);
    }
    buf_puts(out, "}");
}

static void print_json(struct buf *out, const struct series *s, const struct rule_decisions *d)
{
    const struct recognition *r = &d->recognition;
    buf_puts(out, "{\"series\": ");
    buf_json_string(out, s->series_uid);
    json_member(out, "study", s->study_uid);
    buf_printf(out, ", \"images\": %u, \"rows\": %u, \"columns\": %u", s->slices, s->rows,
               s->columns);
    if (s->has_geometry)
        buf_printf(out, ", \"spacing_mm\": [%.6g, %.6g], \"slice_spacing_mm\": %.6g",
                   s->row_spacing_mm, s->column_spacing_mm, s->slice_spacing_mm);
    else if (s->row_spacing_mm > 0)
        buf_printf(out, ", \"spacing_mm\": [%.6g, %.6g]", s->row_spacing_mm, s->column_spacing_mm);
    json_member(out, "kind", r->kind);
    json_member(out, "contrast", r->contrast);
    json_member(out, "plane", r->plane);
    json_member(out, "body_part", r->body_part);
    buf_puts(out, ", \"reasons\": [");
    for (unsigned i = 0; i < r->reasons; i++) {
        buf_puts(out, i > 0 ? ", " : "");
        buf_json_string(out, r->reason[i]);
    }
    buf_puts(out, "]");
    if (r->refusal.code != 0)
        json_member(out, "refusal", r->refusal.text);
    buf_puts(out, ", \"rules\": [");
    for (unsigned i = 0; i < d->count; i++) {
        buf_puts(out, i > 0 ? ",\n    " : "\n    ");
        print_rule_json(out, &d->decision[i]);
    }
    buf_printf(out, "], \"matched\": %u}", d->matched);
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
    buf_printf(out, "series %s\n  images     %u of %u x %u", s->series_uid, s->slices, s->rows,
               s->columns);
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
    } else if (w->json) {
        print_json(&w->out, series, decisions);
    } else {
        print_text(&w->out, series, decisions);
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
    buf_puts(&w->out, w->json ? "{\"series\": [" : "");
    bool first = true;
    for (int i = 0; i < w->series_count; i++) {
        size_t before = w->out.len;
        if (!first)
            buf_puts(&w->out, w->json ? ",\n  " : "\n");
        size_t separated = w->out.len;
        if (route_series(w, i) != 0)
            status = EXIT_FAILED;
        if (w->out.len == separated)
            w->out.len = before;
        else
            first = false;
    }
    if (w->json)
        buf_printf(&w->out, "], \"ignored_files\": %zu}\n", w->ignored);
    else if (w->ignored > 0)
        buf_printf(&w->out, "\nfiles that are no DICOM images: %zu\n", w->ignored);
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
