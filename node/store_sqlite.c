/*
 * store_sqlite.c - store.h on SQLite: connection, schema, recovery, figures
 *
 * Write-ahead log with synchronous=FULL: a commit that returned survives power loss. Writers queue
 * behind each other for at most BUSY_MS. States are stored as the numbers of the enums in store.h:
 * a change of their order is a change of the schema.
 *
 * Refuses a database of another schema version, and a file that is no database.
 */
#include "node/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#define BUSY_MS 10000

#define X(name, word) word,
static const char *const series_words[] = {STORE_SERIES_STATES(X)};
static const char *const job_words[] = {STORE_JOB_STATES(X)};
static const char *const delivery_words[] = {STORE_DELIVERY_STATES(X)};
#undef X

static const char schema[] =
    "CREATE TABLE series("
    " id INTEGER PRIMARY KEY, series_uid TEXT NOT NULL UNIQUE, study_uid TEXT NOT NULL,"
    " calling_ae TEXT NOT NULL, state INTEGER NOT NULL, revision INTEGER NOT NULL,"
    " instances INTEGER NOT NULL, bytes INTEGER NOT NULL, first_at INTEGER NOT NULL,"
    " last_at INTEGER NOT NULL, ended_at INTEGER NOT NULL DEFAULT 0, changed_at INTEGER NOT NULL,"
    " next_try INTEGER NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT '',"
    " lease_until INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " crashes INTEGER NOT NULL DEFAULT 0, interruptions INTEGER NOT NULL DEFAULT 0,"
    " reason TEXT NOT NULL DEFAULT '') STRICT;"
    "CREATE INDEX series_by_state ON series(state, changed_at);"

    "CREATE TABLE instances("
    " id INTEGER PRIMARY KEY, sop_uid TEXT NOT NULL UNIQUE, sop_class TEXT NOT NULL,"
    " study_uid TEXT NOT NULL, series_id INTEGER NOT NULL REFERENCES series(id),"
    " revision INTEGER NOT NULL, transfer_syntax TEXT NOT NULL, calling_ae TEXT NOT NULL,"
    " path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " received_at INTEGER NOT NULL) STRICT;"
    "CREATE INDEX instances_by_series ON instances(series_id, id);"

    "CREATE TABLE jobs("
    " id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, state INTEGER NOT NULL,"
    " task TEXT NOT NULL, rule TEXT NOT NULL, model TEXT NOT NULL, model_digest TEXT NOT NULL,"
    " parameters TEXT NOT NULL, destinations TEXT NOT NULL, created_at INTEGER NOT NULL,"
    " changed_at INTEGER NOT NULL, started_at INTEGER NOT NULL DEFAULT 0,"
    " finished_at INTEGER NOT NULL DEFAULT 0, next_try INTEGER NOT NULL DEFAULT 0,"
    " owner TEXT NOT NULL DEFAULT '', lease_until INTEGER NOT NULL DEFAULT 0,"
    " run_ms INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " crashes INTEGER NOT NULL DEFAULT 0, interruptions INTEGER NOT NULL DEFAULT 0,"
    " cancel_asked INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '') STRICT;"
    "CREATE INDEX jobs_by_state ON jobs(state, id);"

    "CREATE TABLE job_inputs("
    " job_id INTEGER NOT NULL REFERENCES jobs(id), position INTEGER NOT NULL,"
    " series_id INTEGER NOT NULL REFERENCES series(id), revision INTEGER NOT NULL,"
    " PRIMARY KEY(job_id, position)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX job_inputs_by_series ON job_inputs(series_id);"

    "CREATE TABLE outputs("
    " id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL REFERENCES jobs(id),"
    " position INTEGER NOT NULL, sop_uid TEXT NOT NULL, sop_class TEXT NOT NULL,"
    " series_uid TEXT NOT NULL, study_uid TEXT NOT NULL, transfer_syntax TEXT NOT NULL,"
    " path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " UNIQUE(job_id, position)) STRICT;"

    "CREATE TABLE deliveries("
    " id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL REFERENCES jobs(id),"
    " destination TEXT NOT NULL, state INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
    " crashes INTEGER NOT NULL DEFAULT 0, due_at INTEGER, owner TEXT NOT NULL DEFAULT '',"
    " commit_asked INTEGER NOT NULL DEFAULT 0, transaction_uid TEXT NOT NULL DEFAULT '',"
    " created_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '',"
    " UNIQUE(job_id, destination)) STRICT;"
    "CREATE INDEX deliveries_due ON deliveries(due_at) WHERE due_at IS NOT NULL;"
    "CREATE INDEX deliveries_by_state ON deliveries(state);"

    "CREATE TABLE items("
    " id INTEGER PRIMARY KEY, delivery_id INTEGER NOT NULL REFERENCES deliveries(id),"
    " output_id INTEGER NOT NULL REFERENCES outputs(id), sent INTEGER NOT NULL DEFAULT 0,"
    " committed INTEGER NOT NULL DEFAULT 0, resends INTEGER NOT NULL DEFAULT 0,"
    " UNIQUE(delivery_id, output_id)) STRICT;"

    "CREATE TABLE commitments("
    " transaction_uid TEXT PRIMARY KEY, delivery_id INTEGER NOT NULL REFERENCES deliveries(id),"
    " asked_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/* What schema 2 adds to schema 1: series.seen_at, when an instance that we had came again;
 * past_jobs and trash, see store_purge_next(); used_ids, the highest ids that are gone, so that
 * none names two things; indexes for what foreign keys look for when rows go. */
