/*
 * store_sqlite_deliver.c - store.h on SQLite: deliveries, their items, storage commitment
 *
 * deliveries.due_at is when a delivery wants attention: pending, the next attempt; sending, the end
 * of the lease; sent, a (repeated) request for commitment; NULL, never.
 *
 * The numbers in the statements are the states of store.h: deliveries 0 pending, 1 sending,
 * 2 sent, 3 committed, 4 failed.
 */
#include "node/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* An instance that the peer acknowledged and then says it does not have is sent again this often.
 */
#define RESENDS_MAX 2

/* Before such an instance is sent again. */
#define RESEND_MS 1000

#define DELIVERY_COLUMNS                                                                           \
    "id, job_id, destination, state, attempts, due_at, commit_asked, transaction_uid, created_at," \
    " changed_at, reason, (SELECT count(*) FROM items WHERE delivery_id=deliveries.id),"           \
    " (SELECT count(*) FROM items WHERE delivery_id=deliveries.id AND sent),"                      \
    " (SELECT count(*) FROM items WHERE delivery_id=deliveries.id AND committed)"

static void delivery_read(sqlite3_stmt *row, void *to)
{
    struct store_delivery *out = to;
    memset(out, 0, sizeof *out);
    out->id = sqlite3_column_int64(row, 0);
    out->job_id = sqlite3_column_int64(row, 1);
    sql_text(row, 2, out->destination, sizeof out->destination);
    out->state = (enum delivery_state)sqlite3_column_int(row, 3);
    out->attempts = sqlite3_column_int(row, 4);
    out->due_at = sqlite3_column_int64(row, 5);
    out->commit_asked = sqlite3_column_int(row, 6);
    sql_text(row, 7, out->transaction_uid, sizeof out->transaction_uid);
    out->created_at = sqlite3_column_int64(row, 8);
    out->changed_at = sqlite3_column_int64(row, 9);
    sql_text(row, 10, out->reason, sizeof out->reason);
    out->items = sqlite3_column_int64(row, 11);
    out->items_sent = sqlite3_column_int64(row, 12);
    out->items_committed = sqlite3_column_int64(row, 13);
}

static void name_read(sqlite3_stmt *row, void *out)
{
    sql_text(row, 0, out, STORE_NAME);
}

int store_deliveries_due(struct store *s, int64_t now, char (*out)[STORE_NAME], size_t max,
                         size_t *n, int64_t *next, struct err *e)
{
    struct sql_rows rows = {
        .data = out, .cap = max, .size = STORE_NAME, .read = name_read, .borrowed = true};
    int64_t later = 0;
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = sql_select(s, &rows, e,
                        "SELECT destination FROM deliveries WHERE due_at<=?1 GROUP BY destination"
                        " ORDER BY min(due_at) LIMIT ?2",
                        "ii", now, (int64_t)max);
    if (rc == 0)
        rc =
            sql_int(s, &later, e, "SELECT coalesce(min(due_at),?2) FROM deliveries WHERE due_at>?1",
                    "ii", now, INT64_MAX);
    if (rc == 0) {
        *next = later;
        *n = rows.n;
    }
    return sql_end(s, rc, e);
}

int store_delivery_take(struct store *s, const char *destination, const char *owner, int64_t now,
                        int64_t lease_ms, struct store_delivery *out, struct err *e)
{
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_get(s, delivery_read, out, e,
                     "SELECT " DELIVERY_COLUMNS " FROM deliveries WHERE due_at<=?1"
                     " AND destination=?2 ORDER BY due_at, id LIMIT 1",
                     "it", now, destination);
    if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "nothing is due");
    if (rc != 0)
        goto out;
    if (out->state == DELIVERY_PENDING)
        out->state = DELIVERY_SENDING;
    rc = sql_run(s, e, NULL,
                 "UPDATE deliveries SET state=?2, owner=?3, due_at=?4, changed_at=?5 WHERE id=?1",
                 "intii", out->id, (int)out->state, owner, now + lease_ms, now);
out:
    return sql_end(s, rc, e);
}

int store_delivery_renew(struct store *s, int64_t id, const char *owner, int64_t now,
                         int64_t lease_ms, struct err *e)
{
    return sql_move(s, e, "delivery", id,
                    "UPDATE deliveries SET due_at=?3 WHERE id=?1 AND owner=?2", "iti", id, owner,
                    now + lease_ms);
}

static void item_read(sqlite3_stmt *row, void *to)
{
    struct store_item *item = to;
    sql_read_output(row, &item->output);
    item->id = sqlite3_column_int64(row, SQL_OUTPUT_COUNT);
    item->sent = sqlite3_column_int(row, SQL_OUTPUT_COUNT + 1) != 0;
    item->committed = sqlite3_column_int(row, SQL_OUTPUT_COUNT + 2) != 0;
}

int store_delivery_items(struct store *s, int64_t id, struct store_item **out, size_t *n,
                         struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = item_read};
    int rc = sql_list(s, &rows, e,
                      "SELECT " SQL_OUTPUT_COLUMNS ", t.id, t.sent, t.committed FROM items t"
                      " JOIN outputs o ON o.id=t.output_id WHERE t.delivery_id=?1"
                      " ORDER BY o.position",
                      "i", id);
    if (rc != 0)
        return rc;
    *out = rows.data;
    *n = rows.n;
    return 0;
}

