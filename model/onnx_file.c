/*
 * onnx_file.c - a model file in memory, without its weights
 *
 * Not mapped: whoever cuts a file that another program has mapped ends that program by a signal.
 * Not read whole either: memory of the file's size is set aside, and what the reader looks at is
 * read to its place in it. Raw data, packed floats and what the reader passes over are left out:
 * they take no memory and would read as zeros.
 */
#include "model/onnx_read.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/err.h"

/* Bytes read at once: of what follows something left out, doubled while nothing more is. */
#define AHEAD_LEAST 2048
#define AHEAD_MOST  65536
#define PAGE        4096 /* that a piece on its own takes of memory */

/* A tag and a length, or a tag and a number. */
#define HEADER_MAX 20

/* The messages that are walked, what is read of them, and what is not. */
enum part {
    PART_MODEL,
    PART_GRAPH,
    PART_NODE,
    PART_ATTRIBUTE,
    PART_TENSOR,
    PART_FUNCTION,
    READ,
    LEFT_OUT
};

struct loader {
    int fd;
    uint8_t *base;
    int64_t size;
    int64_t to; /* end of what was read last, without a gap before it */
    int64_t ahead;
    int64_t taken; /* bytes of memory */
    struct err *e;
};

bool onnx_is_left_out(int64_t bytes)
{
    return bytes > ONNX_COPIED_MAX;
}

/* What becomes of field `number` of a message, which holds `bytes` bytes. */
static enum part part_of(enum part of, uint32_t number, int64_t bytes)
{
    bool text = bytes <= ONNX_TEXT_MAX;
    switch (of) {
    case PART_MODEL:
        return number == 7                                                           ? PART_GRAPH
               : number == 25                                                        ? PART_FUNCTION
               : text && (number == 2 || number == 3 || number == 8 || number == 14) ? READ
                                                                                     : LEFT_OUT;
    case PART_GRAPH:
        return number == 1                              ? PART_NODE
               : number == 5                            ? PART_TENSOR
               : text && (number == 11 || number == 12) ? READ
                                                        : LEFT_OUT;
    case PART_NODE:
        return number == 5                            ? PART_ATTRIBUTE
               : text && (number <= 4 || number == 7) ? READ
                                                      : LEFT_OUT;
    case PART_ATTRIBUTE:
        return number == 5                                                           ? PART_TENSOR
               : text && (number <= 4 || number == 7 || number == 8 || number == 21) ? READ
                                                                                     : LEFT_OUT;
    case PART_TENSOR:
        if (number == 4 || number == 9 || number == 10)
            return onnx_is_left_out(bytes) ? LEFT_OUT : READ;
        /* numbers as varints, of which the reader takes a limited number */
        if (number == 5 || number == 7 || number == 11)
            return READ;
        return text && (number == 1 || number == 8 || number == 13) ? READ : LEFT_OUT;
    default:
        return text && (number == 1 || number == 10) ? READ : LEFT_OUT;
    }
}

/* Reads on, so that begin ... end is there. */
static int have(struct loader *l, int64_t begin, int64_t end)
{
    if (begin > l->to) {
        l->to = begin;
        l->ahead = AHEAD_LEAST;
        l->taken += PAGE;
    }
    if (end <= l->to)
        return 0;
    int64_t n = end - l->to < l->ahead ? l->ahead : end - l->to;
    n = n < l->size - l->to ? n : l->size - l->to;
    l->ahead = l->ahead < AHEAD_MOST ? l->ahead * 2 : AHEAD_MOST;
    l->taken += n;
    if (l->taken > ONNX_STRUCTURE_MAX)
        return err_set(l->e, ERR_LIMIT,
                       "the model has more than %d MiB, up to byte %lld, that are not raw data of "
                       "its tensors",
                       ONNX_STRUCTURE_MAX >> 20, (long long)l->to);
    while (n > 0) {
        ssize_t got = pread(l->fd, l->base + l->to, (size_t)n, (off_t)l->to);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(l->e, errno, "cannot read it");
        if (got == 0)
            return err_set(l->e, ERR_IO, "it was cut while it was read");
        l->to += got;
        n -= got;
    }
    return 0;
}

/* Recurses from a message to those in it that PART_ names: five deep at most. */
static int walk(struct loader *l, struct span message, enum part part)
{
    struct wire w = wire_of(message, l->base);
    struct field f;
    for (;;) {
        int64_t at = w.p - l->base, left = w.end - w.p;
        int rc = have(l, at, at + (left < HEADER_MAX ? left : HEADER_MAX));
        if (rc != 0 || (rc = wire_next(&w, &f, l->e)) <= 0)
            return rc;
        rc = 0;
        if (f.type != WIRE_BYTES)
            continue;
        enum part inner = part_of(part, f.number, f.bytes.n);
        int64_t begin = f.bytes.p - l->base;
        if (inner == READ)
            rc = have(l, begin, begin + f.bytes.n);
        else if (inner != LEFT_OUT)
            rc = walk(l, f.bytes, inner);
        if (rc != 0)
            return rc;
    }
}

int onnx_file_open(struct source *s, const char *path, int64_t max_bytes, struct span *out,
                   struct err *e)
{
    struct stat st;
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (s->fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (fstat(s->fd, &st) != 0)
        return err_errno(e, errno, "cannot look at %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a regular file", path);
    if (st.st_size == 0)
        return err_set(e, ERR_INVALID, "%s is empty", path);
    if (st.st_size > max_bytes)
        return err_set(e, ERR_LIMIT, "%s is larger than %lld bytes", path, (long long)max_bytes);
    void *memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    s->memory = memory;
    s->bytes = st.st_size;
    /* A large page would be taken whole for the few bytes around a tensor. */
    madvise(memory, (size_t)st.st_size, MADV_NOHUGEPAGE);
    struct loader l = {
        .fd = s->fd, .base = memory, .size = st.st_size, .ahead = AHEAD_LEAST, .e = e};
    *out = (struct span){memory, st.st_size};
    int rc = walk(&l, *out, PART_MODEL);
    if (rc != 0)
        return err_context(e, "%s", path);
    mprotect(memory, (size_t)st.st_size, PROT_READ);
    return 0;
}
