/*
 * peek.h - looks through a data set before any recursive parser may
 *
 * Walks the whole data set iteratively, in bounded memory and time, in implicit LE, explicit LE,
 * explicit BE, deflated, and compressed syntaxes (explicit LE with encapsulated pixel data). After
 * success: every length lies within the file, every sequence and item is closed, nesting is at
 * most `depth`, and the four UIDs are each there once and well formed. Values are not read
 * except these.
 *
 * In implicit VR a sequence of defined length cannot be told from other values without a
 * dictionary: values that begin like one are walked for their depth; if that walk fails they are
 * taken as plain bytes.
 */
#ifndef SPINENODE_DICOM_PEEK_H
#define SPINENODE_DICOM_PEEK_H

#include <stddef.h>
#include <stdint.h>

#include "dicom/sop.h"

#ifdef __cplusplus
extern "C" {
#endif

struct err;

struct peek_limits {
    unsigned depth;          /* nested sequences; 0 = PEEK_DEPTH */
    uint64_t elements;       /* in all levels together; 0 = PEEK_ELEMENTS */
    uint64_t inflated_bytes; /* of a deflated data set, unpacked; 0 = PEEK_INFLATED */
};
#define PEEK_DEPTH     32
#define PEEK_DEPTH_MAX 64
#define PEEK_ELEMENTS  (8u * 1024 * 1024)
#define PEEK_INFLATED  (1ull * 1024 * 1024 * 1024)

struct peek {
    char sop_class[UID_BYTES];
    char sop_instance[UID_BYTES];
    char study[UID_BYTES];
    char series[UID_BYTES];
    uint64_t elements;
    unsigned depth; /* deepest nesting seen */
    int status;     /* after failure: the DIMSE status to answer, 0xA900 or 0xC0xx */
};

/* Walks the data set at [offset, end) of fd. limits may be NULL. ERR_INVALID: broken, truncated or
 * without a UID; ERR_LIMIT: too deep, too many elements, inflates to too much; ERR_UNSUPPORTED:
 * unknown transfer syntax; ERR_IO. */
int peek_file(int fd, uint64_t offset, uint64_t end, const char *transfer_syntax,
              const struct peek_limits *limits, struct peek *out, struct err *e);

/* The same on memory. */
int peek_memory(const void *bytes, size_t n, const char *transfer_syntax,
                const struct peek_limits *limits, struct peek *out, struct err *e);

/* A whole Part-10 file: head, then data set; checks that they agree. */
int peek_part10(const char *path, const struct peek_limits *limits, struct peek *out,
                struct err *e);

#ifdef __cplusplus
}
#endif
#endif
