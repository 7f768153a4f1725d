/*
 * cmd_jobs.c - `spinenode jobs`: what is done, what waits, what went wrong and why
 *
 * Asks the database itself, so it works whether the node runs or not; a running node sees a retry
 * or a cancellation within a second.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"

#include "node/cmd.h"
#include "node/config.h"
#include "node/store.h"

static const char help[] =
    "usage: spinenode jobs -c FILE [list | show ID | retry ID | cancel ID] [--json] [--limit N]\n"
    "\n"
    "  list       the newest series and jobs, refused ones with the reason (the default)\n"
    "  show ID    everything about a job (12) or a series (S7)\n"
    "  retry ID   a job that failed, was refused, cancelled or set aside, does its work again; of\n"
    "             a job that is done, its failed deliveries; a series is planned again, after a\n"
    "             change of the rules for instance\n"
    "  cancel ID  a job that waits or runs; of a job that is done, what is still to be sent\n"
    "\n"
    "  -c, --config FILE  the configuration file\n"
    "      --json         one JSON object on standard output\n"
    "      --limit N      at most N series and N jobs (200)\n"
    "  -h, --help         this text\n";

#define JSON_MAX (256 * 1024 * 1024)

/* ---- JSON ----------------------------------------------------------------------------------- */

static void member(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    buf_json_string(out, text);
    buf_puts(out, ",");
}

static void number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "\"%s\":%" PRId64 ",", name, value);
}

/* ISO 8601 in UTC, null for 0. */
static void moment(struct buf *out, const char *name, int64_t ms)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    if (ms == 0) {
        buf_printf(out, "\"%s\":null,", name);
        return;
    }
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(out, "\"%s\":\"%s.%03dZ\",", name, text, (int)(ms % 1000));
}

/* Takes back the comma behind the last member. */
static void close_with(struct buf *out, char bracket)
{
    if (out->len > 0 && out->data[out->len - 1] == ',')
        out->data[--out->len] = '\0';
    buf_add(out, &bracket, 1);
}

static void series_json(struct buf *out, const struct store_series *s)
{
    char id[32];
    snprintf(id, sizeof id, "S%" PRId64, s->id);
    buf_puts(out, "{");
    member(out, "id", id);
    member(out, "series_uid", s->series_uid);
    member(out, "study_uid", s->study_uid);
    member(out, "state", series_state_word(s->state));
    member(out, "reason", s->reason);
    member(out, "calling_ae", s->calling_ae);
    number(out, "revision", s->revision);
    number(out, "instances", s->instances);
    number(out, "bytes", s->bytes);
    moment(out, "first_at", s->first_at);
    moment(out, "last_at", s->last_at);
    moment(out, "changed_at", s->changed_at);
    close_with(out, '}');
}

static void delivery_json(struct buf *out, const struct store_delivery *d)
{
    buf_puts(out, "{");
    member(out, "destination", d->destination);
    member(out, "state", delivery_state_word(d->state));
    member(out, "reason", d->reason);
    number(out, "attempts", d->attempts);
    number(out, "instances", d->items);
    number(out, "sent", d->items_sent);
    number(out, "committed", d->items_committed);
    number(out, "commitment_asked", d->commit_asked);
    moment(out, "due_at", d->due_at);
    moment(out, "changed_at", d->changed_at);
    close_with(out, '}');
}

