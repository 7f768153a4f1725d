/*
 * store_sqlite_retain.c - store.h on SQLite: what is old enough goes
 *
 * A series goes whole, in one transaction: its rows, those of its jobs, their outputs and
 * deliveries. The same transaction enters the paths of its files into the table trash, and what a
 * repeat must agree with into past_jobs. So at any moment a file has its row, or stands in trash.
 *
 * The numbers in the statements are the states of store.h: series 3 planned, 4 refused; jobs
 * 0 waiting, 1 leased, 2 done; deliveries 0 pending, 1 sending, 4 failed.
 */
#include "node/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/digest.h"
#include "node/base/err.h"

/* The plus signs and CROSS JOIN keep SQLite from looking in the indexes by state, where a day's
 * rows would be gone through for each series.
 *
 * ?1 done, ?2 failed, ?3 delivered: the times of struct store_retention. The later of two events
 * counts, be it of the series, of a job or of a delivery; `cut` is what all must lie before. */
#define SETTLED                                                                                    \
    "SELECT id, series_uid, revision, bad FROM (SELECT *,"                                         \
    " CASE WHEN bad THEN ?2 WHEN worked THEN max(?1,?3) ELSE ?1 END AS cut FROM"                   \
    " (SELECT s.id, s.series_uid, s.revision, s.changed_at, s.seen_at,"                            \
    " EXISTS(SELECT 1 FROM job_inputs i CROSS JOIN jobs j ON j.id=i.job_id"                        \
    "  WHERE i.series_id=s.id AND +j.state<>2)"                                                    \
    " OR EXISTS(SELECT 1 FROM job_inputs i CROSS JOIN deliveries d ON d.job_id=i.job_id"           \
    "  WHERE i.series_id=s.id AND +d.state=4) AS bad,"                                             \
    " s.state=3 AND EXISTS(SELECT 1 FROM job_inputs i WHERE i.series_id=s.id) AS worked"           \
    " FROM series s WHERE s.state IN (3,4))) AS c WHERE changed_at<cut AND seen_at<cut"            \
    " AND NOT EXISTS(SELECT 1 FROM job_inputs i CROSS JOIN jobs j ON j.id=i.job_id"                \
    "  WHERE i.series_id=c.id AND (+j.state IN (0,1) OR j.changed_at>=cut))"                       \
    " AND NOT EXISTS(SELECT 1 FROM job_inputs i CROSS JOIN deliveries d ON d.job_id=i.job_id"      \
    "  WHERE i.series_id=c.id AND (+d.state IN (0,1) OR d.owner<>'' OR d.due_at IS NOT NULL"       \
    "  OR d.changed_at>=cut))"

/* The digest of the digests of a job's outputs, in their order. */
static int outputs_digest(struct store *s, int64_t job, char out[STORE_HEX], struct err *e)
{
    uint8_t hash[DIGEST_BYTES];
    sqlite3_stmt *row;
    struct digest *d = digest_new();
    if (d == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a digest");
    int rc = sql_bind(s, &row, e, "SELECT sha256 FROM outputs WHERE job_id=?1 ORDER BY position",
                      "i", job);
    while (rc == 0 && (rc = sql_step(s, row, e)) > 0) {
        char sha256[STORE_HEX];
        sql_text(row, 0, sha256, sizeof sha256);
        digest_add_text(d, sha256);
        rc = 0;
    }
    digest_finish(d, hash);
    digest_to_hex(hash, out);
    return rc;
}

int sql_past_agrees(struct store *s, const char *key, int64_t job, struct err *e)
{
    char before[STORE_HEX], now[STORE_HEX];
    sqlite3_stmt *row;
    int rc = sql_row(s, &row, e, "SELECT outputs FROM past_jobs WHERE key=?1", "t", key);
    if (rc <= 0)
        return rc;
    sql_text(row, 0, before, sizeof before);
    if ((rc = outputs_digest(s, job, now, e)) != 0)
        return rc;
    if (strcmp(before, now) == 0)
        return 0;
    return err_set(e, ERR_REFUSED,
                   "this work was done before and its results sent and removed since; now they "
                   "would come out with other contents under the same UIDs: the images, the "
                   "program or the time zone changed meanwhile");
}

/* Adds to *n and *bytes what the statement, a count and a sum, finds for that id. */
static int tally(struct store *s, const char *sql, int64_t id, int64_t *n, int64_t *bytes,
                 struct err *e)
{
    sqlite3_stmt *row;
    int rc = sql_row(s, &row, e, sql, "i", id);
    if (rc <= 0)
        return rc;
    *n += sqlite3_column_int64(row, 0);
    *bytes += sqlite3_column_int64(row, 1);
    return 0;
}

static int run_for(struct store *s, const char *const *list, size_t n, int64_t id, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = sql_run(s, e, NULL, list[i], "i", id);
    return rc;
}

static int job_purge(struct store *s, int64_t id, struct store_purged *out, struct err *e)
{
    static const char *const steps[] = {
        "INSERT OR IGNORE INTO trash(path) SELECT 'out/'||key FROM jobs WHERE id=?1 AND state=2",
        "DELETE FROM items WHERE delivery_id IN (SELECT id FROM deliveries WHERE job_id=?1)",
        "DELETE FROM commitments WHERE delivery_id IN (SELECT id FROM deliveries WHERE job_id=?1)",
        "DELETE FROM deliveries WHERE job_id=?1",
        "DELETE FROM outputs WHERE job_id=?1",
        "DELETE FROM job_inputs WHERE job_id=?1",
        "DELETE FROM jobs WHERE id=?1",
        "UPDATE used_ids SET jobs=max(jobs,?1)",
    };
    char digest[STORE_HEX];
    int rc = tally(s, "SELECT count(*), coalesce(sum(bytes),0) FROM outputs WHERE job_id=?1", id,
                   &out->outputs, &out->bytes, e);
    if (rc == 0)
        rc = outputs_digest(s, id, digest, e);
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "INSERT OR REPLACE INTO past_jobs(key, created_at, outputs)"
                     " SELECT key, created_at, ?2 FROM jobs WHERE id=?1 AND state=2",
                     "it", id, digest);
    if (rc == 0)
        rc = run_for(s, steps, sizeof steps / sizeof *steps, id, e);
    if (rc == 0)
        out->jobs++;
    return rc;
}

