/*
 * store_sqlite_jobs.c - store.h on SQLite: jobs, their leases and their outputs
 *
 * The numbers in the statements are the states of store.h: jobs 0 waiting, 1 leased, 2 done,
 * 3 failed, 4 refused, 5 cancelled, 6 quarantined; deliveries 0 pending, 3 committed, 4 failed.
 */
#include "node/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#define JOB_COLUMNS                                                                                \
    "id, key, state, task, rule, model, model_digest, parameters, destinations, created_at,"       \
    " changed_at, started_at, finished_at, next_try, lease_until, run_ms, owner, attempts,"        \
    " crashes, interruptions, cancel_asked, reason,"                                               \
    " (SELECT count(*) FROM outputs WHERE job_id=jobs.id)"

static void job_read(sqlite3_stmt *row, void *to)
{
    struct store_job *out = to;
    memset(out, 0, sizeof *out);
    out->id = sqlite3_column_int64(row, 0);
    sql_text(row, 1, out->key, sizeof out->key);
    out->state = (enum job_state)sqlite3_column_int(row, 2);
    sql_text(row, 3, out->task, sizeof out->task);
    sql_text(row, 4, out->rule, sizeof out->rule);
    sql_text(row, 5, out->model, sizeof out->model);
    sql_text(row, 6, out->model_digest, sizeof out->model_digest);
    sql_text(row, 7, out->parameters, sizeof out->parameters);
    const char *at = (const char *)sqlite3_column_text(row, 8);
    while (at != NULL && *at != '\0' && out->destinations_count < STORE_JOB_DESTINATIONS) {
        size_t n = strcspn(at, "\n");
        snprintf(out->destinations[out->destinations_count++], STORE_NAME, "%.*s", (int)n, at);
        at += n + (at[n] == '\n');
    }
    out->created_at = sqlite3_column_int64(row, 9);
    out->changed_at = sqlite3_column_int64(row, 10);
    out->started_at = sqlite3_column_int64(row, 11);
    out->finished_at = sqlite3_column_int64(row, 12);
    out->next_try = sqlite3_column_int64(row, 13);
    out->lease_until = sqlite3_column_int64(row, 14);
    out->run_ms = sqlite3_column_int64(row, 15);
    sql_text(row, 16, out->owner, sizeof out->owner);
    out->attempts = sqlite3_column_int(row, 17);
    out->crashes = sqlite3_column_int(row, 18);
    out->interruptions = sqlite3_column_int(row, 19);
    out->cancel_asked = sqlite3_column_int(row, 20) != 0;
    sql_text(row, 21, out->reason, sizeof out->reason);
    out->outputs = sqlite3_column_int64(row, 22);
}

static void input_read(sqlite3_stmt *row, void *to)
{
    struct store_job_input *out = to;
    out->series_id = sqlite3_column_int64(row, 0);
    out->revision = sqlite3_column_int64(row, 1);
    sql_text(row, 2, out->series_uid, sizeof out->series_uid);
    sql_text(row, 3, out->study_uid, sizeof out->study_uid);
}

static int job_read_inputs(struct store *s, struct store_job *job, struct err *e)
{
    struct sql_rows rows = {.data = job->inputs,
                            .cap = STORE_JOB_INPUTS,
                            .size = sizeof *job->inputs,
                            .read = input_read,
                            .borrowed = true};
    int rc =
        sql_select(s, &rows, e,
                   "SELECT i.series_id, i.revision, s.series_uid, s.study_uid FROM job_inputs i"
                   " JOIN series s ON s.id=i.series_id WHERE i.job_id=?1 ORDER BY i.position",
                   "i", job->id);
    job->inputs_count = (uint32_t)rows.n;
    return rc;
}

