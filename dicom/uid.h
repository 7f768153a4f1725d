/*
 * uid.h - unique identifiers that follow from what they name
 *
 * The same inputs give the same UID on any machine, so work done twice makes the same objects.
 */
#ifndef SPINENODE_DICOM_UID_H
#define SPINENODE_DICOM_UID_H

#include <stdbool.h>
#include <stddef.h>

struct err;

/* Longest UID, terminator included (PS3.5 clause 9). */
#define UID_BYTES 65

/* The node's implementation, for the file meta header (PS3.10) and association user information. */
#define UID_IMPLEMENTATION_CLASS   "2.25.150360320641422521371115194093375562821"
#define UID_IMPLEMENTATION_VERSION "SPINENODE_0_1"

/*
 * Writes "2.25." and, in decimal, the first 128 bits of SHA-256 over salt and the n parts (each
 * with its NUL, so ("a","bc") differs from ("ab","c")), made a UUID of version 8 (RFC 9562
 * clause 5.8, six bits fixed) as PS3.5 B.2 wants a UUID there. parts[i] must not be NULL.
 */
int uid_derive(char out[UID_BYTES], const char *salt, const char *const *parts, size_t n,
               struct err *e);

/* Digits and dots, components without leading zeros, at most 64 characters (PS3.5 clause 9.1). */
bool uid_is_valid(const char *uid);

#endif
