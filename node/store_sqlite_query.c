/*
 * store_sqlite_query.c - store.h on SQLite: transactions and statements, for the files beside it
 *
 * A statement is prepared once and kept. What SQLite says becomes one of our errors here, and only
 * here: a locked database is ERR_TIMEOUT, a full disk ERR_FULL, a statement that is wrong ERR_BUG.
 */
#include "node/store_sqlite.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* What SQLite says, as one of our errors. */
static int sql_failed(struct store *s, struct err *e, const char *doing)
{
    int code = sqlite3_extended_errcode(s->db), rc;
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        rc = ERR_TIMEOUT;
        break;
    case SQLITE_FULL:
        rc = ERR_FULL;
        break;
    case SQLITE_NOMEM:
        rc = ERR_NOMEM;
        break;
    case SQLITE_IOERR:
        rc = sqlite3_system_errno(s->db) == ENOSPC ? ERR_FULL : ERR_IO;
        break;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_ERROR:
        rc = ERR_BUG;
        break;
    default:
        rc = ERR_IO;
    }
    return err_set(e, rc, "database: %s: %s", doing, sqlite3_errmsg(s->db));
}

int sql_exec(struct store *s, const char *sql, struct err *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_failed(s, e, sql);
}

static int sql_prepare(struct store *s, sqlite3_stmt **out, const char *sql, struct err *e)
{
    for (size_t i = 0; i < s->cached; i++) {
        if (s->cache[i].sql == sql) {
            *out = s->cache[i].statement;
            sqlite3_reset(*out);
            return 0;
        }
    }
    if (s->cached == SQL_STATEMENTS)
        return err_set(e, ERR_BUG, "database: more than %d different statements", SQL_STATEMENTS);
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return sql_failed(s, e, sql);
    s->cache[s->cached].sql = sql;
    s->cache[s->cached++].statement = *out;
    return 0;
}

static int bind_list(struct store *s, sqlite3_stmt *statement, struct err *e, const char *kinds,
                     va_list args)
{
    for (int i = 0; kinds[i] != '\0'; i++) {
        int rc;
        if (kinds[i] == 't')
            rc = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
                                   SQLITE_TRANSIENT);
        else if (kinds[i] == 'i')
            rc = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
        else
            rc = sqlite3_bind_int(statement, i + 1, va_arg(args, int));
        if (rc != SQLITE_OK)
            return sql_failed(s, e, sqlite3_sql(statement));
    }
    return 0;
}

static int bind(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql,
                const char *kinds, va_list args)
{
    int rc = sql_prepare(s, out, sql, e);
    return rc != 0 ? rc : bind_list(s, *out, e, kinds, args);
}

int sql_bind(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql, const char *kinds,
             ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = bind(s, out, e, sql, kinds, args);
    va_end(args);
    return rc;
}

int sql_step(struct store *s, sqlite3_stmt *statement, struct err *e)
{
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        return 1;
    if (rc != SQLITE_DONE)
        rc = sql_failed(s, e, sqlite3_sql(statement));
    else
        rc = 0;
    sqlite3_reset(statement);
    return rc;
}

static int run(struct store *s, struct err *e, int64_t *changed, const char *sql, const char *kinds,
               va_list args)
{
    sqlite3_stmt *statement;
    int rc = bind(s, &statement, e, sql, kinds, args);
    if (rc != 0)
        return rc;
    while ((rc = sql_step(s, statement, e)) > 0)
        ;
    if (rc == 0 && changed != NULL)
        *changed = sqlite3_changes64(s->db);
    return rc;
}

int sql_run(struct store *s, struct err *e, int64_t *changed, const char *sql, const char *kinds,
            ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = run(s, e, changed, sql, kinds, args);
    va_end(args);
    return rc;
}

static int update(struct store *s, struct err *e, const char *what, int64_t id, const char *sql,
                  const char *kinds, va_list args)
{
    int64_t changed = 0;
    int rc = run(s, e, &changed, sql, kinds, args);
    return rc == 0 && changed == 0 ? sql_moved(e, what, id) : rc;
}

int sql_update(struct store *s, struct err *e, const char *what, int64_t id, const char *sql,
               const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = update(s, e, what, id, sql, kinds, args);
    va_end(args);
    return rc;
}

