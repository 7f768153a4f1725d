/*
 * message.h - DIMSE messages on an association: a command set, then perhaps a data set
 *
 * Internal to dicom/. Failures other than those of the association itself are ERR_INVALID: the peer
 * broke the protocol and the association is to be aborted.
 */
#ifndef SPINENODE_DICOM_MESSAGE_H
#define SPINENODE_DICOM_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "dicom/association.h"
#include "dicom/dimse.h"

struct buf;
struct err;

/* Reads the PDVs of one command set. */
int message_read_command(struct association *a, uint8_t *context, struct dimse_command *out,
                         struct err *e);

/* Reads the data set that belongs to the last command, fragment by fragment. take(): 0, or a
 * negative ERR_* that ends the reading (and so the association). */
int message_read_data(struct association *a, uint8_t context,
                      int (*take)(void *ctx, const uint8_t *bytes, size_t n, struct err *e),
                      void *ctx, struct err *e);

/* The same into memory, up to the buffer's maximum (ERR_LIMIT). */
int message_read_buffer(struct association *a, uint8_t context, struct buf *out, struct err *e);

/* Sends a command, and n bytes of data set if it says that one follows. */
int message_send(struct association *a, uint8_t context, const struct dimse_command *c,
                 const void *data, size_t n, struct err *e);

#endif