static int job_json(struct store *s, struct buf *out, const struct store_job *j, bool whole,
                    struct err *e)
{
    struct store_delivery *deliveries;
    struct store_output *outputs;
    size_t n = 0;
    buf_puts(out, "{");
    number(out, "id", j->id);
    member(out, "key", j->key);
    member(out, "state", job_state_word(j->state));
    member(out, "reason", j->reason);
    member(out, "task", j->task);
    member(out, "rule", j->rule);
    member(out, "model", j->model);
    member(out, "model_digest", j->model_digest);
    member(out, "parameters", j->parameters);
    number(out, "attempts", j->attempts);
    number(out, "crashes", j->crashes);
    number(out, "interruptions", j->interruptions);
    buf_printf(out, "\"cancel_asked\":%s,", j->cancel_asked ? "true" : "false");
    number(out, "run_ms", j->run_ms);
    moment(out, "created_at", j->created_at);
    moment(out, "started_at", j->started_at);
    moment(out, "finished_at", j->finished_at);
    number(out, "outputs", j->outputs);
    buf_puts(out, "\"inputs\":[");
    for (uint32_t i = 0; i < j->inputs_count; i++) {
        buf_puts(out, "{");
        member(out, "series_uid", j->inputs[i].series_uid);
        member(out, "study_uid", j->inputs[i].study_uid);
        number(out, "revision", j->inputs[i].revision);
        close_with(out, '}');
        buf_puts(out, ",");
    }
    close_with(out, ']');
    buf_puts(out, ",\"deliveries\":[");
    int rc = store_job_deliveries(s, j->id, &deliveries, &n, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        delivery_json(out, &deliveries[i]);
        buf_puts(out, ",");
    }
    free(deliveries);
    close_with(out, ']');
    if (whole) {
        buf_puts(out, ",\"instances\":[");
        if ((rc = store_job_outputs(s, j->id, &outputs, &n, e)) != 0)
            return rc;
        for (size_t i = 0; i < n; i++) {
            buf_puts(out, "{");
            member(out, "sop_instance_uid", outputs[i].sop_uid);
            member(out, "series_uid", outputs[i].series_uid);
            member(out, "file", outputs[i].path);
            number(out, "bytes", outputs[i].bytes);
            close_with(out, '}');
            buf_puts(out, ",");
        }
        free(outputs);
        close_with(out, ']');
    }
    buf_puts(out, "}");
    return 0;
}

/* ---- for people ----------------------------------------------------------------------------- */

/* "3 s", "12 min", "5 h", "8 d". */
static const char *ago(int64_t then, char out[24])
{
    int64_t s = (clock_wall_ms() - then) / 1000;
    if (then == 0)
        snprintf(out, 24, "-");
    else if (s < 120)
        snprintf(out, 24, "%" PRId64 " s", s > 0 ? s : 0);
    else if (s < 7200)
        snprintf(out, 24, "%" PRId64 " min", s / 60);
    else if (s < 172800)
        snprintf(out, 24, "%" PRId64 " h", s / 3600);
    else
        snprintf(out, 24, "%" PRId64 " d", s / 86400);
    return out;
}

/* "pacs sent, archive failed: connection refused": what a reader wants to know of a job's way. */
static int way(struct store *s, const struct store_job *j, struct buf *out, struct err *e)
{
    struct store_delivery *d;
    size_t n = 0;
    if (j->reason[0] != '\0') {
        buf_puts(out, j->reason);
        if (j->state != JOB_DONE)
            return 0;
        buf_puts(out, "; ");
    }
    int rc = store_job_deliveries(s, j->id, &d, &n, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s%s %s", i ? ", " : "", d[i].destination,
                   delivery_state_word(d[i].state));
        if (d[i].state == DELIVERY_PENDING || d[i].state == DELIVERY_SENDING)
            buf_printf(out, " %" PRId64 "/%" PRId64, d[i].items_sent, d[i].items);
        if (d[i].reason[0] != '\0')
            buf_printf(out, ": %s", d[i].reason);
    }
    free(d);
    return 0;
}

static int list_print(struct store *s, struct buf *out, const struct store_series *series,
                      size_t series_n, const struct store_job *jobs, size_t jobs_n, struct err *e)
{
    char age[24], id[24];
    int rc = 0;
    buf_printf(out, "%-7s %-10s %7s %5s  %-9s  %s\n", "SERIES", "STATE", "IMAGES", "REV", "AGE",
               "WHAT IT IS, OR WHY NOT");
    for (size_t i = 0; i < series_n; i++) {
        snprintf(id, sizeof id, "S%" PRId64, series[i].id);
        buf_printf(out, "%-7s %-10s %7" PRId64 " %5" PRId64 "  %-9s  %s\n", id,
                   series_state_word(series[i].state), series[i].instances, series[i].revision,
                   ago(series[i].last_at, age), series[i].reason);
    }
    buf_printf(out, "\n%-7s %-11s %-17s %-7s %7s  %-9s  %s\n", "JOB", "STATE", "TASK", "SERIES",
               "SECONDS", "AGE", "WHERE TO, OR WHY NOT");
    for (size_t i = 0; i < jobs_n && rc == 0; i++) {
        const struct store_job *j = &jobs[i];
        char seconds[24] = "-";
        if (j->run_ms > 0)
            snprintf(seconds, sizeof seconds, "%.1f", (double)j->run_ms / 1000.0);
        snprintf(id, sizeof id, "S%" PRId64, j->inputs[0].series_id);
        buf_printf(out, "%-7" PRId64 " %-11s %-17s %-7s %7s  %-9s  ", j->id,
                   job_state_word(j->state), j->task, id, seconds, ago(j->created_at, age));
        rc = way(s, j, out, e);
        buf_puts(out, "\n");
    }
    return rc;
}

