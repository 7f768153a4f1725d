/* npy.c - see npy.h. Source: numpy.lib.format, "Format Version 1.0" and "2.0". */
#include "model/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/err.h"
#include "node/base/file.h"

#define HEADER_MAX 4096
#define MAGIC      "\x93NUMPY"

static int read_all(int fd, void *out, size_t n, const char *path, struct err *e)
{
    uint8_t *p = out;
    while (n > 0) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, errno, "cannot read %s", path);
        if (got == 0)
            return err_set(e, ERR_INVALID, "%s ends early: it was cut", path);
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

/* The text after 'key': in the header's dictionary, NULL if the key is not there once. */
static const char *find_key(const char *header, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *at = strstr(header, quoted);
    if (at == NULL || strstr(at + 1, quoted) != NULL)
        return NULL;
    at += strlen(quoted);
    return at + strspn(at, " ");
}

static int parse_header(const char *header, struct shape *s, const char *path, struct err *e)
{
    const char *descr = find_key(header, "descr"), *order = find_key(header, "fortran_order"),
               *shape = find_key(header, "shape");
    if (descr == NULL || order == NULL || shape == NULL || *shape != '(')
        return err_set(e, ERR_INVALID, "%s: its NumPy header is damaged", path);
    if (strncmp(descr, "'<f4'", 5) != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s holds no float32: save it with astype('float32')",
                       path);
    if (strncmp(order, "False", 5) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s is in Fortran order: save it with numpy.ascontiguousarray", path);
    s->rank = 0;
    const char *p = shape + 1;
    for (;;) {
        p += strspn(p, " ");
        if (*p == ')')
            break;
        if (*p < '0' || *p > '9' || s->rank == GRAPH_RANK_MAX)
            return err_set(e, ERR_INVALID,
                           "%s: its shape is damaged or has more than %d dimensions", path,
                           GRAPH_RANK_MAX);
        int64_t dim = 0;
        for (; *p >= '0' && *p <= '9'; p++) {
            dim = dim * 10 + (*p - '0');
            if (dim > (int64_t)1 << 40)
                return err_set(e, ERR_LIMIT, "%s: its shape is too large", path);
        }
        s->dim[s->rank++] = dim;
        p += strspn(p, " ");
        if (*p == ',')
            p++;
        else if (*p != ')')
            return err_set(e, ERR_INVALID, "%s: its shape is damaged", path);
    }
    if (s->rank == 0 || shape_count(s) < 1)
        return err_set(e, ERR_INVALID, "%s has no elements, or no dimensions", path);
    return 0;
}

static int read_header(int fd, const char *path, struct shape *s, int64_t *bytes, struct err *e)
{
    uint8_t head[12];
    char header[HEADER_MAX + 1];
    int rc = read_all(fd, head, 8, path, e);
    if (rc != 0)
        return rc;
    if (memcmp(head, MAGIC, 6) != 0 || (head[6] != 1 && head[6] != 2))
        return err_set(e, ERR_INVALID, "%s is not a NumPy file of format 1 or 2", path);
    size_t n = head[6] == 1 ? 2 : 4;
    if ((rc = read_all(fd, head + 8, n, path, e)) != 0)
        return rc;
    size_t length = (size_t)head[8] | (size_t)head[9] << 8;
    if (n == 4)
        length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    if (length > HEADER_MAX)
        return err_set(e, ERR_LIMIT, "%s: its header is longer than %d bytes", path, HEADER_MAX);
    if ((rc = read_all(fd, header, length, path, e)) != 0)
        return rc;
    header[length] = '\0';
    *bytes = (int64_t)(8 + n + length);
    return parse_header(header, s, path, e);
}

int npy_read(const char *path, int64_t max_bytes, struct npy *out, struct err *e)
{
    struct stat st;
    struct shape s = {0};
    float *data = NULL;
    int64_t header = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    int rc = fstat(fd, &st) == 0 ? 0 : err_errno(e, errno, "cannot look at %s", path);
    if (rc == 0 && !S_ISREG(st.st_mode))
        rc = err_set(e, ERR_INVALID, "%s is not a regular file", path);
    if (rc == 0)
        rc = read_header(fd, path, &s, &header, e);
    if (rc != 0)
        goto out;
    int64_t count = shape_count(&s);
    if (count > max_bytes / (int64_t)sizeof(float)) {
        rc = err_set(e, ERR_LIMIT, "%s holds more than %lld bytes", path, (long long)max_bytes);
        goto out;
    }
    int64_t bytes = count * (int64_t)sizeof(float);
    if (st.st_size != header + bytes) {
        rc = err_set(e, ERR_INVALID, "%s has %lld bytes of data, its shape needs %lld", path,
                     (long long)(st.st_size - header), (long long)bytes);
        goto out;
    }
    data = malloc((size_t)bytes);
    if (data == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for %s", path);
    else
        rc = read_all(fd, data, (size_t)bytes, path, e);
out:
    close(fd);
    if (rc != 0) {
        free(data);
        return rc;
    }
    out->shape = s;
    out->data = data;
    return 0;
}

void npy_fini(struct npy *a)
{
    free(a->data);
    a->data = NULL;
}

/* Under another name first. Not made durable: a tensor can be computed again. */
static int replace_file(const char *path, const void *bytes, size_t n, struct err *e)
{
    char temporary[PATH_BYTES];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp%d", path, (int)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(e, ERR_LIMIT, "path too long: %s", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_errno(e, errno, "cannot create %s", temporary);
    int rc = file_write_all(fd, bytes, n, e);
    if (close(fd) != 0 && rc == 0)
        rc = err_errno(e, errno, "cannot write %s", temporary);
    if (rc == 0 && rename(temporary, path) != 0)
        rc = err_errno(e, errno, "cannot rename %s to %s", temporary, path);
    if (rc != 0)
        unlink(temporary);
    return rc;
}

int npy_write(const char *path, const struct shape *shape, const float *data, struct err *e)
{
    char header[512];
    int64_t count = shape_count(shape);
    if (shape->rank < 1 || count < 1)
        return err_set(e, ERR_INVALID, "cannot write %s: it has no elements", path);
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < shape->rank; i++)
        n += snprintf(header + n, sizeof header - (size_t)n, "%lld%s", (long long)shape->dim[i],
                      shape->rank == 1      ? ","
                      : i + 1 < shape->rank ? ", "
                                            : "");
    n += snprintf(header + n, sizeof header - (size_t)n, "), }");
    /* Blanks and a line end, so that the data start at a multiple of 64. */
    int total = (10 + n + 1 + 63) / 64 * 64;
    size_t bytes = (size_t)total + (size_t)count * sizeof(float);
    uint8_t *file = malloc(bytes);
    if (file == NULL)
        return err_set(e, ERR_NOMEM, "no memory to write %s", path);
    memset(file, ' ', (size_t)total);
    memcpy(file, MAGIC "\x01\x00", 8);
    file[8] = (uint8_t)((total - 10) & 255);
    file[9] = (uint8_t)((total - 10) >> 8);
    memcpy(file + 10, header, (size_t)n);
    file[total - 1] = '\n';
    memcpy(file + total, data, (size_t)count * sizeof(float));
    int rc = replace_file(path, file, bytes, e);
    free(file);
    return rc;
}