/* 0 and *out, or ERR_NOT_FOUND. */
static int job_find(struct store *s, int64_t id, struct store_job *out, struct err *e)
{
    int rc = sql_get(s, job_read, out, e, "SELECT " JOB_COLUMNS " FROM jobs WHERE id=?1", "i", id);
    if (rc == ERR_NOT_FOUND)
        return err_set(e, rc, "no job %lld", (long long)id);
    return rc != 0 ? rc : job_read_inputs(s, out, e);
}

/* Leases that ran out: their holders are dead or hang. */
static int leases_expire(struct store *s, int64_t now, int32_t crashes_max, struct err *e)
{
    char reason[STORE_REASON];
    snprintf(reason, sizeof reason,
             "set aside: its worker died or hung %d times; see the log for what ended it",
             (int)crashes_max);
    return sql_run(
        s, e, NULL,
        "UPDATE jobs SET crashes=crashes+1, owner='', lease_until=0, changed_at=?1, next_try=0,"
        " state=CASE WHEN cancel_asked THEN 5 WHEN crashes+1>=?2 THEN 6 ELSE 0 END,"
        " finished_at=CASE WHEN cancel_asked OR crashes+1>=?2 THEN ?1 ELSE 0 END,"
        " reason=CASE WHEN cancel_asked THEN 'cancelled' WHEN crashes+1>=?2 THEN ?3 ELSE reason END"
        " WHERE state=1 AND lease_until<=?1",
        "int", now, (int)crashes_max, reason);
}

int store_job_lease(struct store *s, const char *owner, int64_t now, int64_t lease_ms,
                    int32_t crashes_max, struct store_job *out, struct err *e)
{
    int64_t id = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = leases_expire(s, now, crashes_max, e);
    if (rc == 0)
        rc = sql_int(s, &id, e,
                     "SELECT id FROM jobs WHERE state=0 AND next_try<=?1 ORDER BY id LIMIT 1", "i",
                     now);
    bool none = rc == ERR_NOT_FOUND;
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "UPDATE jobs SET state=1, owner=?2, lease_until=?3, started_at=?4,"
                     " changed_at=?4, attempts=attempts+1 WHERE id=?1",
                     "itii", id, owner, now + lease_ms, now);
    if (rc == 0)
        rc = job_find(s, id, out, e);
    /* Not an error of the transaction: what expired above must stay. */
    rc = sql_end(s, none ? 0 : rc, e);
    return rc == 0 && none ? err_set(e, ERR_NOT_FOUND, "no job is due") : rc;
}

int store_job_renew(struct store *s, int64_t id, const char *owner, int64_t now, int64_t lease_ms,
                    struct err *e)
{
    int64_t cancel = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_update(s, e, "job", id,
                        "UPDATE jobs SET lease_until=?3 WHERE id=?1 AND owner=?2 AND state=1",
                        "iti", id, owner, now + lease_ms);
    if (rc == 0)
        rc = sql_int(s, &cancel, e, "SELECT cancel_asked FROM jobs WHERE id=?1", "i", id);
    if (rc == 0 && cancel)
        rc = err_set(e, ERR_CANCELLED, "job %lld was cancelled", (long long)id);
    return sql_end(s, rc, e);
}

static int outputs_insert(struct store *s, int64_t id, const struct store_output *list, size_t n,
                          struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct store_output *o = &list[i];
        rc = sql_run(s, e, NULL,
                     "INSERT INTO outputs(job_id, position, sop_uid, sop_class, series_uid,"
                     " study_uid, transfer_syntax, path, sha256, bytes)"
                     " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
                     "inttttttti", id, (int)i, o->sop_uid, o->sop_class, o->series_uid,
                     o->study_uid, o->transfer_syntax, o->path, o->sha256, o->bytes);
    }
    return rc;
}