int sql_move(struct store *s, struct err *e, const char *what, int64_t id, const char *sql,
             const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = sql_begin(s, e);
    if (rc == 0)
        rc = update(s, e, what, id, sql, kinds, args);
    va_end(args);
    return sql_end(s, rc, e);
}

static int first_row(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql,
                     const char *kinds, va_list args)
{
    int rc = bind(s, out, e, sql, kinds, args);
    return rc != 0 ? rc : sql_step(s, *out, e);
}

int sql_row(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql, const char *kinds,
            ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = first_row(s, out, e, sql, kinds, args);
    va_end(args);
    return rc;
}

static int get(struct store *s, void (*read)(sqlite3_stmt *row, void *out), void *out,
               struct err *e, const char *sql, const char *kinds, va_list args)
{
    sqlite3_stmt *row;
    int rc = first_row(s, &row, e, sql, kinds, args);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, "database: no such row");
    if (rc < 0)
        return rc;
    read(row, out);
    sqlite3_reset(row);
    return 0;
}

int sql_get(struct store *s, void (*read)(sqlite3_stmt *row, void *out), void *out, struct err *e,
            const char *sql, const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = get(s, read, out, e, sql, kinds, args);
    va_end(args);
    return rc;
}

static void read_int(sqlite3_stmt *row, void *out)
{
    *(int64_t *)out = sqlite3_column_int64(row, 0);
}

int sql_int(struct store *s, int64_t *out, struct err *e, const char *sql, const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = get(s, read_int, out, e, sql, kinds, args);
    va_end(args);
    return rc;
}

static int rows_grow(struct sql_rows *rows, struct err *e)
{
    size_t cap = rows->cap ? rows->cap * 2 : 16;
    void *data = realloc(rows->data, cap * rows->size);
    if (data == NULL)
        return err_set(e, ERR_NOMEM, "no memory for %zu rows", cap);
    rows->data = data;
    rows->cap = cap;
    return 0;
}

static int select_rows(struct store *s, struct sql_rows *rows, struct err *e, const char *sql,
                       const char *kinds, va_list args)
{
    sqlite3_stmt *row;
    int rc = bind(s, &row, e, sql, kinds, args);
    while (rc == 0 && (rc = sql_step(s, row, e)) > 0) {
        rc = rows->n < rows->cap || rows->borrowed ? 0 : rows_grow(rows, e);
        if (rows->n < rows->cap)
            rows->read(row, (char *)rows->data + rows->n++ * rows->size);
    }
    return rc;
}

int sql_select(struct store *s, struct sql_rows *rows, struct err *e, const char *sql,
               const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = select_rows(s, rows, e, sql, kinds, args);
    va_end(args);
    return rc;
}

int sql_list(struct store *s, struct sql_rows *rows, struct err *e, const char *sql,
             const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    int rc = sql_begin_read(s, e);
    if (rc == 0)
        rc = select_rows(s, rows, e, sql, kinds, args);
    va_end(args);
    rc = sql_end(s, rc, e);
    if (rc != 0 && !rows->borrowed)
        free(rows->data);
    return rc;
}

static int begin(struct store *s, const char *how, struct err *e)
{
    pthread_mutex_lock(&s->lock);
    return sql_exec(s, how, e);
}

int sql_begin(struct store *s, struct err *e)
{
    return begin(s, "BEGIN IMMEDIATE", e);
}

int sql_begin_read(struct store *s, struct err *e)
{
    return begin(s, "BEGIN", e);
}

int sql_end(struct store *s, int rc, struct err *e)
{
    /* A statement that was left in the middle would keep its view of the database open. */
    for (size_t i = 0; i < s->cached; i++)
        sqlite3_reset(s->cache[i].statement);
    if (rc == 0)
        rc = sql_exec(s, "COMMIT", e);
    if (rc != 0 && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void sql_text(sqlite3_stmt *statement, int column, char *out, size_t size)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    snprintf(out, size, "%s", text != NULL ? (const char *)text : "");
}

int sql_moved(struct err *e, const char *what, int64_t id)
{
    return err_set(e, ERR_NOT_FOUND, "%s %lld is not there or not in that state any more", what,
                   (long long)id);
}

int sql_fits(const char *text, size_t size, const char *what, struct err *e)
{
    if (strnlen(text, size) < size)
        return 0;
    return err_set(e, ERR_LIMIT, "%s is longer than %zu characters", what, size - 1);
}
