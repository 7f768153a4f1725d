/* file.c - see file.h */
#include "node/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/err.h"

/* own: see file_read_own(). */
static int check_kind(int fd, const char *path, bool own, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_errno(e, errno, "cannot look at %s", path);
    if (S_ISDIR(st.st_mode))
        return err_errno(e, EISDIR, "cannot read %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a regular file", path);
    if (own && (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0))
        return err_set(e, ERR_REFUSED, "others than this user can write %s", path);
    return 0;
}

static int read_file(const char *path, bool own, struct buf *out, struct err *e)
{
    /* Opening a FIFO would wait for somebody who writes. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (own ? O_NOFOLLOW : 0));
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    char chunk[65536];
    int rc = check_kind(fd, path, own, e);
    while (rc == 0) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = err_errno(e, errno, "cannot read %s", path);
            break;
        }
        if (n == 0)
            break;
        buf_add(out, chunk, (size_t)n);
        if (buf_error(out)) {
            rc = err_set(e, buf_error(out), "cannot read %s: larger than %zu bytes, or no memory",
                         path, out->max);
        }
    }
    close(fd);
    return rc;
}

int file_read(const char *path, struct buf *out, struct err *e)
{
    return read_file(path, false, out, e);
}

int file_read_own(const char *path, struct buf *out, struct err *e)
{
    return read_file(path, true, out, e);
}

int file_write_all(int fd, const void *bytes, size_t n, struct err *e)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t written = write(fd, p, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return err_errno(e, errno, "cannot write %zu bytes", n);
        p += written;
        n -= (size_t)written;
    }
    return 0;
}

int file_sync_folder(const char *folder, struct err *e)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "cannot open folder %s", folder);
    int rc = fsync(fd) == 0 ? 0 : err_errno(e, errno, "cannot fsync folder %s", folder);
    close(fd);
    return rc;
}

int file_write_durable(const char *path, const void *bytes, size_t n, struct err *e)
{
    static atomic_uint writes; /* threads of this process may write to one path at a time */
    char temporary[PATH_BYTES], folder[PATH_BYTES];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp%d-%u", path, (int)getpid(),
                          atomic_fetch_add(&writes, 1));
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(e, ERR_LIMIT, "path too long: %s", path);
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (slash == path)
        snprintf(folder, sizeof folder, "/");

    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_errno(e, errno, "cannot create %s", temporary);
    int rc = file_write_all(fd, bytes, n, e);
    if (rc != 0)
        err_context(e, "%s", temporary);
    if (rc == 0 && fsync(fd) != 0)
        rc = err_errno(e, errno, "cannot fsync %s", temporary);
    if (close(fd) != 0 && rc == 0)
        rc = err_errno(e, errno, "cannot close %s", temporary);
    if (rc == 0 && rename(temporary, path) != 0)
        rc = err_errno(e, errno, "cannot rename %s to %s", temporary, path);
    if (rc != 0) {
        unlink(temporary);
        return rc;
    }
    return file_sync_folder(folder, e);
}

int file_make_folders(const char *path, mode_t mode, struct err *e)
{
    char partial[PATH_BYTES];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof partial)
        return err_set(e, ERR_LIMIT, "folder name is empty or too long: '%s'", path);
    memcpy(partial, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (partial[i] != '/' && partial[i] != '\0')
            continue;
        char kept = partial[i];
        partial[i] = '\0';
        if (mkdir(partial, mode) != 0 && errno != EEXIST)
            return err_errno(e, errno, "cannot make folder %s", partial);
        partial[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s is there but is not a folder", path);
    return 0;
}

int file_join(char out[PATH_BYTES], const char *folder, const char *name, struct err *e)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", folder, name);
    if (n < 0 || n >= PATH_BYTES)
        return err_set(e, ERR_LIMIT, "path too long: %s/%s", folder, name);
    return 0;
}
