/*
 * file.h - whole files, and files that survive power loss
 *
 * Durable means: the bytes are fsync'd, then the name, by an fsync of its folder.
 */
#ifndef SPINENODE_BASE_FILE_H
#define SPINENODE_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct buf;
struct err;

/* Longest path, terminator included, that the node builds. */
#define PATH_BYTES 1024

/* Adds the whole file to out; more than out's maximum is ERR_LIMIT. ERR_INVALID: it is no regular
 * file; ERR_IO: a folder. */
int file_read(const char *path, struct buf *out, struct err *e);

/* The same for what this process' user has written: no link is followed, and what belongs to
 * another user or may be written by others is ERR_REFUSED. */
int file_read_own(const char *path, struct buf *out, struct err *e);

/* Writes a new file under a temporary name in the same folder, fsyncs, renames over path, fsyncs
 * the folder. On failure path is as it was and the temporary file is gone. Several threads and
 * processes may write to one path: the last one's bytes stay, whole. */
int file_write_durable(const char *path, const void *bytes, size_t n, struct err *e);

/* write(2) until all is written; restarts after signals. */
int file_write_all(int fd, const void *bytes, size_t n, struct err *e);

int file_sync_folder(const char *folder, struct err *e);

/* mkdir -p; folders that exist are left as they are. */
int file_make_folders(const char *path, mode_t mode, struct err *e);

/* Joins folder, '/' and name into out[PATH_BYTES]; ERR_LIMIT if too long. */
int file_join(char out[PATH_BYTES], const char *folder, const char *name, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
