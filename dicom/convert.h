/*
 * convert.h - a data set from explicit to implicit VR little endian, streamed (PS3.5 clause 7.1)
 *
 * Implicit LE is the one transfer syntax that every peer must take (PS3.5 clause 10.1), so what is
 * stored in explicit LE can be sent to any. Values go through unchanged; sequences and items get
 * undefined lengths, since implicit heads are shorter.
 *
 * Internal to dicom/.
 */
#ifndef SPINENODE_DICOM_CONVERT_H
#define SPINENODE_DICOM_CONVERT_H

#include <stddef.h>
#include <stdint.h>

struct err;

/* Reads [offset, end) of fd, explicit LE, and hands the converted bytes to put() in pieces of at
 * most CONVERT_PIECE, `last` with the last one. put NULL: only try whether it can be done.
 * ERR_UNSUPPORTED: encapsulated pixel data; else as walk.h, or what put() returned. */
#define CONVERT_PIECE 262144
int convert_to_implicit(int fd, uint64_t offset, uint64_t end,
                        int (*put)(void *ctx, const void *bytes, size_t n, int last, struct err *e),
                        void *ctx, struct err *e);

#endif
