/*
 * store_sqlite_series.c - store.h on SQLite: instances and series
 *
 * The numbers in the statements are the states of store.h: series 0 receiving, 1 complete,
 * 2 planning, 3 planned, 4 refused; jobs 0 waiting, 1 leased, 5 cancelled.
 */
#include "node/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#define INSTANCE_COLUMNS                                                                           \
    "i.sop_uid, i.sop_class, i.study_uid, s.series_uid, i.transfer_syntax, i.calling_ae, i.path,"  \
    " i.sha256, i.bytes, i.received_at FROM instances i JOIN series s ON s.id=i.series_id"

static void instance_read(sqlite3_stmt *row, void *to)
{
    struct store_instance *out = to;
    memset(out, 0, sizeof *out);
    sql_text(row, 0, out->sop_uid, sizeof out->sop_uid);
    sql_text(row, 1, out->sop_class, sizeof out->sop_class);
    sql_text(row, 2, out->study_uid, sizeof out->study_uid);
    sql_text(row, 3, out->series_uid, sizeof out->series_uid);
    sql_text(row, 4, out->transfer_syntax, sizeof out->transfer_syntax);
    sql_text(row, 5, out->calling_ae, sizeof out->calling_ae);
    sql_text(row, 6, out->path, sizeof out->path);
    sql_text(row, 7, out->sha256, sizeof out->sha256);
    out->bytes = sqlite3_column_int64(row, 8);
    out->received_at = sqlite3_column_int64(row, 9);
}

/* What is there under that SOP Instance UID decides: nothing (→ 0), the same or another (→ 1). */
static int instance_known(struct store *s, struct store_instance *in, struct err *e)
{
    sqlite3_stmt *row;
    int rc = sql_row(
        s, &row, e,
        "SELECT i.sha256, i.transfer_syntax, i.sop_class, i.study_uid, s.series_uid,"
        " i.path, i.bytes FROM instances i JOIN series s ON s.id=i.series_id WHERE i.sop_uid=?1",
        "t", in->sop_uid);
    if (rc <= 0)
        return rc;
    char sha256[STORE_HEX], syntax[STORE_UID], class[STORE_UID], study[STORE_UID],
        series[STORE_UID];
    sql_text(row, 0, sha256, sizeof sha256);
    sql_text(row, 1, syntax, sizeof syntax);
    sql_text(row, 2, class, sizeof class);
    sql_text(row, 3, study, sizeof study);
    sql_text(row, 4, series, sizeof series);
    sql_text(row, 5, in->kept, sizeof in->kept);
    in->kept_bytes = sqlite3_column_int64(row, 6);
    /* In another transfer syntax the bytes differ by right: then the identifiers must agree. */
    bool same = strcmp(syntax, in->transfer_syntax) == 0
                    ? strcmp(sha256, in->sha256) == 0
                    : strcmp(class, in->sop_class) == 0 && strcmp(study, in->study_uid) == 0 &&
                          strcmp(series, in->series_uid) == 0;
    in->outcome = same ? STORE_SAME : STORE_CONFLICT;
    /* So that a series that is being sent again is not removed in the middle of it. */
    if (same)
        rc = sql_run(s, e, NULL,
                     "UPDATE series SET seen_at=?2 WHERE series_uid=?1 AND seen_at<?2-1000", "ti",
                     series, in->received_at);
    return rc < 0 ? rc : 1;
}

static int instance_add(struct store *s, struct store_instance *in, struct err *e)
{
    int rc = instance_known(s, in, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    /* Late for a series that was complete: its next revision, and everything anew. */
    rc =
        sql_run(s, e, NULL,
                "INSERT INTO series(id, series_uid, study_uid, calling_ae, state, revision,"
                " instances, bytes, first_at, last_at, changed_at) VALUES((SELECT 1+max(series,"
                " coalesce((SELECT max(id) FROM series),0)) FROM used_ids),"
                " ?1,?2,?3,0,1,1,?4,?5,?5,?5)"
                " ON CONFLICT(series_uid) DO UPDATE SET"
                " revision=CASE WHEN state=0 THEN revision ELSE revision+1 END,"
                " attempts=CASE WHEN state=0 THEN attempts ELSE 0 END,"
                " crashes=CASE WHEN state=0 THEN crashes ELSE 0 END,"
                " interruptions=CASE WHEN state=0 THEN interruptions ELSE 0 END,"
                " reason=CASE WHEN state=0 THEN reason ELSE '' END,"
                " state=0, owner='', lease_until=0, next_try=0, instances=instances+1,"
                " bytes=bytes+?4, last_at=max(last_at,?5), changed_at=?5",
                "tttii", in->series_uid, in->study_uid, in->calling_ae, in->bytes, in->received_at);
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "INSERT INTO instances(sop_uid, sop_class, study_uid, series_id, revision,"
                     " transfer_syntax, calling_ae, path, sha256, bytes, received_at)"
                     " SELECT ?1,?2,?3,id,revision,?4,?5,?6,?7,?8,?9 FROM series"
                     " WHERE series_uid=?10",
                     "tttttttiit", in->sop_uid, in->sop_class, in->study_uid, in->transfer_syntax,
                     in->calling_ae, in->path, in->sha256, in->bytes, in->received_at,
                     in->series_uid);
    if (rc == 0)
        in->outcome = STORE_ADDED;
    return rc;
}

