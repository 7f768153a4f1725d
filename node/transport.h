/*
 * transport.h - how a running node speaks with others: plain DICOM or TLS, as configured
 *
 * Certificates and keys are read once, by the supervisor, before the stages are forked: a stage
 * that is started again later does not depend on files that are being replaced at that moment, and
 * a reload whose files are bad in any way leaves everything as it was. Each stage drops the keys
 * that it has no use for. Without TLS in the configuration nothing is loaded.
 */
#ifndef SPINENODE_TRANSPORT_H
#define SPINENODE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "dicom/tls.h"

struct config;
struct config_destination;
struct err;
struct scu_target;
struct transport;

/* A certificate that ends within so many days is worth a warning. */
#define TRANSPORT_WARN_DAYS 30

/* Which file of the configuration an error is about. */
struct transport_fault {
    int destination; /* -1: the listener */
    enum tls_file file;
};

/* Reads what the configuration names; it must outlive the transport. Errors as tls_new_server(),
 * and *fault (may be NULL) tells which file. On failure *out is left alone. */
int transport_new(const struct config *c, struct transport **out, struct transport_fault *fault,
                  struct err *e);
void transport_free(struct transport *t); /* NULL is fine */

/* Drops the keys of the other side, in a stage that needs only one, or none. */
void transport_keep(struct transport *t, bool listener, bool destinations);

/* NULL: plain. Borrowed. */
struct tls *transport_listener(const struct transport *t);

/* How to reach the destination (one of the configuration's); at most timeout_ms for each answer and
 * to connect. All borrowed. */
void transport_target(const struct transport *t, const struct config_destination *d,
                      int32_t timeout_ms, struct scu_target *out);

/* The certificates that we show, one after the other: false after the last. *destination: the name
 * of it, NULL: the listener's. *not_after: seconds since 1970. */
bool transport_certificate(const struct transport *t, uint32_t i, const char **destination,
                           int64_t *not_after);

#endif
