/*
 * spool.h - the node's files: what came in, what is being made, what goes out
 *
 * In its folder:
 *     lock            one node per spool
 *     in/<name>.dcm   received instances, created under their final name
 *     work/<job>-<n>/ outputs of a job that worker n is at
 *     out/<job>/      outputs of a job that is done, complete or not there at all
 *
 * Names are made of digests and random numbers, never of anything that a peer sent. A received
 * file counts only if a row of the store names it and its size agrees; an output folder only if its
 * job is done. All else is left over from a process that was killed: spool_sweep() removes it
 * before the stages start.
 */
#ifndef SPINENODE_SPOOL_H
#define SPINENODE_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/file.h"
#include "node/store.h"

struct spool {
    char root[PATH_BYTES];
    int lock; /* descriptor, -1 if not locked by this struct */
};

/* Makes the folders that are missing. Nothing to free but the lock. One struct may serve several
 * threads, but spool_lock(), spool_unlock() and spool_sweep() are for one. */
int spool_open(struct spool *sp, const char *root, struct err *e);

/* Locks the spool for this node. ERR_EXISTS: another one works on it. The lock ends with the
 * process and the children that it forked; they should close sp->lock. */
int spool_lock(struct spool *sp, struct err *e);
void spool_unlock(struct spool *sp);

/* Absolute path of a path relative to the spool. ERR_INVALID for one that could leave it. */
int spool_path(const struct spool *sp, const char *relative, char out[PATH_BYTES], struct err *e);

/* A new file for an instance: its descriptor (for reading and writing), and its path relative to
 * the spool. Negative ERR_* on failure. */
int spool_incoming(const struct spool *sp, const char *sop_uid, char relative[STORE_PATH],
                   struct err *e);

/* ERR_FULL, with figures, if less than that is free (in bytes, or in percent of the disk). */
int spool_room(const struct spool *sp, int64_t free_bytes, int32_t free_percent, struct err *e);

/* An empty folder for the outputs of a job that worker `number` makes; what an earlier attempt left
 * there is removed. */
int spool_work_begin(const struct spool *sp, const char *job_key, int number, char out[PATH_BYTES],
                     struct err *e);

/* Makes the files in that folder durable and moves it to out/<job_key>, over what an attempt left
 * there that died before its job was done. */
int spool_work_publish(const struct spool *sp, const char *job_key, int number, struct err *e);

/* Removes that folder, if it is there; and published outputs of a job that did not get done. */
void spool_work_drop(const struct spool *sp, const char *job_key, int number);
void spool_output_drop(const struct spool *sp, const char *job_key);

struct spool_emptied {
    size_t paths;       /* files and folders that are out of the trash */
    size_t problems;    /* of them could not be removed; the sweep of the next start tries again */
    struct err problem; /* the last */
};

/* Removes what stands in the store's trash, at most `max` (≤ SPOOL_TRASH_MAX) files and folders;
 * out->paths < max: it is empty. The outputs of a job that is there (again) stay. Only for the
 * process that makes jobs: none may be made meanwhile. */
#define SPOOL_TRASH_MAX 64
int spool_trash(const struct spool *sp, struct store *s, size_t max, struct spool_emptied *out,
                struct err *e);

struct spool_swept {
    int64_t files;   /* received files without a row */
    int64_t folders; /* outputs without a job that is done */
    int64_t rows;    /* instances whose file is not what its row says: forgotten */
};

/* Before the stages start. Rows of the last minutes before the end are believed only if their
 * file's digest agrees, too: file and row are made durable side by side (intake.h), so a loss of
 * power can leave a row with a file that is not all there; its sender had no answer yet. */
int spool_sweep(const struct spool *sp, struct store *s, struct spool_swept *out, struct err *e);

#endif
