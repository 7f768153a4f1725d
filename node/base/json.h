/*
 * json.h - a JSON text (RFC 8259), written from front to back into a buffer
 *
 * Each call writes one value, or an end, with the comma that its place needs. `name` is that of the
 * member, NULL in an array and at the top; it is written as it is. Errors stick to the buffer.
 */
#ifndef SPINENODE_BASE_JSON_H
#define SPINENODE_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

struct buf;

/* The text as a quoted string, and nothing else; bytes that are not UTF-8 become U+FFFD. */
void json_string(struct buf *out, const char *text);

/* bracket: '{' or '[', '}' or ']'. */
void json_open(struct buf *out, const char *name, char bracket);
void json_close(struct buf *out, char bracket);

void json_text(struct buf *out, const char *name, const char *text);
void json_int(struct buf *out, const char *name, int64_t value);
void json_bool(struct buf *out, const char *name, bool value);

/* With 9 digits; null if it is not finite. */
void json_real(struct buf *out, const char *name, double value);

/* Wall clock milliseconds as ISO 8601 in UTC; null for 0. */
void json_moment(struct buf *out, const char *name, int64_t ms);

#endif