int store_job_done(struct store *s, int64_t id, const char *owner, const struct store_output *list,
                   size_t n, int64_t run_ms, int64_t now, struct err *e)
{
    struct store_job *job = malloc(sizeof *job);
    if (job == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a job");
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = job_find(s, id, job, e);
    if (rc != 0)
        goto out;
    if (job->state != JOB_LEASED || strcmp(job->owner, owner) != 0) {
        rc = sql_moved(e, "job", id);
        goto out;
    }
    if (job->cancel_asked) {
        rc = err_set(e, ERR_CANCELLED, "job %lld was cancelled", (long long)id);
        goto out;
    }
    rc = sql_run(s, e, NULL,
                 "UPDATE jobs SET state=2, owner='', lease_until=0, changed_at=?2, finished_at=?2,"
                 " run_ms=?3, reason='' WHERE id=?1",
                 "iii", id, now, run_ms);
    if (rc == 0)
        rc = outputs_insert(s, id, list, n, e);
    if (rc == 0)
        rc = sql_past_agrees(s, job->key, id, e);
    for (uint32_t i = 0; i < job->destinations_count && rc == 0; i++) {
        rc = sql_run(s, e, NULL,
                     "INSERT INTO deliveries(job_id, destination, state, due_at, created_at,"
                     " changed_at) VALUES(?1,?2,0,?3,?3,?3)",
                     "iti", id, job->destinations[i], now);
        if (rc == 0)
            rc = sql_run(s, e, NULL,
                         "INSERT INTO items(delivery_id, output_id) SELECT ?1, id FROM outputs"
                         " WHERE job_id=?2 ORDER BY position",
                         "ii", (int64_t)sqlite3_last_insert_rowid(s->db), id);
    }
out:
    free(job);
    return sql_end(s, rc, e);
}

int store_job_note(struct store *s, int64_t id, const char *note, struct err *e)
{
    return sql_move(s, e, "job", id, "UPDATE jobs SET reason=?2 WHERE id=?1 AND state=2", "it", id,
                    note);
}

int store_job_ended(struct store *s, int64_t id, const char *owner, enum job_state state,
                    const char *reason, int64_t now, struct err *e)
{
    return sql_move(
        s, e, "job", id,
        "UPDATE jobs SET state=?3, reason=CASE WHEN ?3=5 AND reason<>'' THEN reason ELSE ?4"
        " END, changed_at=?5, finished_at=?5, owner='', lease_until=0"
        " WHERE id=?1 AND owner=?2 AND state=1",
        "itnti", id, owner, (int)state, reason, now);
}

int store_job_return(struct store *s, int64_t id, const char *owner, const char *reason,
                     int64_t next_try, int64_t now, struct err *e)
{
    return sql_move(s, e, "job", id,
                    "UPDATE jobs SET state=CASE WHEN cancel_asked THEN 5 ELSE 0 END,"
                    " reason=CASE WHEN cancel_asked THEN 'cancelled' ELSE ?3 END, next_try=?4,"
                    " changed_at=?5, owner='', lease_until=0 WHERE id=?1 AND owner=?2 AND state=1",
                    "ittii", id, owner, reason, next_try, now);
}

int store_job_get(struct store *s, int64_t id, struct store_job *out, struct err *e)
{
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = job_find(s, id, out, e);
    return sql_end(s, rc, e);
}

int store_job_state(struct store *s, const char *key, enum job_state *out, struct err *e)
{
    int64_t state = 0;
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_int(s, &state, e, "SELECT state FROM jobs WHERE key=?1", "t", key);
    if (rc == 0)
        *out = (enum job_state)state;
    else if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "no job with key %s", key);
    return sql_end(s, rc, e);
}

int store_jobs_list(struct store *s, enum job_state state, size_t max, struct store_job **out,
                    size_t *n, struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = job_read};
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_select(s, &rows, e,
                        "SELECT " JOB_COLUMNS
                        " FROM jobs WHERE ?1=7 OR state=?1 ORDER BY id DESC LIMIT ?2",
                        "ni", (int)state, (int64_t)max);
    struct store_job *jobs = rows.data;
    for (size_t i = 0; i < rows.n && rc == 0; i++)
        rc = job_read_inputs(s, &jobs[i], e);
    rc = sql_end(s, rc, e);
    if (rc != 0) {
        free(jobs);
        return rc;
    }
    *out = jobs;
    *n = rows.n;
    return 0;
}