static void pair(struct buf *out, const char *name, const char *value)
{
    if (value[0] != '\0')
        buf_printf(out, "%-14s %s\n", name, value);
}

static void pair_number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "%-14s %" PRId64 "\n", name, value);
}

static void pair_moment(struct buf *out, const char *name, int64_t ms)
{
    char text[40], age[24];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    if (ms == 0)
        return;
    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    buf_printf(out, "%-14s %s (%s ago)\n", name, text, ago(ms, age));
}

static void series_print(struct buf *out, const struct store_series *s)
{
    pair(out, "series", s->series_uid);
    pair(out, "study", s->study_uid);
    pair(out, "state", series_state_word(s->state));
    pair(out, "reason", s->reason);
    pair(out, "from", s->calling_ae);
    pair_number(out, "revision", s->revision);
    pair_number(out, "images", s->instances);
    pair_moment(out, "first image", s->first_at);
    pair_moment(out, "last image", s->last_at);
    pair_moment(out, "changed", s->changed_at);
}

static int job_print(struct store *s, struct buf *out, const struct store_job *j, struct err *e)
{
    struct store_delivery *d;
    size_t n = 0;
    pair_number(out, "job", j->id);
    pair(out, "state", job_state_word(j->state));
    pair(out, "reason", j->reason);
    pair(out, "task", j->task);
    pair(out, "rule", j->rule);
    pair(out, "model", j->model);
    pair(out, "model digest", j->model_digest);
    pair(out, "key", j->key);
    for (uint32_t i = 0; i < j->inputs_count; i++)
        buf_printf(out, "%-14s S%" PRId64 " revision %" PRId64 " %s\n", "input",
                   j->inputs[i].series_id, j->inputs[i].revision, j->inputs[i].series_uid);
    pair_number(out, "outputs", j->outputs);
    pair_number(out, "attempts", j->attempts);
    pair_number(out, "crashes", j->crashes);
    pair_number(out, "interruptions", j->interruptions);
    pair_moment(out, "made", j->created_at);
    pair_moment(out, "started", j->started_at);
    pair_moment(out, "finished", j->finished_at);
    pair(out, "held by", j->owner);
    int rc = store_job_deliveries(s, j->id, &d, &n, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        buf_printf(out,
                   "%-14s %s %s: %" PRId64 " of %" PRId64 " sent, %" PRId64
                   " committed, %d attempts%s%s\n",
                   "delivery", d[i].destination, delivery_state_word(d[i].state), d[i].items_sent,
                   d[i].items, d[i].items_committed, (int)d[i].attempts, d[i].reason[0] ? ": " : "",
                   d[i].reason);
        if (d[i].state == DELIVERY_PENDING && d[i].due_at > clock_wall_ms())
            buf_printf(out, "%-14s next attempt in %" PRId64 " s\n", "",
                       (d[i].due_at - clock_wall_ms() + 999) / 1000);
    }
    free(d);
    return 0;
}

/* ---- the verbs ------------------------------------------------------------------------------ */

static int do_list(struct store *s, struct buf *out, size_t limit, bool json, struct err *e)
{
    struct store_series *series = NULL;
    struct store_job *jobs = NULL;
    size_t series_n = 0, jobs_n = 0;
    int rc = 0;
    if (s != NULL) {
        rc = store_series_recent(s, SERIES_STATES, limit, &series, &series_n, e);
        if (rc == 0)
            rc = store_jobs_list(s, JOB_STATES, limit, &jobs, &jobs_n, e);
    }
    if (rc == 0 && json) {
        buf_puts(out, "{\"series\":[");
        for (size_t i = 0; i < series_n; i++) {
            series_json(out, &series[i]);
            buf_puts(out, ",");
        }
        close_with(out, ']');
        buf_puts(out, ",\"jobs\":[");
        for (size_t i = 0; i < jobs_n && rc == 0; i++) {
            rc = job_json(s, out, &jobs[i], false, e);
            buf_puts(out, ",");
        }
        close_with(out, ']');
        buf_puts(out, "}\n");
    } else if (rc == 0) {
        rc = list_print(s, out, series, series_n, jobs, jobs_n, e);
    }
    free(series);
    free(jobs);
    return rc;
}

