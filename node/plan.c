/*
 * plan.c - the stage that decides when a series is complete, what it is, and what is to be done
 *
 * Complete: every association that brought instances of it has ended and completeness.quiet_ms
 * passed since; earlier, when the PACS named by completeness.ask_pacs counts twice in a row as many
 * instances as came; later, up to completeness.max_wait_ms after the last instance, when that PACS
 * counts more, or an association stays open. An instance that comes after that makes a new
 * revision, which is planned anew.
 *
 * Then the series is read, recognised (the loop guard comes first there) and matched with the
 * rules: one job for each rule that matches, with a key that makes the same work one job. What
 * is not processed is refused with its reason, for `spinenode jobs`.
 *
 * Between two rounds it removes what is over (retain.h).
 *
 * Failure modes: a series whose reading kills this process is refused at the third time; what can
 * pass (no memory, disk) is tried again later; a PACS that does not answer costs only the earlier
 * start, and is not asked again for a while.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "dicom/scu.h"
#include "dicom/series.h"

#include "node/catalogue.h"
#include "node/config.h"
#include "node/load.h"
#include "node/parameters.h"
#include "node/retain.h"
#include "node/rules.h"
#include "node/stage.h"
#include "node/transport.h"
#include "node/synthesise.h"

/* Series looked at in one round; the rest comes in the next. */
#define ROUND_MAX 64

/* Nobody reads headers for longer; then the planner hangs, and is taken for dead. */
#define LEASE_MS (10 * 60 * 1000)

/* A PACS that did not answer is left in peace for so long. */
#define ASK_PAUSE_MS 60000

/* Longest wait for a PACS's count: planning stands still meanwhile. */
#define ASK_TIMEOUT_MS 5000

/* What can pass is tried so often, so far apart. */
#define RETRIES_MAX 8
#define RETRY_MS    5000

/* What the PACS said of a series last. */
struct asked {
    int64_t series_id, instances, at;
    uint32_t count, agreed;
    bool used;
};

struct plan {
    struct stage *st;
    struct store *s;
    struct catalogue *models;
    struct asked asked[ROUND_MAX];
    int64_t ask_again_at;
    struct store_series round[ROUND_MAX];
};

/* ---- complete? ------------------------------------------------------------------------------ */

static struct asked *asked_find(struct plan *p, int64_t series_id)
{
    struct asked *slot = &p->asked[0];
    for (size_t i = 0; i < ROUND_MAX; i++) {
        if (p->asked[i].used && p->asked[i].series_id == series_id)
            return &p->asked[i];
        if (!p->asked[i].used || (slot->used && p->asked[i].at < slot->at))
            slot = &p->asked[i];
    }
    memset(slot, 0, sizeof *slot);
    slot->used = true;
    slot->series_id = series_id;
    return slot;
}

/* Asks the PACS for its count of the series, if it is time to. */
static void ask(struct plan *p, const struct store_series *series, struct asked *a, int64_t now)
{
    const struct config *c = p->st->config;
    const struct config_destination *pacs = config_destination_find(c, c->completeness.ask_pacs);
    if (pacs == NULL || now < p->ask_again_at ||
        (a->at != 0 && now < a->at + c->completeness.ask_ms))
        return;
    struct scu_target target;
    transport_target(p->st->transport, pacs,
                     pacs->timeout_ms < ASK_TIMEOUT_MS ? pacs->timeout_ms : ASK_TIMEOUT_MS,
                     &target);
    struct scu *scu = NULL;
    struct err e;
    char reason[ERR_TEXT_MAX];
    uint32_t count = 0;
    int rc = scu_open(&target, &scu_offer_find, 1, &scu, &e);
    if (rc == 0)
        rc = scu_count_series(scu, series->study_uid, series->series_uid, &count, &e);
    scu_close(scu);
    a->at = clock_wall_ms();
    if (rc != 0) {
        p->ask_again_at = a->at + ASK_PAUSE_MS;
        log_warning("pacs_not_asked", "destination=%s reason=%s", pacs->name,
                    log_quote(reason, sizeof reason, e.text));
        return;
    }
    a->agreed = a->count == count && a->instances == series->instances ? a->agreed + 1 : 1;
    a->count = count;
    a->instances = series->instances;
}

