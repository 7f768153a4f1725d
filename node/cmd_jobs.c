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
#include "node/base/json.h"

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

/* ---- all of one thing, as JSON or for people ------------------------------------------------ */

struct form {
    struct buf *out;
    bool json;
};

/* One fact: the name of its member in JSON, and its words for people. NULL: not told there. */
static void tell(const struct form *f, const char *member, const char *words, const char *text)
{
    if (f->json && member != NULL)
        json_text(f->out, member, text);
    else if (!f->json && words != NULL && text[0] != '\0')
        buf_printf(f->out, "%-14s %s\n", words, text);
}

static void tell_number(const struct form *f, const char *member, const char *words, int64_t value)
{
    if (f->json)
        json_int(f->out, member, value);
    else if (words != NULL)
        buf_printf(f->out, "%-14s %" PRId64 "\n", words, value);
}

static void tell_moment(const struct form *f, const char *member, const char *words, int64_t ms)
{
    char text[40], age[24];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    if (f->json) {
        json_moment(f->out, member, ms);
    } else if (ms != 0) {
        localtime_r(&seconds, &tm);
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
        buf_printf(f->out, "%-14s %s (%s ago)\n", words, text, ago(ms, age));
    }
}

static void open_in(const struct form *f, const char *member, char bracket)
{
    if (f->json)
        json_open(f->out, member, bracket);
}

static void close_in(const struct form *f, char bracket)
{
    if (f->json)
        json_close(f->out, bracket);
}

static void tell_series(const struct form *f, const struct store_series *s)
{
    char id[32];
    snprintf(id, sizeof id, "S%" PRId64, s->id);
    open_in(f, NULL, '{');
    tell(f, "id", NULL, id);
    tell(f, "series_uid", "series", s->series_uid);
    tell(f, "study_uid", "study", s->study_uid);
    tell(f, "state", "state", series_state_word(s->state));
    tell(f, "reason", "reason", s->reason);
    tell(f, "calling_ae", "from", s->calling_ae);
    tell_number(f, "revision", "revision", s->revision);
    tell_number(f, "instances", "images", s->instances);
    tell_number(f, "bytes", NULL, s->bytes);
    tell_moment(f, "first_at", "first image", s->first_at);
    tell_moment(f, "last_at", "last image", s->last_at);
    tell_moment(f, "changed_at", "changed", s->changed_at);
    close_in(f, '}');
}

static void delivery_json(struct buf *out, const struct store_delivery *d)
{
    json_open(out, NULL, '{');
    json_text(out, "destination", d->destination);
    json_text(out, "state", delivery_state_word(d->state));
    json_text(out, "reason", d->reason);
    json_int(out, "attempts", d->attempts);
    json_int(out, "instances", d->items);
    json_int(out, "sent", d->items_sent);
    json_int(out, "committed", d->items_committed);
    json_int(out, "commitment_asked", d->commit_asked);
    json_moment(out, "due_at", d->due_at);
    json_moment(out, "changed_at", d->changed_at);
    json_close(out, '}');
}

static void delivery_print(struct buf *out, const struct store_delivery *d)
{
    buf_printf(out,
               "%-14s %s %s: %" PRId64 " of %" PRId64 " sent, %" PRId64
               " committed, %d attempts%s%s\n",
               "delivery", d->destination, delivery_state_word(d->state), d->items_sent, d->items,
               d->items_committed, (int)d->attempts, d->reason[0] ? ": " : "", d->reason);
    if (d->state == DELIVERY_PENDING && d->due_at > clock_wall_ms())
        buf_printf(out, "%-14s next attempt in %" PRId64 " s\n", "",
                   (d->due_at - clock_wall_ms() + 999) / 1000);
}

