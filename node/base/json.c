/* json.c - a JSON text, see json.h */
#include "node/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "node/base/buf.h"

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

void json_string(struct buf *b, const char *text)
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

/* What stands before a value: a comma, unless it is the first of its object, array or text. */
static void place(struct buf *out, const char *name)
{
    if (out->len > 0 && strchr("{[", out->data[out->len - 1]) == NULL)
        buf_puts(out, ", ");
    if (name != NULL)
        buf_printf(out, "\"%s\": ", name);
}

void json_open(struct buf *out, const char *name, char bracket)
{
    place(out, name);
    buf_add(out, &bracket, 1);
}

void json_close(struct buf *out, char bracket)
{
    buf_add(out, &bracket, 1);
}

void json_text(struct buf *out, const char *name, const char *text)
{
    place(out, name);
    json_string(out, text);
}

void json_int(struct buf *out, const char *name, int64_t value)
{
    place(out, name);
    buf_printf(out, "%" PRId64, value);
}

void json_bool(struct buf *out, const char *name, bool value)
{
    place(out, name);
    buf_puts(out, value ? "true" : "false");
}

void json_real(struct buf *out, const char *name, double value)
{
    place(out, name);
    if (isfinite(value))
        buf_printf(out, "%.9g", value);
    else
        buf_puts(out, "null");
}

void json_moment(struct buf *out, const char *name, int64_t ms)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    place(out, name);
    if (ms == 0) {
        buf_puts(out, "null");
        return;
    }
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(out, "\"%s.%03dZ\"", text, (int)(ms % 1000));
}
