/*
 * scp.h - the network edge: takes associations, answers C-ECHO, receives C-STORE and commitment
 *
 * Guarantees
 *   - One thread per association; a silent or slow connection hinders no other. Negotiation, idle
 *     time and the time for one message are bounded.
 *   - The data set is written unchanged, behind a file meta header, to the descriptor that the
 *     handler opened; every write is checked. Before store_done() it has been walked (peek.h):
 *     lengths, nesting, UIDs against the command.
 *   - The status that store_done() returns is what the sender gets. Nothing is answered before.
 *   - Each successful store_open() is followed by exactly one store_done() or store_abort().
 * Refuses
 *   - callers that authorise() rejects; a called AE title that is not ours; more associations than
 *     the limit (rejected-transient, local limit exceeded);
 *   - contexts for other SOP classes or transfer syntaxes; C-STORE whose class is not the context's
 *     (0122); data sets beyond the limit (C003), broken (C0xx), contradictory (A900).
 *
 * The library does not log; the handler sees all that is worth a line.
 */
#ifndef SPINENODE_DICOM_SCP_H
#define SPINENODE_DICOM_SCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/commitment.h"
#include "dicom/instance.h"
#include "dicom/peek.h"

struct err;
struct tls;

/* Names a TLS peer by its certificate: lower case hexadecimal SHA-256 of the DER; "" without TLS
 * or without a client certificate. */
#define SCP_FINGERPRINT_BYTES DIGEST_HEX

struct scp_peer {
    uint64_t id; /* of this association, unique in the process, for logs */
    char calling_ae[AE_BYTES];
    char called_ae[AE_BYTES];
    char address[ADDRESS_BYTES]; /* numeric; IPv4 callers on an IPv6 socket appear as IPv4 */
    uint16_t port;
    char implementation[AE_BYTES]; /* implementation version name, printable ASCII, "" if absent */
    char fingerprint[SCP_FINGERPRINT_BYTES];
    void *user; /* the handler's own, NULL at authorise(); theirs to free in association_end() */
};

/* Why an association is rejected (PS3.8 table 9-21). */
enum scp_reject {
    SCP_REJECT_NO_REASON,   /* permanent, user, no reason given */
    SCP_REJECT_CALLING_AE,  /* permanent, calling AE title not recognised */
    SCP_REJECT_CALLED_AE,   /* permanent, called AE title not recognised */
    SCP_REJECT_CONGESTION,  /* transient, temporary congestion: try again later */
    SCP_REJECT_LOCAL_LIMIT, /* transient, local limit exceeded */
};

struct scp_store_rq {
    char sop_class[UID_BYTES];
    char sop_instance[UID_BYTES];
    char transfer_syntax[UID_BYTES];
    uint16_t message_id;
};

/* Where one data set goes. */
struct scp_sink {
    int fd;                /* open for reading and writing, at offset 0, empty. The handler closes
                              it, in store_done() or store_abort() */
    char path[PATH_BYTES]; /* copied into struct instance */
    void *token;           /* the handler's own */
};

/* What happened on an association, for its end. */
struct scp_counts {
    uint32_t stored; /* answered with success or a warning */
    uint32_t failed; /* answered with a failure */
    uint64_t bytes;  /* data set bytes received */
    const char *end; /* "released", "aborted by peer", "connection lost", "idle too long",
                        "message too slow", "protocol error", "stopped". Static storage */
};

/* All functions are called from association threads, several at once; authorise and store_* must
 * be given, the others may be NULL. None may call back into this module. */
struct scp_handler {
    void *ctx;

    /* May this caller associate? 0, or a negative number and *why. */
    int (*authorise)(void *ctx, struct scp_peer *peer, enum scp_reject *why);

    /* Opens a file for an announced instance. 0 and *sink; or the status to refuse it with, with
     * a comment for the sender. The data set is then read and dropped. */
    uint16_t (*store_open)(void *ctx, struct scp_peer *peer, const struct scp_store_rq *rq,
                           struct scp_sink *sink, char comment[COMMENT_BYTES]);

    /* The file is complete, written (not synced) and walked. Returns the status to answer. */
    uint16_t (*store_done)(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                           const struct instance *instance, char comment[COMMENT_BYTES]);

    /* It will not be: the connection broke (status 0), or the data set is refused with status and
     * comment. rq is as at store_open(). */
    void (*store_abort)(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                        const struct scp_store_rq *rq, uint16_t status, const char *comment);

    /* A storage commitment report came. Returns the status to answer. NULL: not supported. */
    uint16_t (*commitment)(void *ctx, struct scp_peer *peer, const struct commitment *report);

    void (*echo)(void *ctx, struct scp_peer *peer);

    /* The association is over. Always follows a successful authorise(). */
    void (*association_end)(void *ctx, struct scp_peer *peer, const struct scp_counts *counts);

    /* A connection that never became an association: why, in words without data from the peer.
     * address is numeric. */
    void (*connection_refused)(void *ctx, const char *address, const char *calling_ae,
                               const char *why);
};

/* All texts are borrowed for the time of scp_run(). Zeros mean the default in brackets. */
struct scp_config {
    const char *ae_title;               /* the called AE title that we answer to; "" or NULL: any */
    const char *const *storage_classes; /* NULL: sop_storage_default */
    size_t storage_class_count;
    const char *const
        *transfer_syntaxes; /* in order of preference; NULL: sop_syntax_uncompressed */
    size_t transfer_syntax_count;
    struct tls *tls;         /* NULL: plain TCP */
    unsigned associations;   /* at once [32] */
    int64_t negotiation_ms;  /* from TCP accept to A-ASSOCIATE-AC, TLS handshake included [10000] */
    int64_t idle_ms;         /* without a byte [60000] */
    int64_t message_ms;      /* for one whole message, so that a trickle ends too [1800000] */
    int64_t grace_ms;        /* at stop: for messages that are under way [5000] */
    uint64_t instance_bytes; /* longest data set [4 GiB] */
    uint32_t pdu_bytes;      /* longest PDU that we receive [131072], 4096…131072 */
    bool digest;             /* compute instance.sha256 while receiving */
    struct peek_limits peek;
};

/* Serves until stop_fd becomes readable (and stays so: a pipe or eventfd that nobody reads from).
 * listen_fd: a listening TCP socket; borrowed. At stop: accepts no more, ends idle associations,
 * lets messages that are under way finish within grace_ms, aborts the rest, joins all threads.
 * Returns 0 after a stop; ERR_* if it could not start or the listening socket failed. */
int scp_run(int listen_fd, const struct scp_config *config, const struct scp_handler *handler,
            int stop_fd, struct err *e);

/* Opens a listening socket for scp_run(): numeric address ("" or "0.0.0.0", "::"), SO_REUSEADDR.
 * port 0: any; scp_listen_port() tells. Returns the descriptor or a negative ERR_*. */
int scp_listen(const char *address, uint16_t port, struct err *e);
uint16_t scp_listen_port(int listen_fd);

#endif
