/* scan.h - the regular files under some paths, in a fixed order, within bounds */
#ifndef SPINENODE_SCAN_H
#define SPINENODE_SCAN_H

#include <stddef.h>

struct err;

/* Most files that a scan returns, and deepest folder that it enters. */
#define SCAN_FILES_MAX 200000
#define SCAN_DEPTH_MAX 32

struct scan {
    char **paths; /* sorted within each given path */
    size_t count;
};

/* Adds path itself if it is a file, else every file under it whose name ends in suffix (NULL: any)
 * and begins with no dot. Links to folders are not followed. ERR_NOT_FOUND, ERR_IO, ERR_LIMIT,
 * ERR_NOMEM; what was added stays. */
int scan_add(struct scan *s, const char *path, const char *suffix, struct err *e);
void scan_fini(struct scan *s);

#endif