static int tell_deliveries(struct store *s, const struct form *f, int64_t job, struct err *e)
{
    struct store_delivery *d;
    size_t n = 0;
    int rc = store_job_deliveries(s, job, &d, &n, e);
    if (rc != 0)
        return rc;
    open_in(f, "deliveries", '[');
    for (size_t i = 0; i < n; i++)
        (f->json ? delivery_json : delivery_print)(f->out, &d[i]);
    close_in(f, ']');
    free(d);
    return 0;
}

static int outputs_json(struct store *s, struct buf *out, int64_t job, struct err *e)
{
    struct store_output *outputs;
    size_t n = 0;
    int rc = store_job_outputs(s, job, &outputs, &n, e);
    if (rc != 0)
        return rc;
    json_open(out, "instances", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(out, NULL, '{');
        json_text(out, "sop_instance_uid", outputs[i].sop_uid);
        json_text(out, "series_uid", outputs[i].series_uid);
        json_text(out, "file", outputs[i].path);
        json_int(out, "bytes", outputs[i].bytes);
        json_close(out, '}');
    }
    json_close(out, ']');
    free(outputs);
    return 0;
}

static void tell_inputs(const struct form *f, const struct store_job *j)
{
    open_in(f, "inputs", '[');
    for (uint32_t i = 0; i < j->inputs_count; i++) {
        const struct store_job_input *in = &j->inputs[i];
        if (!f->json) {
            buf_printf(f->out, "%-14s S%" PRId64 " revision %" PRId64 " %s\n", "input",
                       in->series_id, in->revision, in->series_uid);
            continue;
        }
        json_open(f->out, NULL, '{');
        json_text(f->out, "series_uid", in->series_uid);
        json_text(f->out, "study_uid", in->study_uid);
        json_int(f->out, "revision", in->revision);
        json_close(f->out, '}');
    }
    close_in(f, ']');
}

/* whole: in JSON, also the instances that came of it. */
static int tell_job(struct store *s, const struct form *f, const struct store_job *j, bool whole,
                    struct err *e)
{
    open_in(f, NULL, '{');
    tell_number(f, "id", "job", j->id);
    tell(f, "state", "state", job_state_word(j->state));
    tell(f, "reason", "reason", j->reason);
    tell(f, "task", "task", j->task);
    tell(f, "rule", "rule", j->rule);
    tell(f, "model", "model", j->model);
    tell(f, "model_digest", "model digest", j->model_digest);
    tell(f, "key", "key", j->key);
    tell(f, "parameters", NULL, j->parameters);
    tell_inputs(f, j);
    tell_number(f, "outputs", "outputs", j->outputs);
    tell_number(f, "attempts", "attempts", j->attempts);
    tell_number(f, "crashes", "crashes", j->crashes);
    tell_number(f, "interruptions", "interruptions", j->interruptions);
    tell_number(f, "run_ms", NULL, j->run_ms);
    tell_moment(f, "created_at", "made", j->created_at);
    tell_moment(f, "started_at", "started", j->started_at);
    tell_moment(f, "finished_at", "finished", j->finished_at);
    tell(f, NULL, "held by", j->owner);
    if (f->json)
        json_bool(f->out, "cancel_asked", j->cancel_asked);
    int rc = tell_deliveries(s, f, j->id, e);
    if (rc == 0 && f->json && whole)
        rc = outputs_json(s, f->out, j->id, e);
    close_in(f, '}');
    return rc;
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
        const struct form f = {out, true};
        json_open(out, NULL, '{');
        json_open(out, "series", '[');
        for (size_t i = 0; i < series_n; i++)
            tell_series(&f, &series[i]);
        json_close(out, ']');
        json_open(out, "jobs", '[');
        for (size_t i = 0; i < jobs_n && rc == 0; i++)
            rc = tell_job(s, &f, &jobs[i], false, e);
        json_close(out, ']');
        json_close(out, '}');
        buf_puts(out, "\n");
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
    const struct form f = {out, json};
    if (rc == 0 && is_series)
        tell_series(&f, &series);
    else if (rc == 0)
        rc = tell_job(s, &f, job, true, e);
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
