/*
 * status.h - DIMSE status codes (PS3.7 annex C; PS3.4 annexes B, C, J): names and what to do next
 *
 * One function decides what a sender does with an answer: status_to_err(). Transient means that
 * the very same request may succeed later; permanent means that it must not be repeated unchanged.
 */
#ifndef SPINENODE_DICOM_STATUS_H
#define SPINENODE_DICOM_STATUS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    STATUS_SUCCESS = 0x0000,
    STATUS_PROCESSING_FAILURE = 0x0110,
    STATUS_DUPLICATE_INSTANCE = 0x0111,
    STATUS_NO_SUCH_INSTANCE = 0x0112,
    STATUS_NO_SUCH_SOP_CLASS = 0x0118,
    STATUS_SOP_CLASS_NOT_SUPPORTED = 0x0122,
    STATUS_NOT_AUTHORISED = 0x0124,
    STATUS_UNRECOGNISED_OPERATION = 0x0211,
    STATUS_MISTYPED_ARGUMENT = 0x0212,
    STATUS_RESOURCE_LIMITATION = 0x0213,
    STATUS_OUT_OF_RESOURCES = 0xA700,
    STATUS_DATA_SET_MISMATCH = 0xA900, /* contradicts the command, or lacks a required UID */
    STATUS_CANNOT_UNDERSTAND = 0xC000, /* not a data set in the negotiated transfer syntax */
    STATUS_TRUNCATED = 0xC001,         /* of the "cannot understand" range: ends in the middle */
    STATUS_TOO_DEEP = 0xC002,          /* of that range: sequences nested beyond our limit */
    STATUS_TOO_LARGE = 0xC003,         /* of that range: larger than we take */
    STATUS_COERCED = 0xB000,
    STATUS_CANCELLED = 0xFE00,
    STATUS_PENDING = 0xFF00,
    STATUS_PENDING_WARNING = 0xFF01, /* optional keys were not supported */
};

enum status_kind {
    STATUS_KIND_SUCCESS,
    STATUS_KIND_WARNING, /* done, with a remark to log: Bxxx, 0001, 0107, 0116, 0111 (it has it) */
    STATUS_KIND_PENDING,
    STATUS_KIND_CANCELLED,
    STATUS_KIND_TRANSIENT, /* A7xx, 0110, 0213 */
    STATUS_KIND_PERMANENT, /* everything else */
};

enum status_kind status_kind(uint16_t status);

/* A short name such as "out of resources"; "unknown status" for the rest. Static storage. */
const char *status_name(uint16_t status);

/* 0 for success and warnings; ERR_PEER_BUSY for transient ones; ERR_PEER_REFUSED for the rest. */
int status_to_err(uint16_t status);

#endif