int store_job_outputs(struct store *s, int64_t id, struct store_output **out, size_t *n,
                      struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = sql_read_output};
    int rc = sql_list(s, &rows, e,
                      "SELECT " SQL_OUTPUT_COLUMNS " FROM outputs o WHERE o.job_id=?1"
                      " ORDER BY o.position",
                      "i", id);
    if (rc != 0)
        return rc;
    *out = rows.data;
    *n = rows.n;
    return 0;
}

void sql_read_output(sqlite3_stmt *row, void *to)
{
    struct store_output *out = to;
    out->id = sqlite3_column_int64(row, 0);
    sql_text(row, 1, out->sop_uid, sizeof out->sop_uid);
    sql_text(row, 2, out->sop_class, sizeof out->sop_class);
    sql_text(row, 3, out->series_uid, sizeof out->series_uid);
    sql_text(row, 4, out->study_uid, sizeof out->study_uid);
    sql_text(row, 5, out->transfer_syntax, sizeof out->transfer_syntax);
    sql_text(row, 6, out->path, sizeof out->path);
    sql_text(row, 7, out->sha256, sizeof out->sha256);
    out->bytes = sqlite3_column_int64(row, 8);
}

int store_job_retry(struct store *s, int64_t id, int64_t now, struct err *e)
{
    int64_t jobs = 0, deliveries = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_run(s, e, &jobs,
                     "UPDATE jobs SET state=0, reason='', next_try=0, attempts=0, crashes=0,"
                     " interruptions=0, cancel_asked=0, finished_at=0, changed_at=?2"
                     " WHERE id=?1 AND state IN (3,4,5,6)",
                     "ii", id, now);
    if (rc == 0 && jobs == 0) {
        rc = sql_run(s, e, NULL,
                     "UPDATE items SET resends=0 WHERE delivery_id IN"
                     " (SELECT id FROM deliveries WHERE job_id=?1 AND state=4)",
                     "i", id);
        if (rc == 0)
            rc = sql_run(s, e, &deliveries,
                         "UPDATE deliveries SET state=0, due_at=?2, attempts=0, crashes=0,"
                         " commit_asked=0, reason='', changed_at=?2 WHERE job_id=?1 AND state=4",
                         "ii", id, now);
    }
    if (rc == 0 && jobs == 0 && deliveries == 0)
        rc = err_set(e, ERR_REFUSED,
                     "job %lld is not there, or neither it nor one of its deliveries has failed",
                     (long long)id);
    return sql_end(s, rc, e);
}

int store_job_cancel(struct store *s, int64_t id, int64_t now, struct err *e)
{
    int64_t waiting = 0, leased = 0, deliveries = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_run(s, e, &waiting,
                     "UPDATE jobs SET state=5, reason='cancelled', changed_at=?2, finished_at=?2"
                     " WHERE id=?1 AND state=0",
                     "ii", id, now);
    if (rc == 0)
        rc = sql_run(s, e, &leased,
                     "UPDATE jobs SET cancel_asked=1, reason='cancelled' WHERE id=?1 AND state=1",
                     "i", id);
    if (rc == 0)
        rc = sql_run(s, e, &deliveries,
                     "UPDATE deliveries SET state=4, due_at=NULL, reason='cancelled', changed_at=?2"
                     " WHERE job_id=?1 AND state=0",
                     "ii", id, now);
    if (rc == 0 && waiting + leased + deliveries == 0)
        rc = err_set(e, ERR_REFUSED,
                     "job %lld is not there, or has ended and nothing of it waits to be sent",
                     (long long)id);
    return sql_end(s, rc, e);
}