/* NULL: not yet, look again at *when; else why it is complete. */
static const char *complete_why(struct plan *p, const struct store_series *s, int64_t now,
                                int64_t *when)
{
    const struct config_completeness *c = &p->st->config->completeness;
    int64_t give_up_at = s->last_at + c->max_wait_ms;
    *when = give_up_at;
    if (now >= give_up_at)
        return "max_wait";
    if (s->ended_at == 0 || s->ended_at < s->last_at)
        return NULL; /* an association still brings some */
    /* While nobody can send, silence says nothing: the sender of the rest finds a closed door. */
    int64_t since = atomic_load(&p->st->shared->receiving_since);
    int64_t quiet_from = since == 0 ? now : since > s->ended_at ? since : s->ended_at;
    int64_t quiet_at = quiet_from + c->quiet_ms;
    if (c->ask_pacs[0] == '\0') {
        *when = quiet_at < give_up_at ? quiet_at : give_up_at;
        return now >= quiet_at ? "quiet" : NULL;
    }
    struct asked *a = asked_find(p, s->id);
    ask(p, s, a, now);
    bool known = a->count > 0 && a->instances == s->instances;
    if (known && a->count == (uint64_t)s->instances && a->agreed >= 2)
        return "counted";
    if (now >= quiet_at && !(known && a->count > (uint64_t)s->instances))
        return "quiet";
    *when = now + c->ask_ms;
    if (!known && quiet_at > now && quiet_at < *when)
        *when = quiet_at;
    return NULL;
}

/* Returns when to look again. */
static int64_t complete_round(struct plan *p)
{
    size_t n = 0;
    struct err e;
    int64_t next = INT64_MAX;
    if (store_series_list(p->s, SERIES_RECEIVING, p->round, ROUND_MAX, &n, &e) != 0) {
        log_failure("store_failed", e.text);
        return clock_wall_ms() + STAGE_POLL_MS;
    }
    for (size_t i = 0; i < n && !stage_stopping(p->st); i++) {
        const struct store_series *s = &p->round[i];
        int64_t now = clock_wall_ms(), when = INT64_MAX;
        const char *why = complete_why(p, s, now, &when);
        if (why == NULL) {
            next = when < next ? when : next;
            continue;
        }
        if (store_series_complete(p->s, s->id, s->revision, s->instances, now, &e) == 0)
            log_info("series_complete",
                     "series=%s revision=%" PRId64 " instances=%" PRId64 " why=%s", s->series_uid,
                     s->revision, s->instances, why);
    }
    return next;
}

/* ---- what is to be done --------------------------------------------------------------------- */

static int job_make(struct plan *p, const struct store_series *s, const struct series *series,
                    const struct rule_decisions *all, const struct rule_decision *d,
                    struct store_new_job *job, struct err *e)
{
    const struct config_rule *rule = d->rule;
    memset(job, 0, sizeof *job);
    if (rule->destinations_count > STORE_JOB_DESTINATIONS)
        return err_set(e, ERR_LIMIT, "rule %s has more than %d destinations", rule->name,
                       STORE_JOB_DESTINATIONS);
    int rc = parameters_encode(p->st->config, rule, all->recognition.contrast, job->parameters, e);
    const char *task = model_task_name(d->model->facts.task);
    if (rc == 0)
        rc = synthesise_key(series, task, d->model->digest, job->parameters, job->key, e);
    if (rc != 0)
        return rc;
    snprintf(job->task, sizeof job->task, "%s", task);
    snprintf(job->rule, sizeof job->rule, "%s", rule->name);
    if (snprintf(job->model, sizeof job->model, "%s", d->model->file) >= (int)sizeof job->model)
        return err_set(e, ERR_LIMIT, "name of the model file is too long");
    snprintf(job->model_digest, sizeof job->model_digest, "%s", d->model->digest);
    for (uint32_t i = 0; i < rule->destinations_count; i++) {
        if (strlen(rule->destinations[i]) >= STORE_NAME)
            return err_set(e, ERR_LIMIT, "rule %s: a destination's name is too long", rule->name);
        snprintf(job->destinations[i], STORE_NAME, "%s", rule->destinations[i]);
    }
    job->destinations_count = rule->destinations_count;
    job->inputs[0] = s->id;
    job->revisions[0] = s->revision;
    job->inputs_count = 1;
    return 0;
}

