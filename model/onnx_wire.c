/* onnx_wire.c - see onnx_wire.h */
#include "model/onnx_wire.h"

#include <string.h>

#include "node/base/err.h"

bool span_equal(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
}

bool span_is(struct span s, const char *text)
{
    return span_equal(s, (struct span){(const uint8_t *)text, (int64_t)strlen(text)});
}

struct wire wire_of(struct span s, const uint8_t *start)
{
    return (struct wire){.p = s.p, .end = s.p + s.n, .start = start};
}

/* One varint; ERR_INVALID if it is cut or too long. */
static int varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t value = 0;
    for (int i = 0; i < 10; i++) {
        if (*p == end)
            return ERR_INVALID;
        uint8_t b = *(*p)++;
        if (i == 9 && b > 1)
            return ERR_INVALID;
        value |= (uint64_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) {
            *out = value;
            return 0;
        }
    }
    return ERR_INVALID;
}

static int broken(const struct wire *w, const uint8_t *at, const char *why, struct err *e)
{
    return err_set(e, ERR_INVALID, "not an ONNX file, or damaged: %s at byte %lld", why,
                   (long long)(at - w->start));
}

int wire_next(struct wire *w, struct field *f, struct err *e)
{
    if (w->p == w->end)
        return 0;
    const uint8_t *at = w->p;
    uint64_t tag, n;
    if (varint(&w->p, w->end, &tag) != 0)
        return broken(w, at, "a field's tag is cut", e);
    if (tag >> 3 == 0 || tag >> 32 != 0)
        return broken(w, at, "a field has no valid number", e);
    f->number = (uint32_t)(tag >> 3);
    f->type = (enum wire_type)(tag & 7);
    f->value = 0;
    f->bytes = (struct span){0};
    switch (tag & 7) {
    case WIRE_VARINT:
        if (varint(&w->p, w->end, &f->value) != 0)
            return broken(w, at, "a number is cut or too long", e);
        return 1;
    case WIRE_FIXED64:
    case WIRE_FIXED32:
        n = (tag & 7) == WIRE_FIXED64 ? 8 : 4;
        if ((uint64_t)(w->end - w->p) < n)
            return broken(w, at, "a number is cut", e);
        if (n == 8) {
            memcpy(&f->value, w->p, 8);
        } else {
            uint32_t bits;
            memcpy(&bits, w->p, 4);
            f->value = bits;
        }
        w->p += n;
        return 1;
    case WIRE_BYTES:
        if (varint(&w->p, w->end, &n) != 0)
            return broken(w, at, "a length is cut", e);
        if (n > (uint64_t)(w->end - w->p))
            return broken(w, at, "a field is longer than what holds it (file cut?)", e);
        f->bytes = (struct span){.p = w->p, .n = (int64_t)n};
        w->p += n;
        return 1;
    default:
        return broken(w, at, "a field has an unknown wire type", e);
    }
}

int wire_expect(const struct field *f, enum wire_type type, const char *what, struct err *e)
{
    if (f->type == type)
        return 0;
    return err_set(e, ERR_INVALID, "%s has wire type %d in place of %d: not ONNX, or damaged", what,
                   (int)f->type, (int)type);
}

struct repeat repeat_of(struct span message, const uint8_t *start, uint32_t number,
                        enum wire_type type)
{
    return (struct repeat){.message = wire_of(message, start), .number = number, .type = type};
}

int repeat_next(struct repeat *r, uint64_t *out, struct err *e)
{
    for (;;) {
        if (r->p != r->end) {
            if (r->type == WIRE_VARINT && *r->p < 0x80) { /* most are */
                *out = *r->p++;
                return 1;
            }
            if (r->type == WIRE_VARINT) {
                if (varint(&r->p, r->end, out) != 0)
                    return broken(&r->message, r->p, "a packed number is cut or too long", e);
                return 1;
            }
            size_t n = r->type == WIRE_FIXED64 ? 8 : 4;
            if ((size_t)(r->end - r->p) < n)
                return broken(&r->message, r->p, "packed numbers are cut", e);
            *out = 0;
            memcpy(out, r->p, n);
            r->p += n;
            return 1;
        }
        struct field f;
        int rc = wire_next(&r->message, &f, e);
        if (rc <= 0)
            return rc;
        if (f.number != r->number)
            continue;
        if (f.type == r->type) {
            *out = f.value;
            return 1;
        }
        if (f.type != WIRE_BYTES)
            return broken(&r->message, r->message.p, "a repeated number has the wrong wire type",
                          e);
        r->p = f.bytes.p;
        r->end = f.bytes.p + f.bytes.n;
    }
}

int64_t repeat_count(struct span message, const uint8_t *start, uint32_t number,
                     enum wire_type type, struct err *e)
{
    struct repeat r = repeat_of(message, start, number, type);
    int64_t n = 0;
    uint64_t ignored;
    int rc;
    while ((rc = repeat_next(&r, &ignored, e)) > 0) {
        n++;
        if (type == WIRE_VARINT || r.p == r.end)
            continue;
        /* what is left of a packed piece need not be looked at */
        int64_t size = type == WIRE_FIXED64 ? 8 : 4;
        n += (r.end - r.p) / size;
        r.p += (r.end - r.p) / size * size;
    }
    return rc < 0 ? rc : n;
}
