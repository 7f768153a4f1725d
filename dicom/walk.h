/*
 * walk.h - goes through a data set, element by element, without recursion (PS3.5 clause 7)
 *
 * For bytes that nobody vouches for: every length is checked against what encloses it, nesting and
 * the number of elements are bounded, memory is constant. Explicit LE and BE, implicit LE, deflated
 * (PS3.5 annex A.5), encapsulated pixel data, UN of undefined length (PS3.5 clause 6.2.2).
 *
 *     walk_open_memory(&w, bytes, n, &encoding, &limits);
 *     while ((rc = walk_next(w, &event, e)) > 0) …
 *
 * Internal to dicom/: peek, commitment, find and conversion are built on it.
 */
#ifndef SPINENODE_DICOM_WALK_H
#define SPINENODE_DICOM_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/peek.h"
#include "dicom/sop.h"

struct err;
struct walk;

enum walk_kind {
    WALK_ELEMENT,  /* a value of known length; walk_value() may read it */
    WALK_SEQUENCE, /* items follow, then WALK_SEQUENCE_END */
    WALK_ITEM,     /* elements follow, then WALK_ITEM_END */
    WALK_ITEM_END,
    WALK_SEQUENCE_END,
    WALK_SEQUENCE_NOT, /* the innermost WALK_SEQUENCE whose `guessed` is set was plain bytes: all
                          events since it are void; the walk goes on behind it */
    WALK_FRAGMENTS,    /* encapsulated pixel data; fragments follow as WALK_FRAGMENT */
    WALK_FRAGMENT,     /* one fragment; walk_value() may read it */
    WALK_FRAGMENTS_END,
};

struct walk_event {
    enum walk_kind kind;
    uint32_t tag;    /* group << 16 | element; of the sequence for the _END kinds */
    char vr[3];      /* "" in implicit VR */
    uint32_t length; /* of an element or fragment; WALK_UNDEFINED for sequences without one */
    unsigned depth;  /* sequences around it: 0 at the top level */
    bool guessed;    /* implicit VR: defined length, taken for a sequence by its first bytes */
};
#define WALK_UNDEFINED 0xFFFFFFFFu

/* Starts on memory (borrowed) or on [offset, end) of fd (borrowed, by pread). limits may be NULL.
 * ERR_NOMEM. */
int walk_open_memory(const void *bytes, size_t n, struct sop_encoding encoding,
                     const struct peek_limits *limits, struct walk **out, struct err *e);
int walk_open_file(int fd, uint64_t offset, uint64_t end, struct sop_encoding encoding,
                   const struct peek_limits *limits, struct walk **out, struct err *e);
void walk_close(struct walk *w);

/* 1: *event; 0: the data set is at its end, complete; negative ERR_*, and walk_status() says how
 * a DIMSE answer would put it (STATUS_CANNOT_UNDERSTAND, _TRUNCATED, _TOO_DEEP, _TOO_LARGE). */
int walk_next(struct walk *w, struct walk_event *event, struct err *e);
uint16_t walk_status(const struct walk *w);
uint64_t walk_elements(const struct walk *w);

/* Reads up to max bytes of the value of the last WALK_ELEMENT or WALK_FRAGMENT, from where the
 * last call ended; *got < max only at its end. What is not read is skipped. */
int walk_value(struct walk *w, void *out, size_t max, size_t *got, struct err *e);

/* The whole value as text, trailing spaces and NULs cut. ERR_LIMIT: does not fit in size;
 * ERR_INVALID: NUL inside. */
int walk_text(struct walk *w, const struct walk_event *event, char *out, size_t size,
              struct err *e);

#endif