static const char schema_2[] =
    "ALTER TABLE series ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE past_jobs("
    " key TEXT PRIMARY KEY, created_at INTEGER NOT NULL, outputs TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE trash(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE used_ids(series INTEGER NOT NULL, jobs INTEGER NOT NULL) STRICT;"
    "INSERT INTO used_ids VALUES(0,0);"
    "CREATE INDEX items_by_output ON items(output_id);"
    "CREATE INDEX commitments_by_delivery ON commitments(delivery_id);";

const char *series_state_word(enum series_state state)
{
    return (unsigned)state < SERIES_STATES ? series_words[state] : "unknown";
}

const char *job_state_word(enum job_state state)
{
    return (unsigned)state < JOB_STATES ? job_words[state] : "unknown";
}

const char *delivery_state_word(enum delivery_state state)
{
    return (unsigned)state < DELIVERY_STATES ? delivery_words[state] : "unknown";
}

/* A new file gets the tables, one of schema 1 what it lacks; any other must be of our schema. */
static int check_schema(struct store *s, const char *path, struct err *e)
{
    int64_t version = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_int(s, &version, e, "PRAGMA user_version", "");
    if (rc != 0 || version == STORE_SCHEMA)
        goto out;
    if (version != 0 && version != 1) {
        rc = err_set(e, ERR_CONFIG,
                     "database %s has schema %d, this program knows %d: run the version that made "
                     "it, or move the file away",
                     path, (int)version, STORE_SCHEMA);
        goto out;
    }
    if (version == 0)
        rc = sql_exec(s, schema, e);
    if (rc == 0)
        rc = sql_exec(s, schema_2, e);
    if (rc == 0) {
        char set_version[64];
        snprintf(set_version, sizeof set_version, "PRAGMA user_version=%d", STORE_SCHEMA);
        rc = sql_exec(s, set_version, e);
    }
out:
    return sql_end(s, rc, e);
}

