/*
 * slices.h - the same work for each slice of a series, by several threads
 *
 * Each slice has memory of its own to write to, so that the result does not depend on who did it.
 */
#ifndef SPINENODE_BASE_SLICES_H
#define SPINENODE_BASE_SLICES_H

struct err;
struct pool;

/* What is done for slice i. 0 or ERR_*. */
typedef int slices_fn(void *arg, unsigned i, struct err *e);

/* Calls fn for slices first ... first + count - 1, each once, in any order, by the threads of a
 * pool; NULL: by the caller's. All are called, also after a failure; the error of the lowest slice
 * that failed is returned. */
int slices_run(struct pool *pool, unsigned first, unsigned count, slices_fn *fn, void *arg,
               struct err *e);

#endif
