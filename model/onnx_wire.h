/*
 * onnx_wire.h - the protocol buffers wire format, read in place
 *
 * Source: protobuf.dev, "Encoding". A message is walked field by field; nothing is copied, nothing
 * recurses, no length is believed before it is compared with what is left. Groups (wire types 3 and
 * 4), field number 0 and varints of more than 10 bytes are refused.
 */
#ifndef SPINENODE_MODEL_ONNX_WIRE_H
#define SPINENODE_MODEL_ONNX_WIRE_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct span {
    const uint8_t *p;
    int64_t n;
};

/* Comparisons; an absent span equals "". */
bool span_is(struct span s, const char *text);
bool span_equal(struct span a, struct span b);

struct wire {
    const uint8_t *p, *end;
    const uint8_t *start; /* of the file, for offsets in messages */
};

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;    /* varint and fixed */
    struct span bytes; /* WIRE_BYTES */
};

struct wire wire_of(struct span s, const uint8_t *start);

/* 1: *f is the next field; 0: the message ended; ERR_INVALID. */
int wire_next(struct wire *w, struct field *f, struct err *e);

/* Walks the elements of a repeated number field, packed or not: all fields of one number of a
 * message.
 *
 *     struct repeat r = repeat_of(message, start, number, WIRE_VARINT);
 *     while ((rc = repeat_next(&r, &bits, e)) > 0) ...
 */
struct repeat {
    struct wire message;
    const uint8_t *p, *end; /* what is left of a packed piece */
    uint32_t number;
    enum wire_type type;
};
struct repeat repeat_of(struct span message, const uint8_t *start, uint32_t number,
                        enum wire_type type);
int repeat_next(struct repeat *r, uint64_t *out, struct err *e);
/* How many there are; negative: an error. */
int64_t repeat_count(struct span message, const uint8_t *start, uint32_t number,
                     enum wire_type type, struct err *e);

/* Checks the wire type of a field that was found. */
int wire_expect(const struct field *f, enum wire_type type, const char *what, struct err *e);

#endif