int store_instances_add(struct store *s, struct store_instance *const *list, size_t n,
                        struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct store_instance *in = list[i];
        int rc = sql_fits(in->sop_uid, STORE_UID, "SOP Instance UID", e);
        if (rc == 0)
            rc = sql_fits(in->series_uid, STORE_UID, "Series Instance UID", e);
        if (rc == 0)
            rc = sql_fits(in->study_uid, STORE_UID, "Study Instance UID", e);
        if (rc == 0 && (!in->sop_uid[0] || !in->series_uid[0] || !in->study_uid[0]))
            rc = err_set(e, ERR_INVALID, "an instance needs SOP, series and study instance UIDs");
        if (rc != 0)
            return rc;
    }
    int rc = sql_begin(s, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = instance_add(s, list[i], e);
    return sql_end(s, rc, e);
}

int store_series_instances(struct store *s, int64_t series_id, int64_t revision,
                           struct store_instance **out, size_t *n, struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = instance_read};
    int rc = sql_list(s, &rows, e,
                      "SELECT " INSTANCE_COLUMNS
                      " WHERE i.series_id=?1 AND i.revision<=?2 ORDER BY i.id",
                      "ii", series_id, revision);
    if (rc != 0)
        return rc;
    *out = rows.data;
    *n = rows.n;
    return 0;
}

int store_instances_visit(struct store *s,
                          int (*visit)(void *context, const struct store_instance *instance),
                          void *context, struct err *e)
{
    sqlite3_stmt *row;
    struct store_instance instance;
    int stopped = 0;
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_bind(s, &row, e, "SELECT " INSTANCE_COLUMNS " ORDER BY i.id", "");
    while (rc == 0 && stopped == 0 && (rc = sql_step(s, row, e)) > 0) {
        instance_read(row, &instance);
        stopped = visit(context, &instance);
        rc = 0;
    }
    rc = sql_end(s, rc, e);
    return rc != 0 ? rc : stopped;
}

int store_instances_forget(struct store *s, const char (*sop_uids)[STORE_UID], size_t n,
                           struct err *e)
{
    int rc = sql_begin(s, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = sql_run(s, e, NULL,
                     "UPDATE series SET instances=instances-1, bytes=bytes-"
                     "(SELECT bytes FROM instances WHERE sop_uid=?1)"
                     " WHERE id=(SELECT series_id FROM instances WHERE sop_uid=?1)",
                     "t", sop_uids[i]);
        if (rc == 0)
            rc = sql_run(s, e, NULL, "DELETE FROM instances WHERE sop_uid=?1", "t", sop_uids[i]);
    }
    /* A series of which nothing is left was never there, unless a job came from it. */
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "DELETE FROM series WHERE instances=0 AND NOT EXISTS"
                     " (SELECT 1 FROM instances WHERE series_id=series.id) AND NOT EXISTS"
                     " (SELECT 1 FROM job_inputs WHERE series_id=series.id)",
                     "");
    return sql_end(s, rc, e);
}

