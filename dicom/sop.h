/* sop.h - UIDs of SOP classes, transfer syntaxes and well-known instances (PS3.6 annex A) */
#ifndef SPINENODE_DICOM_SOP_H
#define SPINENODE_DICOM_SOP_H

#include <stdbool.h>
#include <stddef.h>

#include "dicom/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOP_VERIFICATION        "1.2.840.10008.1.1"
#define SOP_COMMITMENT_PUSH     "1.2.840.10008.1.20.1"
#define SOP_COMMITMENT_INSTANCE "1.2.840.10008.1.20.1.1" /* the well-known instance */
#define SOP_FIND_STUDY_ROOT     "1.2.840.10008.5.1.4.1.2.2.1"

#define SOP_CR                       "1.2.840.10008.5.1.4.1.1.1"
#define SOP_DX_PRESENTATION          "1.2.840.10008.5.1.4.1.1.1.1"
#define SOP_DX_PROCESSING            "1.2.840.10008.5.1.4.1.1.1.1.1"
#define SOP_MR                       "1.2.840.10008.5.1.4.1.1.4"
#define SOP_ENHANCED_MR              "1.2.840.10008.5.1.4.1.1.4.1"
#define SOP_SECONDARY_CAPTURE        "1.2.840.10008.5.1.4.1.1.7"
#define SOP_SECONDARY_CAPTURE_BYTE   "1.2.840.10008.5.1.4.1.1.7.2" /* multi-frame grayscale byte */
#define SOP_SECONDARY_CAPTURE_WORD   "1.2.840.10008.5.1.4.1.1.7.3" /* multi-frame grayscale word */
#define SOP_SECONDARY_CAPTURE_COLOUR "1.2.840.10008.5.1.4.1.1.7.4" /* multi-frame true colour */

#define SYNTAX_IMPLICIT_LE "1.2.840.10008.1.2"
#define SYNTAX_EXPLICIT_LE "1.2.840.10008.1.2.1"
#define SYNTAX_DEFLATED    "1.2.840.10008.1.2.1.99"
#define SYNTAX_EXPLICIT_BE "1.2.840.10008.1.2.2"

/* Longest AE title, and Error Comment (0000,0902), terminator included (PS3.5 table 6.2-1). */
#define AE_BYTES      17
#define COMMENT_BYTES 65

/* The storage SOP classes that the node takes by default, and the transfer syntaxes in order of
 * preference: explicit LE, implicit LE, explicit BE, deflated. Static storage. */
extern const char *const sop_storage_default[];
extern const size_t sop_storage_default_count;
extern const char *const sop_syntax_uncompressed[];
extern const size_t sop_syntax_uncompressed_count;

/* How a data set in this transfer syntax is encoded. False: not one of those that we read
 * (compressed syntaxes are explicit LE, their pixel data encapsulated: true). */
struct sop_encoding {
    bool explicit_vr;
    bool big_endian;
    bool deflated;
};
bool sop_encoding(const char *transfer_syntax, struct sop_encoding *out);

/* 1…64 digits and dots, no empty component: what may come in, and may stand in a file name. Leading
 * zeros, which PS3.5 clause 9.1 forbids, are let through: devices send them. */
bool uid_is_safe(const char *uid);

#ifdef __cplusplus
}
#endif
#endif
