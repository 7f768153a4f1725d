/*
 * pool.h - a few threads that share the work of one step
 *
 * A step is cut into tasks; threads take the next task until none is left. The caller's thread
 * works too, so a pool of one thread starts no thread at all. Which thread runs a task never
 * changes a result: tasks write to places of their own.
 */
#ifndef SPINENODE_BASE_POOL_H
#define SPINENODE_BASE_POOL_H

#include <stdbool.h>

struct err;
struct pool;

/* Most threads of one pool. */
#define POOL_THREADS_MAX 256

/* Does task `task` on thread `thread` (0 … threads − 1: the index of its scratch memory). */
typedef void pool_fn(void *arg, int task, int thread);

/*
 * Makes a pool of `threads` threads (1 … POOL_THREADS_MAX), the caller's included. pin: thread i
 * is bound to the i-th CPU that the process may use (the caller's own thread is left alone).
 * ERR_NOMEM, ERR_LIMIT.
 */
int pool_new(struct pool **out, int threads, bool pin, struct err *e);
void pool_free(struct pool *p);

int pool_threads(const struct pool *p); /* 1 for NULL */

/*
 * Runs tasks 0 … tasks − 1 and returns when all are done. Allocates nothing. p may be NULL: all in
 * the caller's thread. One call at a time per pool: several callers wait for each other.
 */
void pool_run(struct pool *p, int tasks, pool_fn *fn, void *arg);

#endif