int store_open(struct store **out, const char *path, struct err *e)
{
    struct store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the database connection");
    pthread_mutex_init(&s->lock, NULL);
    int rc = 0;
    if (sqlite3_open_v2(path, &s->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK) {
        rc = err_set(e, ERR_IO, "cannot open database %s: %s", path,
                     s->db ? sqlite3_errmsg(s->db) : "no memory");
        goto out;
    }
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    /* The cache is small on purpose: rows are few and the processes are many. */
    rc = sql_exec(s,
                  "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
                  "PRAGMA cache_size=-512; PRAGMA trusted_schema=OFF",
                  e);
    if (rc == 0)
        rc = check_schema(s, path, e);
    if (rc != 0)
        err_context(e, "%s", path);
out:
    if (rc != 0)
        store_close(s);
    else
        *out = s;
    return rc;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->cached; i++)
        sqlite3_finalize(s->cache[i].statement);
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int store_version(struct store *s, int64_t *out, struct err *e)
{
    pthread_mutex_lock(&s->lock);
    int rc = sql_int(s, out, e, "PRAGMA data_version", "");
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Leases that are void go back to their queues. `void_lease` selects them by ?1; `crashed` says
 * that their holder died of itself, else it was interrupted; `limit` is how often that may be. */
#define VOID_BY_OWNER "owner=?1"
#define VOID_BY_NODE  "owner<>'' AND substr(owner,1,length(?1))=?1"

#define SERIES_BACK(void_lease, counter)                                                           \
    "UPDATE series SET " counter "=" counter "+1, owner='', lease_until=0, changed_at=?2,"         \
    " next_try=0, state=CASE WHEN " counter "+1>=?3 THEN 4 ELSE 1 END,"                            \
    " reason=CASE WHEN " counter "+1>=?3 THEN ?4 ELSE reason END WHERE state=2 AND " void_lease
#define JOBS_BACK(void_lease, counter)                                                             \
    "UPDATE jobs SET " counter "=" counter "+1, owner='', lease_until=0, changed_at=?2,"           \
    " next_try=0, state=CASE WHEN cancel_asked THEN 5 WHEN " counter "+1>=?3 THEN 6 ELSE 0 END,"   \
    " finished_at=CASE WHEN cancel_asked OR " counter "+1>=?3 THEN ?2 ELSE 0 END,"                 \
    " reason=CASE WHEN cancel_asked THEN 'cancelled' WHEN " counter "+1>=?3 THEN ?4"               \
    " ELSE reason END WHERE state=1 AND " void_lease
#define DELIVERIES_BACK(void_lease, counter)                                                       \
    "UPDATE deliveries SET " counter ", owner='', changed_at=?2,"                                  \
    " due_at=CASE WHEN crashes>=?3 THEN NULL ELSE ?2 END,"                                         \
    " state=CASE WHEN crashes>=?3 THEN 4 WHEN state=1 THEN 0 ELSE state END,"                      \
    " reason=CASE WHEN crashes>=?3 THEN ?4 ELSE reason END WHERE " void_lease

static int leases_void(struct store *s, const char *who, bool crashed, int limit,
                       const char *reason, int64_t now, struct store_recovery *out, struct err *e)
{
    int64_t before = 0, after = 0;
    static const char count_aside[] =
        "SELECT (SELECT count(*) FROM series WHERE state=4) + (SELECT count(*) FROM jobs WHERE "
        "state=6) + (SELECT count(*) FROM deliveries WHERE state=4)";
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_int(s, &before, e, count_aside, "");
    if (rc == 0)
        rc = sql_run(s, e, &out->series,
                     crashed ? SERIES_BACK(VOID_BY_OWNER, "crashes")
                             : SERIES_BACK(VOID_BY_NODE, "interruptions"),
                     "tint", who, now, limit, reason);
    if (rc == 0)
        rc = sql_run(s, e, &out->jobs,
                     crashed ? JOBS_BACK(VOID_BY_OWNER, "crashes")
                             : JOBS_BACK(VOID_BY_NODE, "interruptions"),
                     "tint", who, now, limit, reason);
    /* What a delivery may do to its stage is the peer's doing: only crashes count. */
    if (rc == 0 && crashed)
        rc =
            sql_run(s, e, NULL, "UPDATE deliveries SET crashes=crashes+1 WHERE owner=?1", "t", who);
    if (rc == 0)
        rc = sql_run(s, e, &out->deliveries,
                     crashed ? DELIVERIES_BACK(VOID_BY_OWNER, "attempts=attempts+1")
                             : DELIVERIES_BACK(VOID_BY_NODE, "attempts=attempts"),
                     "tint", who, now, crashed ? limit : INT32_MAX, reason);
    if (rc == 0)
        rc = sql_int(s, &after, e, count_aside, "");
    out->set_aside = after - before;
    return sql_end(s, rc, e);
}

int store_recover(struct store *s, const char *node, int64_t now, struct store_recovery *out,
                  struct err *e)
{
    memset(out, 0, sizeof *out);
    char reason[STORE_REASON];
    snprintf(reason, sizeof reason,
             "set aside: the whole node ended %d times while this was in work (out of memory? see "
             "the system's log); retry it when the cause is found",
             STORE_INTERRUPTIONS_MAX);
    int rc = leases_void(s, node, false, STORE_INTERRUPTIONS_MAX, reason, now, out, e);
    if (rc != 0)
        return rc;
    return store_associations_lost(s, now, e);
}

int store_owner_died(struct store *s, const char *owner, const char *cause, int32_t crashes_max,
                     int64_t now, struct store_recovery *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    char reason[STORE_REASON];
    snprintf(reason, sizeof reason, "set aside: it ended its process %d times, last by %s",
             (int)crashes_max, cause);
    return leases_void(s, owner, true, crashes_max, reason, now, out, e);
}

static int count_states(struct store *s, const char *sql, int64_t *counts, int states,
                        struct err *e)
{
    sqlite3_stmt *statement;
    int rc = sql_bind(s, &statement, e, sql, "");
    while (rc == 0 && (rc = sql_step(s, statement, e)) > 0) {
        int state = sqlite3_column_int(statement, 0);
        if (state >= 0 && state < states)
            counts[state] = sqlite3_column_int64(statement, 1);
        rc = 0;
    }
    return rc;
}

int store_stats(struct store *s, struct store_stats *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_int(s, &out->instances, e, "SELECT count(*) FROM instances", "");
    if (rc == 0)
        rc = sql_int(s, &out->oldest_waiting_at, e,
                     "SELECT min(changed_at) FROM jobs WHERE state=0", "");
    if (rc == 0)
        rc = count_states(s, "SELECT state, count(*) FROM series GROUP BY state", out->series,
                          SERIES_STATES, e);
    if (rc == 0)
        rc = count_states(s, "SELECT state, count(*) FROM jobs GROUP BY state", out->jobs,
                          JOB_STATES, e);
    if (rc == 0)
        rc = count_states(s, "SELECT state, count(*) FROM deliveries GROUP BY state",
                          out->deliveries, DELIVERY_STATES, e);
    return sql_end(s, rc, e);
}
