/*
 * tls.h - TLS for DICOM associations (PS3.15 annex B.9, BCP 195 without downgrade), by OpenSSL
 *
 * TLS 1.2 and 1.3 only; with 1.2 only ECDHE with AES-GCM; no compression, no renegotiation.
 * Both sides show certificates unless that is switched off. An AE title is no authentication:
 * callers are known by the fingerprint of their certificate.
 */
#ifndef SPINENODE_DICOM_TLS_H
#define SPINENODE_DICOM_TLS_H

#include <stdbool.h>

#include "node/base/digest.h"

struct err;
struct tls; /* what all associations of one side share; immutable, for any number of threads */

struct tls_config {
    const char *certificate; /* PEM file: ours, then the chain */
    const char *key;         /* PEM file, not encrypted */
    const char *authorities; /* PEM file: who signs the peers' certificates */
    bool anonymous_peers;    /* server: let peers in that show no certificate */
    bool any_host;           /* client: do not compare the peer's certificate with its host name */
};

/* ERR_CONFIG: a file is missing or does not hold what it should. */
int tls_new_server(const struct tls_config *config, struct tls **out, struct err *e);
int tls_new_client(const struct tls_config *config, struct tls **out, struct err *e);
void tls_free(struct tls *t);

#endif
