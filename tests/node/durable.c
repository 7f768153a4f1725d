/*
 * durable.c - loaded into the node by tests/node/test_durable.py (LD_PRELOAD): tells in which order
 * files are made durable and bytes are sent, and makes syncing fail where it is told to
 *
 * Each line of the file DURABLE_LOG: process, "sync" (it has succeeded) or "send" (it is about to
 * begin), path. While the file DURABLE_FAIL is there, syncing a path that ends as it says is EIO.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TEXT_BYTES 1024

int fsync(int fd);
int fdatasync(int fd);

static void path_of(int fd, char out[TEXT_BYTES])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, TEXT_BYTES - 1);
    out[n > 0 ? n : 0] = '\0';
}

static void note(const char *what, int fd)
{
    char path[TEXT_BYTES], line[TEXT_BYTES + 64];
    const char *log = getenv("DURABLE_LOG");
    int kept = errno;
    path_of(fd, path);
    int out = log != NULL ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (out >= 0) {
        int n = snprintf(line, sizeof line, "%d %s %s\n", (int)getpid(), what, path);
        ssize_t done = write(out, line, (size_t)n);
        (void)done;
        close(out);
    }
    errno = kept;
}

static bool is_to_fail(int fd)
{
    char path[TEXT_BYTES], end[TEXT_BYTES];
    const char *name = getenv("DURABLE_FAIL");
    int in = name != NULL ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (in < 0)
        return false;
    ssize_t n = read(in, end, sizeof end - 1);
    close(in);
    end[n > 0 ? n : 0] = '\0';
    path_of(fd, path);
    size_t length = strlen(path), wanted = strlen(end);
    return wanted > 0 && length >= wanted && strcmp(path + length - wanted, end) == 0;
}

static int sync_with(const char *name, int fd)
{
    int (*real)(int) = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, name);
    if (is_to_fail(fd)) {
        errno = EIO;
        return -1;
    }
    int rc = real(fd);
    if (rc == 0)
        note("sync", fd);
    return rc;
}

int fsync(int fd)
{
    return sync_with("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_with("fdatasync", fd);
}

ssize_t send(int fd, const void *bytes, size_t n, int flags)
{
    ssize_t (*real)(int, const void *, size_t, int) = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, "send");
    note("send", fd);
    return real(fd, bytes, n, flags);
}
