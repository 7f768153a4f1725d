/* buf.c - see buf.h */
#include "node/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->error = 0;
    if (b->data)
        b->data[0] = '\0';
}

/* Makes room for n more bytes and the NUL. */
static int reserve(struct buf *b, size_t n)
{
    if (b->error)
        return b->error;
    if (n > b->max || b->len > b->max - n)
        return b->error = ERR_LIMIT;
    size_t need = b->len + n + 1;
    if (need <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < need)
        cap *= 2;
    char *data = realloc(b->data, cap);
    if (!data)
        return b->error = ERR_NOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0 || reserve(b, n) != 0)
        return;
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0 && reserve(b, (size_t)n) == 0) {
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

/* Length of the UTF-8 sequence at s (RFC 3629), 0 if there is no valid one. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n;
    unsigned min, c = s[0];
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf) {
        n = 2, min = 0x80, c &= 0x1f;
    } else if (c >= 0xe0 && c <= 0xef) {
        n = 3, min = 0x800, c &= 0x0f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        n = 4, min = 0x10000, c &= 0x07;
    } else {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

void buf_json_string(struct buf *b, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    buf_puts(b, "\"");
    while (*s) {
        size_t n = utf8_length(s);
        if (n == 0) {
            buf_puts(b, "\\ufffd");
            s++;
        } else if (*s == '"' || *s == '\\') {
            buf_printf(b, "\\%c", *s++);
        } else if (*s < 0x20) {
            buf_printf(b, "\\u%04x", *s++);
        } else {
            buf_add(b, s, n);
            s += n;
        }
    }
    buf_puts(b, "\"");
}

const char *buf_text(const struct buf *b)
{
    return b->data ? b->data : "";
}

int buf_error(const struct buf *b)
{
    return b->error;
}
