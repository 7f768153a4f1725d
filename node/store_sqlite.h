/*
 * store_sqlite.h - what the files behind store.h share; private to store_sqlite*.c
 *
 * A transaction: sql_begin(), statements as long as all goes well, and in every case sql_end(),
 * which commits if rc is 0 and rolls back otherwise. The connection belongs to the calling thread
 * from begin to end. All but sql_list() and sql_move(), which are a transaction of their own, are
 * for between the two.
 *
 * A statement is a literal, prepared once and found again by its address. `kinds` has a letter for
 * each of its parameters: t text, i int64_t, n int (32 bit).
 */
#ifndef SPINENODE_STORE_SQLITE_H
#define SPINENODE_STORE_SQLITE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "node/store.h"

#define SQL_STATEMENTS 128

struct store {
    sqlite3 *db;
    pthread_mutex_t lock;
    struct {
        const char *sql;
        sqlite3_stmt *statement;
    } cache[SQL_STATEMENTS];
    size_t cached;
};

int sql_begin(struct store *s, struct err *e);      /* to write */
int sql_begin_read(struct store *s, struct err *e); /* one consistent view */
int sql_end(struct store *s, int rc, struct err *e);

/* Statements that are run once and have no parameters. */
int sql_exec(struct store *s, const char *sql, struct err *e);

/* The statement with its parameters bound. */
int sql_bind(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql, const char *kinds,
             ...);

/* Steps to the next row: 1 a row, 0 no more (the statement is reset then), or an error. */
int sql_step(struct store *s, sqlite3_stmt *statement, struct err *e);

/* sql_bind() and the first sql_step(). The row stays until the same statement is used again, or
 * sql_end(). */
int sql_row(struct store *s, sqlite3_stmt **out, struct err *e, const char *sql, const char *kinds,
            ...);

/* Reads the first row, or the first row's first column. ERR_NOT_FOUND: there is none; the caller
 * knows better words for that. */
int sql_get(struct store *s, void (*read)(sqlite3_stmt *row, void *out), void *out, struct err *e,
            const char *sql, const char *kinds, ...);
int sql_int(struct store *s, int64_t *out, struct err *e, const char *sql, const char *kinds, ...);

/* Where the rows of a result go: an array that grows, or the caller's own, which takes the first
 * `cap` of them. `read` sets all of one element. */
struct sql_rows {
    void *data;
    size_t n, cap, size; /* of one element */
    void (*read)(sqlite3_stmt *row, void *out);
    bool borrowed; /* data is the caller's */
};

/* Adds all rows. After an error `data`, unless borrowed, still is to be freed. */
int sql_select(struct store *s, struct sql_rows *rows, struct err *e, const char *sql,
               const char *kinds, ...);

/* A transaction of one sql_select(). After an error nothing is left to be freed. */
int sql_list(struct store *s, struct sql_rows *rows, struct err *e, const char *sql,
             const char *kinds, ...);

/* Runs a statement that gives no rows; *changed (may be NULL) is the number of rows changed. */
int sql_run(struct store *s, struct err *e, int64_t *changed, const char *sql, const char *kinds,
            ...);

/* Runs a statement that must change a row: sql_moved(what, id) if there is none. */
int sql_update(struct store *s, struct err *e, const char *what, int64_t id, const char *sql,
               const char *kinds, ...);

/* A transaction of one sql_update(). */
int sql_move(struct store *s, struct err *e, const char *what, int64_t id, const char *sql,
             const char *kinds, ...);

/* Copies a column's text, cut to size. */
void sql_text(sqlite3_stmt *statement, int column, char *out, size_t size);

/* ERR_NOT_FOUND with a text, for rows that are not in the state that the caller believes. */
int sql_moved(struct err *e, const char *what, int64_t id);

/* Is the text, terminator included, within size? ERR_LIMIT names `what`. */
int sql_fits(const char *text, size_t size, const char *what, struct err *e);

/* One row of outputs (alias o): a result's first columns, into a struct store_output. */
#define SQL_OUTPUT_COLUMNS                                                                         \
    "o.id, o.sop_uid, o.sop_class, o.series_uid, o.study_uid, o.transfer_syntax, o.path,"          \
    " o.sha256, o.bytes"
#define SQL_OUTPUT_COUNT 9
void sql_read_output(sqlite3_stmt *row, void *out);

/* Do the outputs just entered for a job have the contents of those that were made under its key
 * before and are removed since? ERR_REFUSED if not. */
int sql_past_agrees(struct store *s, const char *key, int64_t job, struct err *e);

#endif