static int series_purge(struct store *s, int64_t id, struct store_purged *out, struct err *e)
{
    static const char *const steps[] = {
        "INSERT OR IGNORE INTO trash(path) SELECT path FROM instances WHERE series_id=?1",
        "DELETE FROM instances WHERE series_id=?1",
        "DELETE FROM series WHERE id=?1",
        "UPDATE used_ids SET series=max(series,?1)",
    };
    int64_t job = 0;
    int rc = tally(s, "SELECT count(*), coalesce(sum(bytes),0) FROM instances WHERE series_id=?1",
                   id, &out->instances, &out->bytes, e);
    while (rc == 0 &&
           (rc = sql_int(s, &job, e, "SELECT job_id FROM job_inputs WHERE series_id=?1 LIMIT 1",
                         "i", id)) == 0)
        rc = job_purge(s, job, out, e);
    if (rc == ERR_NOT_FOUND)
        rc = run_for(s, steps, sizeof steps / sizeof *steps, id, e);
    return rc;
}

int store_purge_next(struct store *s, const struct store_retention *r, struct store_purged *out,
                     struct err *e)
{
    sqlite3_stmt *row;
    int64_t id = 0;
    memset(out, 0, sizeof *out);
    /* To look for one may take a while; nobody has to wait for that. */
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_int(s, &id, e, SETTLED " ORDER BY max(changed_at, seen_at), id LIMIT 1", "iii",
                     r->done_before, r->failed_before, r->delivered_before);
    if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "no series is to be removed");
    rc = sql_end(s, rc, e);
    if (rc != 0)
        return rc;
    rc = sql_begin(s, e);
    if (rc == 0 && (rc = sql_row(s, &row, e, SETTLED " AND id=?4", "iiii", r->done_before,
                                 r->failed_before, r->delivered_before, id)) == 0)
        rc = sql_moved(e, "series", id);
    if (rc > 0) {
        out->series_id = id;
        sql_text(row, 1, out->series_uid, sizeof out->series_uid);
        out->revision = sqlite3_column_int64(row, 2);
        out->failed = sqlite3_column_int(row, 3) != 0;
        rc = series_purge(s, id, out, e);
    }
    return sql_end(s, rc, e);
}

static void path_read(sqlite3_stmt *row, void *out)
{
    sql_text(row, 0, out, STORE_PATH);
}

int store_trash_list(struct store *s, char (*paths)[STORE_PATH], size_t max, size_t *n,
                     struct err *e)
{
    struct sql_rows rows = {
        .data = paths, .cap = max, .size = STORE_PATH, .read = path_read, .borrowed = true};
    int rc =
        sql_list(s, &rows, e, "SELECT path FROM trash ORDER BY id LIMIT ?1", "i", (int64_t)max);
    if (rc == 0)
        *n = rows.n;
    return rc;
}

int store_trash_forget(struct store *s, const char (*paths)[STORE_PATH], size_t n, struct err *e)
{
    int rc = sql_begin(s, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = sql_run(s, e, NULL, "DELETE FROM trash WHERE path=?1", "t", paths[i]);
    return sql_end(s, rc, e);
}
