/* onnx_bytes.h - a writer of protocol buffers, for models made by hand; nothing checks for room */
#ifndef SPINENODE_TESTS_UNIT_ONNX_BYTES_H
#define SPINENODE_TESTS_UNIT_ONNX_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct out {
    uint8_t bytes[16384];
    size_t n;
};

static inline void varint(struct out *o, uint64_t v)
{
    do
        o->bytes[o->n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
    while (v >>= 7);
}

static inline void number(struct out *o, unsigned field, uint64_t v)
{
    varint(o, field << 3);
    varint(o, v);
}

static inline void bytes(struct out *o, unsigned field, const void *p, size_t n)
{
    varint(o, field << 3 | 2);
    varint(o, n);
    memcpy(o->bytes + o->n, p, n);
    o->n += n;
}

static inline void text(struct out *o, unsigned field, const char *s)
{
    bytes(o, field, s, strlen(s));
}

static inline void message(struct out *o, unsigned field, const struct out *inner)
{
    bytes(o, field, inner->bytes, inner->n);
}

#endif
