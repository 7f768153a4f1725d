/*
 * association.h - DICOM upper layer (PS3.8) in C terms: DCMTK's ASC_* and DUL_*, nothing above
 *
 * Internal to dicom/. An association belongs to one thread, except association_cancel().
 * DCMTK's own messages are switched off; no exception leaves this file's functions.
 */
#ifndef SPINENODE_DICOM_ASSOCIATION_H
#define SPINENODE_DICOM_ASSOCIATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/sop.h"

#ifdef __cplusplus
extern "C" {
#endif

struct association;
struct err;
struct tls;
struct wire;

/* Largest PDU that we receive (DCMTK's limit) and smallest that we announce. */
#define ASSOCIATION_PDU_MAX 131072
#define ASSOCIATION_PDU_MIN 4096

/* Presentation contexts in one association: odd numbers from 1 to 255. */
#define ASSOCIATION_CONTEXTS_MAX 128

/* Transfer syntaxes of one context that are looked at. */
#define ASSOCIATION_SYNTAXES_MAX 50

enum association_end {
    ASSOCIATION_OPEN,
    ASSOCIATION_RELEASED, /* the peer asked for it: answer with association_release_answer() */
    ASSOCIATION_ABORTED,  /* by the peer */
    ASSOCIATION_LOST,     /* the connection broke or was closed */
    ASSOCIATION_IDLE,     /* no byte for too long */
    ASSOCIATION_SLOW,     /* the deadline passed */
    ASSOCIATION_PROTOCOL, /* the peer sent what is no PDU, or none that belongs here */
    ASSOCIATION_TLS,      /* the TLS handshake failed */
};

/* By role selection (PS3.7 annex D.3.3.4); DEFAULT: the requestor is the SCU. */
enum association_role {
    ASSOCIATION_ROLE_DEFAULT,
    ASSOCIATION_ROLE_SCU,
    ASSOCIATION_ROLE_SCP,
    ASSOCIATION_ROLE_BOTH,
};

struct association_context {
    uint8_t id;
    char abstract_syntax[UID_BYTES];
    char transfer_syntax[UID_BYTES]; /* the accepted one, "" before or if refused */
    bool accepted;
    enum association_role role; /* that the requestor proposed for itself */
};

/* Takes a connected socket (always: it is closed on failure too), waits for the A-ASSOCIATE-RQ.
 * idle_ms and deadline_ms as in wire.h. Blocks; association_cancel() cannot reach it, but
 * shutdown(fd) on a duplicate descriptor can. ERR_NETWORK, ERR_TIMEOUT, ERR_INVALID, ERR_NOMEM. */
int association_receive(int fd, const struct tls *tls, uint32_t pdu_bytes, int64_t idle_ms,
                        int64_t deadline_ms, struct association **out, struct err *e);

/* The contexts that were proposed (before the answer) or accepted (afterwards). */
size_t association_context_count(struct association *a);
int association_context(struct association *a, size_t i, struct association_context *out);
/* Fills syntaxes[][UID_BYTES] with those proposed for context i; returns how many. */
size_t association_proposed(struct association *a, size_t i,
                            char syntaxes[ASSOCIATION_SYNTAXES_MAX][UID_BYTES]);
int association_accept_context(struct association *a, uint8_t id, const char *transfer_syntax,
                               enum association_role role, struct err *e);
/* abstract: it is the SOP class that is not supported, else the transfer syntaxes. */
int association_refuse_context(struct association *a, uint8_t id, bool abstract, struct err *e);
int association_acknowledge(struct association *a, struct err *e);
/* As PS3.8 table 9-21: result 1 permanent, 2 transient; source; reason. */
int association_reject(struct association *a, int result, int source, int reason);

/* What to propose, in the order of context identifiers 1, 3, 5 … */
struct association_offer {
    const char *abstract_syntax;
    const char *transfer_syntax;
};

struct association_request {
    const char *host;
    uint16_t port;
    const char *calling_ae;
    const char *called_ae;
    const struct association_offer *offers;
    size_t offer_count;
    const struct tls *tls;
    int64_t connect_ms; /* to the A-ASSOCIATE-AC */
    int64_t idle_ms;    /* afterwards */
};

/* Connects and negotiates. ERR_PEER_BUSY, ERR_PEER_REFUSED: rejected; ERR_NETWORK, ERR_TIMEOUT;
 * ERR_PEER_REFUSED also when no context was accepted. */
int association_open(const struct association_request *rq, struct association **out, struct err *e);

/* AE titles and so on; borrowed. Printable ASCII only ('?' for other bytes), trimmed. */
const char *association_calling_ae(const struct association *a);
const char *association_called_ae(const struct association *a);
const char *association_implementation(const struct association *a);
struct wire *association_wire(struct association *a);

struct association_pdv {
    uint8_t context;
    bool command;
    bool last;
    const uint8_t *bytes; /* valid until the next read */
    size_t n;
};

/* Are PDVs of the last PDU still unread? */
bool association_buffered(struct association *a);

/* The next PDV. On failure association_end_of() says why. */
int association_read(struct association *a, struct association_pdv *out, struct err *e);
/* One PDV, split as the peer's maximum demands. */
int association_write(struct association *a, uint8_t context, bool command, bool last,
                      const void *bytes, size_t n, struct err *e);

enum association_end association_end_of(const struct association *a);
/* "released", "aborted by peer" … Static storage. */
const char *association_end_text(enum association_end end);

/* Answers the peer's release. */
void association_release_answer(struct association *a);
/* Asks the peer to release and waits for its answer. */
int association_release(struct association *a, struct err *e);
/* Sends A-ABORT. */
void association_abort(struct association *a);
/* Closes and frees; NULL is fine. After a release or rejection by us it waits up to a second for
 * the peer to close first. */
void association_free(struct association *a);

#ifdef __cplusplus
}
#endif
#endif