int store_association_ended(struct store *s, const char (*series_uids)[STORE_UID], size_t n,
                            int64_t now, struct err *e)
{
    int rc = sql_begin(s, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = sql_run(s, e, NULL,
                     "UPDATE series SET ended_at=max(ended_at,?2) WHERE series_uid=?1 AND state=0",
                     "ti", series_uids[i], now);
    return sql_end(s, rc, e);
}

int store_associations_lost(struct store *s, int64_t now, struct err *e)
{
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_run(s, e, NULL, "UPDATE series SET ended_at=?1 WHERE state=0 AND ended_at<last_at",
                     "i", now);
    return sql_end(s, rc, e);
}

#define SERIES_COLUMNS                                                                             \
    "id, study_uid, series_uid, calling_ae, state, revision, instances, bytes, first_at, last_at," \
    " ended_at, changed_at, attempts, crashes, interruptions, reason"

static void series_read(sqlite3_stmt *row, void *to)
{
    struct store_series *out = to;
    memset(out, 0, sizeof *out);
    out->id = sqlite3_column_int64(row, 0);
    sql_text(row, 1, out->study_uid, sizeof out->study_uid);
    sql_text(row, 2, out->series_uid, sizeof out->series_uid);
    sql_text(row, 3, out->calling_ae, sizeof out->calling_ae);
    out->state = (enum series_state)sqlite3_column_int(row, 4);
    out->revision = sqlite3_column_int64(row, 5);
    out->instances = sqlite3_column_int64(row, 6);
    out->bytes = sqlite3_column_int64(row, 7);
    out->first_at = sqlite3_column_int64(row, 8);
    out->last_at = sqlite3_column_int64(row, 9);
    out->ended_at = sqlite3_column_int64(row, 10);
    out->changed_at = sqlite3_column_int64(row, 11);
    out->attempts = sqlite3_column_int(row, 12);
    out->crashes = sqlite3_column_int(row, 13);
    out->interruptions = sqlite3_column_int(row, 14);
    sql_text(row, 15, out->reason, sizeof out->reason);
}

int store_series_list(struct store *s, enum series_state state, struct store_series *out,
                      size_t max, size_t *n, struct err *e)
{
    struct sql_rows rows = {
        .data = out, .cap = max, .size = sizeof *out, .read = series_read, .borrowed = true};
    int rc = sql_list(s, &rows, e,
                      "SELECT " SERIES_COLUMNS " FROM series WHERE state=?1"
                      " ORDER BY changed_at, id LIMIT ?2",
                      "ni", (int)state, (int64_t)max);
    if (rc == 0)
        *n = rows.n;
    return rc;
}

int store_series_recent(struct store *s, enum series_state state, size_t max,
                        struct store_series **out, size_t *n, struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = series_read};
    int rc = sql_list(s, &rows, e,
                      "SELECT " SERIES_COLUMNS " FROM series WHERE ?1=5 OR state=?1"
                      " ORDER BY id DESC LIMIT ?2",
                      "ni", (int)state, (int64_t)max);
    if (rc != 0)
        return rc;
    *out = rows.data;
    *n = rows.n;
    return 0;
}

int store_series_get(struct store *s, int64_t id, struct store_series *out, struct err *e)
{
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_get(s, series_read, out, e, "SELECT " SERIES_COLUMNS " FROM series WHERE id=?1",
                     "i", id);
    if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "no series %lld", (long long)id);
    return sql_end(s, rc, e);
}

int store_series_complete(struct store *s, int64_t id, int64_t revision, int64_t instances,
                          int64_t now, struct err *e)
{
    return sql_move(s, e, "series", id,
                    "UPDATE series SET state=1, changed_at=?4, next_try=0"
                    " WHERE id=?1 AND revision=?2 AND instances=?3 AND state=0",
                    "iiii", id, revision, instances, now);
}

int store_series_take(struct store *s, const char *owner, int64_t now, int64_t lease_ms,
                      struct store_series *out, struct err *e)
{
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_get(s, series_read, out, e,
                     "SELECT " SERIES_COLUMNS " FROM series WHERE (state=1 AND next_try<=?1)"
                     " OR (state=2 AND lease_until<=?1) ORDER BY changed_at, id LIMIT 1",
                     "i", now);
    if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "no series waits to be planned");
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "UPDATE series SET state=2, owner=?2, lease_until=?3, attempts=attempts+1,"
                     " changed_at=?4 WHERE id=?1",
                     "itii", out->id, owner, now + lease_ms, now);
    if (rc == 0) {
        out->state = SERIES_PLANNING;
        out->attempts++;
    }
    return sql_end(s, rc, e);
}

static int new_job_check(const struct store_new_job *job, struct err *e)
{
    if (job->inputs_count == 0 || job->inputs_count > STORE_JOB_INPUTS ||
        job->destinations_count > STORE_JOB_DESTINATIONS)
        return err_set(e, ERR_LIMIT, "a job has 1 to %d input series and up to %d destinations",
                       STORE_JOB_INPUTS, STORE_JOB_DESTINATIONS);
    for (uint32_t i = 0; i < job->destinations_count; i++)
        if (strchr(job->destinations[i], '\n') != NULL || job->destinations[i][0] == '\0')
            return err_set(e, ERR_INVALID, "a destination's name is empty or has a line end");
    return 0;
}