/* What it is, and what was not done with it. */
static void note_write(struct buf *note, const struct rule_decisions *d)
{
    const struct recognition *r = &d->recognition;
    buf_printf(note, "%s %s %s", r->contrast, r->plane, r->body_part);
    for (unsigned i = 0; i < d->count; i++) {
        const struct rule_decision *one = &d->decision[i];
        if (one->outcome == RULE_REFUSED || one->outcome == RULE_NO_MODEL)
            buf_printf(note, "; rule %s: %s", one->rule->name, one->reason.text);
    }
}

/* Why nothing is done with it: the most telling reason. */
static void refusal_write(struct buf *reason, const struct series *series,
                          const struct rule_decisions *d)
{
    const struct recognition *r = &d->recognition;
    if (r->refusal.code != 0) {
        buf_puts(reason, r->refusal.text);
        return;
    }
    if (series->problem.code != 0) {
        buf_puts(reason, series->problem.text);
        return;
    }
    bool any = false;
    for (unsigned i = 0; i < d->count; i++) {
        const struct rule_decision *one = &d->decision[i];
        if (one->outcome != RULE_REFUSED && one->outcome != RULE_NO_MODEL)
            continue;
        buf_printf(reason, "%srule %s: %s", any ? "; " : "", one->rule->name, one->reason.text);
        any = true;
    }
    if (any)
        return;
    buf_printf(reason, "no rule matches (%s %s %s)", r->contrast, r->plane, r->body_part);
    for (unsigned i = 0; i < d->count; i++)
        buf_printf(reason, "; %s: %s", d->decision[i].rule->name, d->decision[i].reason.text);
}

static int series_decide(struct plan *p, const struct store_series *s, struct buf *text,
                         size_t *made, struct err *e)
{
    struct series *series = NULL;
    struct rule_decisions *d = NULL;
    struct store_new_job *jobs = NULL;
    size_t n = 0;
    const struct config_limits *l = &p->st->config->limits;
    if (s->instances > l->slices)
        return err_set(e, ERR_LIMIT,
                       "series has %" PRId64 " instances, at most %d are processed (limits.slices)",
                       s->instances, (int)l->slices);
    int rc = catalogue_refresh(p->models, e);
    if (rc != 0)
        /* Without models nothing can be decided; the folder may come back. */
        return err_set(e, ERR_IO, "models folder: %s", e->text);
    if ((rc = load_spooled(&p->st->spool, p->s, l, s->id, s->revision, &series, e)) != 0)
        return rc;
    if ((rc = rules_decide(p->st->config, p->models, series, &d, e)) != 0)
        goto out;
    if (d->matched == 0) {
        refusal_write(text, series, d);
        rc = err_set(e, ERR_REFUSED, "%s", buf_text(text));
        goto out;
    }
    jobs = calloc(d->matched, sizeof *jobs);
    if (jobs == NULL) {
        rc = err_set(e, ERR_NOMEM, "no memory for %u jobs", d->matched);
        goto out;
    }
    for (unsigned i = 0; i < d->count && rc == 0; i++)
        if (d->decision[i].outcome == RULE_MATCHED && n < d->matched)
            rc = job_make(p, s, series, d, &d->decision[i], &jobs[n++], e);
    if (rc == 0) {
        note_write(text, d);
        rc = store_series_planned(p->s, s->id, s->revision, jobs, n, buf_text(text),
                                  clock_wall_ms(), made, e);
    }
out:
    free(jobs);
    rules_free(d);
    series_free(series);
    return rc;
}