int store_items_sent(struct store *s, const int64_t *ids, size_t n, int64_t now, struct err *e)
{
    int rc = sql_begin(s, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = sql_run(s, e, NULL, "UPDATE items SET sent=1 WHERE id=?1", "i", ids[i]);
    if (rc == 0 && n > 0)
        rc = sql_run(s, e, NULL,
                     "UPDATE deliveries SET changed_at=?2 WHERE id="
                     "(SELECT delivery_id FROM items WHERE id=?1)",
                     "ii", ids[0], now);
    return sql_end(s, rc, e);
}

int store_delivery_ended(struct store *s, int64_t id, const char *owner, enum delivery_state state,
                         const char *reason, int64_t due_at, bool counts, int64_t now,
                         struct err *e)
{
    return sql_move(
        s, e, "delivery", id,
        "UPDATE deliveries SET state=?3, reason=?4, attempts=attempts+?5, changed_at=?6,"
        " owner='', due_at=CASE WHEN ?3=4 OR (?3=2 AND ?7=0) THEN NULL ELSE ?7 END"
        " WHERE id=?1 AND owner=?2 AND state IN (1,2)",
        "itntnii", id, owner, (int)state, reason, (int)counts, now, due_at);
}

int store_commitment_asked(struct store *s, int64_t id, const char *owner,
                           const char *transaction_uid, int64_t until, int64_t now, struct err *e)
{
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_update(
            s, e, "delivery", id,
            "UPDATE deliveries SET state=2, transaction_uid=?3, commit_asked=commit_asked+1,"
            " due_at=?4, changed_at=?5 WHERE id=?1 AND owner=?2 AND state IN (1,2)",
            "ittii", id, owner, transaction_uid, until, now);
    if (rc == 0)
        rc = sql_run(s, e, NULL,
                     "INSERT INTO commitments(transaction_uid, delivery_id, asked_at)"
                     " VALUES(?1,?2,?3)",
                     "tii", transaction_uid, id, now);
    return sql_end(s, rc, e);
}

/* What the peer said of one instance. */
static int commitment_item(struct store *s, int64_t delivery, const struct store_commitment *c,
                           struct err *e)
{
    if (c->failure == 0)
        return sql_run(s, e, NULL,
                       "UPDATE items SET committed=1 WHERE delivery_id=?1 AND output_id IN"
                       " (SELECT id FROM outputs WHERE sop_uid=?2)",
                       "it", delivery, c->sop_uid);
    return sql_run(s, e, NULL,
                   "UPDATE items SET sent=0, resends=resends+1 WHERE delivery_id=?1 AND NOT"
                   " committed AND output_id IN (SELECT id FROM outputs WHERE sop_uid=?2)",
                   "it", delivery, c->sop_uid);
}

int store_commitment_result(struct store *s, const char *transaction_uid,
                            const struct store_commitment *list, size_t n, int64_t now,
                            int64_t *delivery_id, struct err *e)
{
    sqlite3_stmt *row;
    uint16_t failure = 0;
    int64_t id = 0;
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = sql_int(s, &id, e, "SELECT delivery_id FROM commitments WHERE transaction_uid=?1", "t",
                     transaction_uid);
    if (rc == ERR_NOT_FOUND)
        err_set(e, rc, "no storage commitment was asked for under %s", transaction_uid);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = commitment_item(s, id, &list[i], e);
        if (list[i].failure != 0)
            failure = list[i].failure;
    }
    if (rc != 0 || (rc = sql_row(s, &row, e,
                                 "SELECT count(*), sum(committed), sum(NOT sent), max(resends)"
                                 " FROM items WHERE delivery_id=?1",
                                 "i", id)) <= 0)
        goto out;
    int64_t items = sqlite3_column_int64(row, 0), committed = sqlite3_column_int64(row, 1);
    int64_t unsent = sqlite3_column_int64(row, 2), resends = sqlite3_column_int64(row, 3);
    char reason[STORE_REASON];
    snprintf(reason, sizeof reason,
             "acknowledged, but storage commitment says that the destination does not keep it "
             "(failure reason %04X)%s",
             failure, resends > RESENDS_MAX ? "; sent again in vain" : "");
    if (committed == items)
        rc = sql_run(s, e, NULL,
                     "UPDATE deliveries SET state=3, due_at=NULL, owner='', reason='',"
                     " changed_at=?2 WHERE id=?1",
                     "ii", id, now);
    else if (failure != 0 && unsent > 0)
        rc = sql_run(s, e, NULL,
                     "UPDATE deliveries SET state=?2, due_at=CASE WHEN ?2=4 THEN NULL ELSE ?3 END,"
                     " reason=?4, owner='', changed_at=?5 WHERE id=?1 AND state IN (0,2,4)",
                     "initi", id, (int)(resends > RESENDS_MAX ? DELIVERY_FAILED : DELIVERY_PENDING),
                     now + RESEND_MS, reason, now);
    else
        rc = 0;
    if (rc == 0 && delivery_id != NULL)
        *delivery_id = id;
out:
    return sql_end(s, rc, e);
}

int store_job_deliveries(struct store *s, int64_t job_id, struct store_delivery **out, size_t *n,
                         struct err *e)
{
    struct sql_rows rows = {.size = sizeof **out, .read = delivery_read};
    int rc = sql_list(s, &rows, e,
                      "SELECT " DELIVERY_COLUMNS " FROM deliveries WHERE job_id=?1 ORDER BY id",
                      "i", job_id);
    if (rc != 0)
        return rc;
    *out = rows.data;
    *n = rows.n;
    return 0;
}