static int do_show(struct store *s, struct buf *out, bool is_series, int64_t id, bool json,
                   struct err *e)
{
    struct store_series series;
    struct store_job *job = malloc(sizeof *job);
    int rc = job != NULL ? 0 : err_set(e, ERR_NOMEM, "no memory");
    if (rc == 0)
        rc = is_series ? store_series_get(s, id, &series, e) : store_job_get(s, id, job, e);
    if (rc == 0 && is_series && json)
        series_json(out, &series);
    else if (rc == 0 && is_series)
        series_print(out, &series);
    else if (rc == 0 && json)
        rc = job_json(s, out, job, true, e);
    else if (rc == 0)
        rc = job_print(s, out, job, e);
    if (json)
        buf_puts(out, "\n");
    free(job);
    return rc;
}

static int do_change(struct store *s, struct buf *out, bool retry, bool is_series, int64_t id,
                     bool json, struct err *e)
{
    int64_t now = clock_wall_ms();
    int rc;
    if (is_series && !retry)
        return err_set(e, ERR_REFUSED, "a series cannot be cancelled, only its jobs");
    if (is_series)
        rc = store_series_retry(s, id, now, e);
    else
        rc = retry ? store_job_retry(s, id, now, e) : store_job_cancel(s, id, now, e);
    return rc != 0 || !json ? rc : do_show(s, out, is_series, id, true, e);
}

/* "12" or "J12": a job; "S7": a series. */
static bool id_parse(const char *text, bool *is_series, int64_t *id)
{
    char *end;
    *is_series = text[0] == 'S' || text[0] == 's';
    if (*is_series || text[0] == 'J' || text[0] == 'j')
        text++;
    errno = 0;
    *id = strtoll(text, &end, 10);
    return isdigit((unsigned char)text[0]) && *end == '\0' && errno == 0;
}

int cmd_jobs(int argc, char **argv)
{
    const char *path = NULL, *limit_text = "200";
    bool json = false, is_series = false;
    int64_t limit = 0, id = 0;
    const struct cmd_option options[] = {{"config", 'c', NULL, &path},
                                         {"json", 0, &json, NULL},
                                         {"limit", 0, NULL, &limit_text},
                                         {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (path == NULL)
        return cmd_usage_error(argv[0], "-c FILE is missing");
    if (cmd_number(argv[0], "--limit", limit_text, 1, 1000000, &limit) != CMD_GO)
        return EXIT_USAGE;
    const char *verb = operands > 0 ? argv[1] : "list";
    bool listing = strcmp(verb, "list") == 0, showing = strcmp(verb, "show") == 0;
    bool retrying = strcmp(verb, "retry") == 0, cancelling = strcmp(verb, "cancel") == 0;
    if (!listing && !showing && !retrying && !cancelling)
        return cmd_usage_error(argv[0], "unknown '%s': list, show, retry or cancel", verb);
    if (operands > (listing ? 1 : 2))
        return cmd_usage_error(argv[0], "unexpected argument '%s'", argv[listing ? 2 : 3]);
    if (!listing && operands < 2)
        return cmd_usage_error(argv[0], "%s needs an ID from the list: 12, or S7", verb);
    if (!listing && !id_parse(argv[2], &is_series, &id))
        return cmd_usage_error(argv[0], "'%s' is no ID: a job is 12, a series S7", argv[2]);

    struct err e = {0};
    struct config *c = NULL;
    struct store *s = NULL;
    struct buf out;
    buf_init(&out, JSON_MAX);
    int rc = config_load(path, &c, &e);
    /* Before the first start there is no database: nothing to list, and none is to be made here. */
    if (rc == 0 && (access(c->node.database, F_OK) == 0 || !listing)) {
        if (access(c->node.database, F_OK) != 0)
            rc = err_errno(&e, errno, "database %s (did the node ever run?)", c->node.database);
        else
            rc = store_open(&s, c->node.database, &e);
    }
    if (rc == 0 && listing)
        rc = do_list(s, &out, (size_t)limit, json, &e);
    else if (rc == 0 && showing)
        rc = do_show(s, &out, is_series, id, json, &e);
    else if (rc == 0)
        rc = do_change(s, &out, retrying, is_series, id, json, &e);
    if (rc == 0 && (rc = buf_error(&out)) != 0)
        err_set(&e, rc, "the answer is too long: use --limit");
    if (rc == 0) {
        fputs(buf_text(&out), stdout);
        status = cmd_finish_output(argv[0]);
    } else {
        status = cmd_failed(argv[0], "%s", e.text);
    }
    buf_fini(&out);
    store_close(s);
    config_free(c);
    return status;
}
