/*
 * find.h - the data sets of the C-FIND that counts a series (PS3.4 annex C, study root)
 *
 * Internal to dicom/: used by scu_count_series().
 */
#ifndef SPINENODE_DICOM_FIND_H
#define SPINENODE_DICOM_FIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

/* Longest identifier that is sent or taken. */
#define FIND_BYTES_MAX 65536

enum find_level { FIND_SERIES, FIND_IMAGE };

struct find_query {
    enum find_level level;
    const char *study;
    const char *series;
};

struct find_result {
    uint32_t matches; /* responses about this series; others are passed over */
    uint32_t number;  /* the sum of NumberOfSeriesRelatedInstances (0020,1209) */
    bool has_number;  /* every match gave it */
};

/* Adds the identifier in implicit VR LE. ERR_INVALID: no UIDs. */
int find_encode(const struct find_query *query, struct buf *out, struct err *e);

/* Adds one response's identifier (implicit VR LE) to result, which starts as zeros. */
int find_decode(const struct find_query *query, const void *bytes, size_t n,
                struct find_result *result, struct err *e);

#endif
