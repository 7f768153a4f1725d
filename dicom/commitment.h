/*
 * commitment.h - storage commitment (PS3.4 annex J): what is asked and what is answered
 *
 * The answer (N-EVENT-REPORT) names the transaction and, per instance, whether the peer has taken
 * responsibility. It may come on the association that asked or on a new one in the other direction.
 */
#ifndef SPINENODE_DICOM_COMMITMENT_H
#define SPINENODE_DICOM_COMMITMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/sop.h"

struct buf;
struct err;

/* Most instances in one request or report; longest data set of a report. */
#define COMMITMENT_ITEMS_MAX 20000
#define COMMITMENT_BYTES_MAX (8 * 1024 * 1024)

struct commitment_item {
    char sop_class[UID_BYTES];
    char sop_instance[UID_BYTES];
    bool failed;
    uint16_t reason; /* FailureReason (0008,1197), 0 if committed or not given */
};

struct commitment {
    char transaction[UID_BYTES];
    struct commitment_item *items;
    size_t count;
};

void commitment_fini(struct commitment *c);

/* Adds the action information of an N-ACTION request, implicit VR LE, to out. */
int commitment_encode(const struct commitment *c, struct buf *out, struct err *e);

/* Reads an event report's data set. On failure *out is empty. ERR_INVALID, ERR_LIMIT, ERR_NOMEM. */
int commitment_decode(const void *bytes, size_t n, const char *transfer_syntax,
                      struct commitment *out, struct err *e);

#endif