static int job_insert(struct store *s, const struct store_new_job *job, int64_t now, size_t *made,
                      struct err *e)
{
    char destinations[STORE_JOB_DESTINATIONS * STORE_NAME] = "";
    int64_t changed = 0;
    for (uint32_t i = 0, at = 0; i < job->destinations_count; i++)
        at += (uint32_t)snprintf(destinations + at, sizeof destinations - at, "%s%s", i ? "\n" : "",
                                 job->destinations[i]);
    int rc = sql_run(s, e, &changed,
                     "INSERT INTO jobs(id, key, state, task, rule, model, model_digest,"
                     " parameters, destinations, created_at, changed_at) VALUES("
                     "(SELECT 1+max(jobs, coalesce((SELECT max(id) FROM jobs),0)) FROM used_ids),"
                     " ?1,0,?2,?3,?4,?5,?6,?7,"
                     " coalesce((SELECT created_at FROM past_jobs WHERE key=?1),?8),?8)"
                     " ON CONFLICT(key) DO NOTHING",
                     "ttttttti", job->key, job->task, job->rule, job->model, job->model_digest,
                     job->parameters, destinations, now);
    if (rc != 0 || changed == 0)
        return rc;
    ++*made;
    int64_t id = sqlite3_last_insert_rowid(s->db);
    for (uint32_t i = 0; i < job->inputs_count && rc == 0; i++)
        rc = sql_run(s, e, NULL,
                     "INSERT INTO job_inputs(job_id, position, series_id, revision)"
                     " VALUES(?1,?2,?3,?4)",
                     "inii", id, (int)i, job->inputs[i], job->revisions[i]);
    return rc;
}

/* What waits or runs on an older revision of the series would give a result that is out of date
 * before it is there. Never one of the jobs that this very plan asked for. */
static int jobs_supersede(struct store *s, int64_t id, int64_t revision, int64_t now, struct err *e)
{
    int rc = sql_run(s, e, NULL,
                     "UPDATE jobs SET state=5, changed_at=?3, finished_at=?3,"
                     " reason='superseded: more instances of its series came'"
                     " WHERE state=0 AND id IN (SELECT job_id FROM job_inputs WHERE series_id=?1"
                     " AND revision<?2)",
                     "iii", id, revision, now);
    if (rc == 0)
        rc = sql_run(
            s, e, NULL,
            "UPDATE jobs SET cancel_asked=1,"
            " reason='superseded: more instances of its series came' WHERE state=1 AND id IN"
            " (SELECT job_id FROM job_inputs WHERE series_id=?1 AND revision<?2)",
            "ii", id, revision);
    return rc;
}

int store_series_planned(struct store *s, int64_t id, int64_t revision,
                         const struct store_new_job *jobs, size_t n, const char *note, int64_t now,
                         size_t *made, struct err *e)
{
    *made = 0;
    for (size_t i = 0; i < n; i++) {
        int rc = new_job_check(&jobs[i], e);
        if (rc != 0)
            return rc;
    }
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_update(
            s, e, "series", id,
            "UPDATE series SET state=3, reason=?3, changed_at=?4, owner='', lease_until=0"
            " WHERE id=?1 AND revision=?2 AND state=2",
            "iiti", id, revision, note, now);
    if (rc == 0)
        rc = jobs_supersede(s, id, revision, now, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = job_insert(s, &jobs[i], now, made, e);
    rc = sql_end(s, rc, e);
    if (rc != 0)
        *made = 0;
    return rc;
}

int store_series_refused(struct store *s, int64_t id, int64_t revision, const char *reason,
                         int64_t now, struct err *e)
{
    return sql_move(s, e, "series", id,
                    "UPDATE series SET state=4, reason=?3, changed_at=?4, owner='', lease_until=0"
                    " WHERE id=?1 AND revision=?2 AND state=2",
                    "iiti", id, revision, reason, now);
}

int store_series_return(struct store *s, int64_t id, int64_t revision, const char *reason,
                        int64_t next_try, int64_t now, struct err *e)
{
    return sql_move(s, e, "series", id,
                    "UPDATE series SET state=1, reason=?3, next_try=?4, changed_at=?5, owner='',"
                    " lease_until=0 WHERE id=?1 AND revision=?2 AND state=2",
                    "iitii", id, revision, reason, next_try, now);
}

int store_series_retry(struct store *s, int64_t id, int64_t now, struct err *e)
{
    int64_t changed = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_run(s, e, &changed,
                     "UPDATE series SET state=1, reason='', next_try=0, changed_at=?2, attempts=0,"
                     " crashes=0, interruptions=0 WHERE id=?1 AND state IN (3,4)",
                     "ii", id, now);
    if (rc == 0 && changed == 0)
        rc = err_set(e, ERR_REFUSED,
                     "series %lld is not there, or is still being received or planned",
                     (long long)id);
    return sql_end(s, rc, e);
}