/* Plans one series. False: there was none. */
static bool plan_next(struct plan *p)
{
    struct store_series s;
    struct err e = {0};
    struct buf text;
    char reason[ERR_TEXT_MAX];
    size_t made = 0;
    int64_t now = clock_wall_ms();
    struct metrics *m = &p->st->shared->metrics;
    int rc = store_series_take(p->s, p->st->owner, now, LEASE_MS, &s, &e);
    if (rc == ERR_NOT_FOUND)
        return false;
    if (rc != 0) {
        log_failure("store_failed", e.text);
        return false;
    }
    buf_init(&text, STORE_REASON - 1);
    rc = series_decide(p, &s, &text, &made, &e);
    now = clock_wall_ms();
    if (rc == 0) {
        atomic_fetch_add(&m->series_planned, 1);
        atomic_fetch_add(&m->jobs_made, made);
        if (s.revision > 1)
            atomic_fetch_add(&m->series_late, 1);
        log_info("series_planned",
                 "series=%s revision=%" PRId64 " instances=%" PRId64 " jobs=%zu is=%s",
                 s.series_uid, s.revision, s.instances, made,
                 log_quote(reason, sizeof reason, buf_text(&text)));
        if (made > 0)
            stage_wake(p->st, STAGE_WORK);
    } else if (rc == ERR_NOT_FOUND && e.text[0] != '\0' &&
               store_series_get(p->s, s.id, &s, NULL) == 0 && s.state == SERIES_RECEIVING) {
        log_info("plan_dropped", "series=%s reason=\"an instance came meanwhile\"", s.series_uid);
    } else if (err_is_transient(rc) && s.attempts < RETRIES_MAX) {
        log_warning("plan_put_off", "series=%s attempt=%d reason=%s", s.series_uid, (int)s.attempts,
                    log_quote(reason, sizeof reason, e.text));
        store_series_return(p->s, s.id, s.revision, e.text, now + RETRY_MS * s.attempts, now, NULL);
    } else {
        atomic_fetch_add(&m->series_refused, 1);
        log_warning("series_refused",
                    "series=%s revision=%" PRId64 " instances=%" PRId64 " reason=%s", s.series_uid,
                    s.revision, s.instances, log_quote(reason, sizeof reason, e.text));
        store_series_refused(p->s, s.id, s.revision, e.text, now, NULL);
    }
    buf_fini(&text);
    return true;
}

int plan_run(struct stage *st)
{
    struct plan *p = calloc(1, sizeof *p);
    struct err e = {0};
    int rc = p != NULL ? 0 : err_set(&e, ERR_NOMEM, "no memory");
    if (rc == 0) {
        p->st = st;
        p->models = catalogue_new(st->config->models.folder);
        rc = p->models != NULL ? 0 : err_set(&e, ERR_NOMEM, "no memory");
    }
    if (rc == 0)
        rc = dicom_init(&e);
    if (rc == 0)
        rc = store_open(&p->s, st->config->node.database, &e);
    if (rc == 0) {
        struct retain retain = {.st = st, .s = p->s};
        stage_ready(st);
        for (bool stop = false; !stop;) {
            int64_t next = complete_round(p);
            while (!stage_stopping(st) && plan_next(p))
                ;
            int64_t again = retain_round(&retain);
            next = again < next ? again : next;
            stop = stage_wait(st, next - clock_wall_ms());
        }
    } else {
        log_failure("plan_failed", e.text);
    }
    if (p != NULL) {
        store_close(p->s);
        catalogue_free(p->models);
    }
    free(p);
    return rc != 0;
}
