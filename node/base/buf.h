/*
 * buf.h - a growing byte buffer with a maximum
 *
 * Errors stick: after a failed call the buffer keeps what it had, later calls do nothing, and
 * buf_error() tells. So a long text is built without a check at each step.
 */
#ifndef SPINENODE_BASE_BUF_H
#define SPINENODE_BASE_BUF_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct buf {
    char *data; /* always terminated by a NUL that len does not count; NULL while empty */
    size_t len;
    size_t cap;
    size_t max; /* most bytes that it may hold */
    int error;  /* 0, ERR_NOMEM or ERR_LIMIT */
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
void buf_clear(struct buf *b);
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *text);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The text, "" if nothing was added. Borrowed until the next call on b. */
const char *buf_text(const struct buf *b);
int buf_error(const struct buf *b);

#ifdef __cplusplus
}
#endif
#endif
