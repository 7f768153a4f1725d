/*
 * tls.h - TLS for DICOM associations, by OpenSSL
 *
 * The profiles of PS3.15 annex B that refuse a downgrade: non-downgrading BCP 195 (B.10) and its
 * successor, BCP 195 with RFC 8996 and 9325 (B.12). TLS 1.2 and 1.3 only; with 1.2 only ECDHE with
 * AES-GCM; no compression, no renegotiation, at least 112 bits of security everywhere. Both sides
 * show certificates unless that is switched off.
 *
 * Refused before anything is sent or accepted, with the file that is to blame: files that are
 * missing, unreadable, no PEM or too large; a key that everybody may read, that is encrypted (there
 * is nobody to ask) or is not the certificate's; certificates that have expired, are not yet valid,
 * or are not made for this side of a connection; authorities that have all expired.
 */
#ifndef SPINENODE_DICOM_TLS_H
#define SPINENODE_DICOM_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "node/base/digest.h"

#ifdef __cplusplus
extern "C" {
#endif

struct err;
struct tls; /* what all associations of one side share; immutable, for any number of threads */

/* Largest file of certificates or key. */
#define TLS_FILE_MAX (4 * 1024 * 1024)

/* Texts may be NULL, which is as "": not given. */
struct tls_config {
    const char *certificate; /* PEM file: ours, then the chain. A client may do without */
    const char *key;         /* PEM file, not encrypted, not readable for everybody */
    const char *authorities; /* PEM file: who signs the peers' certificates */
    const char *peer_name;   /* client: the name or numeric address that the peer's certificate is
                                made out to, if it is not the host that is connected to */
    bool anonymous_peers;    /* server: let peers in that show no certificate */
    bool any_host;           /* client: do not compare the peer's certificate with its host name */
};

/* Which of the files an error is about. */
enum tls_file { TLS_CERTIFICATE, TLS_KEY, TLS_AUTHORITIES };

/* ERR_CONFIG: a file is missing or does not hold what it should: *at tells which (may be NULL). */
int tls_new_server(const struct tls_config *config, struct tls **out, enum tls_file *at,
                   struct err *e);
int tls_new_client(const struct tls_config *config, struct tls **out, enum tls_file *at,
                   struct err *e);
void tls_free(struct tls *t); /* NULL is fine */

/* Until when our own certificate and those that we send with it are valid, the first of them: in
 * seconds since 1970; 0: we show none. */
int64_t tls_not_after(const struct tls *t);

#ifdef __cplusplus
}
#endif
#endif
