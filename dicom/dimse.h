/*
 * dimse.h - DIMSE command sets (PS3.7 clauses 6.3, 9.3, 10.3 and annex E): read and written flat
 *
 * A command set is a short list of elements of group 0000 in implicit VR little endian. It holds no
 * sequences, so none are looked for: nothing here recurses, and DIMSE_COMMAND_MAX bounds all.
 *
 * Refused: longer ones, groups other than 0000, elements not in ascending order (so none comes
 * twice), lengths beyond the end, numbers and texts of the wrong size.
 */
#ifndef SPINENODE_DICOM_DIMSE_H
#define SPINENODE_DICOM_DIMSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/sop.h"

struct err;

/* Longest command set. The longest that the standard makes is well below 1 KiB. */
#define DIMSE_COMMAND_MAX 16384

/* Command Field (0000,0100), PS3.7 annex E.1. A response is its request with this bit set. */
#define DIMSE_RESPONSE 0x8000
enum {
    DIMSE_C_STORE_RQ = 0x0001,
    DIMSE_C_STORE_RSP = 0x8001,
    DIMSE_C_GET_RQ = 0x0010,
    DIMSE_C_FIND_RQ = 0x0020,
    DIMSE_C_FIND_RSP = 0x8020,
    DIMSE_C_MOVE_RQ = 0x0021,
    DIMSE_C_ECHO_RQ = 0x0030,
    DIMSE_C_ECHO_RSP = 0x8030,
    DIMSE_N_EVENT_REPORT_RQ = 0x0100,
    DIMSE_N_EVENT_REPORT_RSP = 0x8100,
    DIMSE_N_ACTION_RQ = 0x0130,
    DIMSE_N_ACTION_RSP = 0x8130,
    DIMSE_C_CANCEL_RQ = 0x0FFF,
};

/* Command Data Set Type (0000,0800): this value says that no data set follows. */
#define DIMSE_NO_DATA_SET 0x0101

/* Which optional elements were there, or are to be written. */
enum {
    DIMSE_HAS_STATUS = 1 << 0,
    DIMSE_HAS_PRIORITY = 1 << 1,
    DIMSE_HAS_EVENT_TYPE = 1 << 2,
    DIMSE_HAS_ACTION_TYPE = 1 << 3,
    DIMSE_HAS_MESSAGE_ID = 1 << 4,
    DIMSE_HAS_RESPONDED_ID = 1 << 5,
};

struct dimse_command {
    uint16_t field;
    uint16_t message_id;   /* of requests */
    uint16_t responded_id; /* of responses */
    uint16_t priority;
    uint16_t status;
    uint16_t event_type;
    uint16_t action_type;
    unsigned has;
    bool data_set;                  /* one follows */
    char affected_class[UID_BYTES]; /* texts: "" = not there */
    char requested_class[UID_BYTES];
    char affected_instance[UID_BYTES];
    char requested_instance[UID_BYTES];
    char comment[COMMENT_BYTES]; /* printable ASCII; other bytes become '?' */
};

/* ERR_INVALID, ERR_LIMIT. Elements that are not listed above are passed over. */
int dimse_parse(const uint8_t *bytes, size_t n, struct dimse_command *out, struct err *e);

/* Never fails for UIDs and comments that are strings. Returns the length. */
size_t dimse_encode(const struct dimse_command *c, uint8_t out[DIMSE_COMMAND_MAX]);

/* "C-STORE-RQ" and so on; "unknown command". Static storage. */
const char *dimse_name(uint16_t field);

#endif
