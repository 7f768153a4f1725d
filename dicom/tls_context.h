/* tls_context.h - what tls.c makes and wire.c uses */
#ifndef SPINENODE_DICOM_TLS_CONTEXT_H
#define SPINENODE_DICOM_TLS_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/ssl.h>

struct tls {
    SSL_CTX *context;
    bool any_host;
    char *peer_name; /* NULL: the host that is connected to */
    int64_t not_after;
};

#endif
