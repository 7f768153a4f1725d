/*
 * part10.h - the head of a DICOM file: preamble, "DICM", file meta information (PS3.10 clause 7)
 *
 * Written and read in C, bounded; the data set behind it is copied bit for bit and never looked at
 * here.
 */
#ifndef SPINENODE_DICOM_PART10_H
#define SPINENODE_DICOM_PART10_H

#include <stddef.h>
#include <stdint.h>

#include "dicom/sop.h"

#ifdef __cplusplus
extern "C" {
#endif

struct err;

/* Longest head that is written or read, preamble included. Files of others may hold private
 * information in the file meta group; beyond this they are refused. */
#define PART10_HEAD_MAX 65536

struct part10 {
    char sop_class[UID_BYTES];       /* (0002,0002) */
    char sop_instance[UID_BYTES];    /* (0002,0003) */
    char transfer_syntax[UID_BYTES]; /* (0002,0010) */
    char source_ae[AE_BYTES];        /* (0002,0016), "" for none */
    uint64_t data_set;               /* offset of the data set in the file; set by the reader */
};

/* Encodes the head. ERR_INVALID if a UID is none; *used is its length. */
int part10_encode(const struct part10 *head, uint8_t out[PART10_HEAD_MAX], size_t *used,
                  struct err *e);

/* Reads the head of the file at offset 0 of fd, by pread. ERR_INVALID: no DICOM file, truncated,
 * no transfer syntax; ERR_LIMIT: head too long. UIDs that are absent are "". */
int part10_read(int fd, struct part10 *out, struct err *e);

/* The same from memory: bytes holds the first n bytes of the file. */
int part10_decode(const uint8_t *bytes, size_t n, struct part10 *out, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
