/*
 * scu.h - asks other nodes: C-ECHO, C-STORE, C-FIND (counting), storage commitment
 *
 * One struct scu is one association, used by one thread. Every answer has a deadline. Errors tell
 * transient (ERR_NETWORK, ERR_TIMEOUT, ERR_PEER_BUSY) from permanent (ERR_PEER_REFUSED): see
 * err_is_transient(). After ERR_NETWORK, ERR_TIMEOUT or ERR_INVALID the association is over; only
 * scu_close() may follow.
 *
 * Outgoing connections are IPv4 and IPv6; the addresses of a name are tried in turn.
 */
#ifndef SPINENODE_DICOM_SCU_H
#define SPINENODE_DICOM_SCU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/commitment.h"
#include "dicom/sop.h"

struct err;
struct scu;
struct tls;

/* Most presentation contexts in one association (PS3.8: odd numbers 1…255). */
#define SCU_CONTEXTS_MAX 128

struct scu_target {
    const char *host; /* name or numeric address */
    uint16_t port;
    const char *called_ae;
    const char *calling_ae;
    struct tls *tls;     /* NULL: plain TCP */
    int64_t connect_ms;  /* to an association; 0 = 10000 */
    int64_t response_ms; /* for each answer and while sending without progress; 0 = 60000 */
};

/* One abstract syntax with the transfer syntaxes that we offer for it, best first: each pair is
 * proposed in a context of its own, so that the peer's choice cannot exclude the others. */
struct scu_offer {
    const char *sop_class;
    const char *const *transfer_syntaxes;
    size_t transfer_syntax_count;
};

/* Connects and negotiates. ERR_PEER_REFUSED: rejected for good (AE title not recognised …) or no
 * context accepted; ERR_PEER_BUSY: rejected for now; ERR_NETWORK, ERR_TIMEOUT; ERR_LIMIT: too many
 * contexts. */
int scu_open(const struct scu_target *target, const struct scu_offer *offers, size_t count,
             struct scu **out, struct err *e);

/* Offers for common uses; static storage. */
extern const struct scu_offer scu_offer_echo;
extern const struct scu_offer scu_offer_find;       /* study root */
extern const struct scu_offer scu_offer_commitment; /* push model */

/* Did the peer accept this pair? */
bool scu_accepts(const struct scu *s, const char *sop_class, const char *transfer_syntax);

int scu_echo(struct scu *s, struct err *e);

struct scu_answer {
    uint16_t status;             /* the DIMSE status; meaningful unless the network failed */
    bool warning;                /* success with a remark (Bxxx …) */
    char comment[COMMENT_BYTES]; /* from the peer: do not log unescaped; "" if none */
};

/* Sends a Part-10 file, its data set bit for bit; where the peer accepted implicit LE alone, one in
 * explicit LE is converted on its way. 0: stored (look at answer->warning).
 * ERR_PEER_REFUSED: no accepted context, or a permanent status. ERR_PEER_BUSY: a transient one.
 * ERR_NOT_FOUND, ERR_IO, ERR_INVALID: about the file; the association is still good unless
 * scu_broken(). answer may be NULL. */
int scu_store(struct scu *s, const char *path, struct scu_answer *answer, struct err *e);

/* How many instances does the peer have of this series? By NumberOfSeriesRelatedInstances
 * (0020,1209) at SERIES level; where the peer does not give that, by counting at IMAGE level
 * (at most SCU_COUNT_MAX). A series that is not there counts 0. */
#define SCU_COUNT_MAX 100000
int scu_count_series(struct scu *s, const char *study, const char *series, uint32_t *count,
                     struct err *e);

/* Asks the peer to commit to the instances. 0: it accepted the request; the answer comes later,
 * by the scp's commitment() or scu_wait_report(). */
int scu_commit(struct scu *s, const struct commitment *request, struct scu_answer *answer,
               struct err *e);

/* Waits for a report on this association and acknowledges it. ERR_TIMEOUT: none came (the
 * association is still good). *out is to be freed with commitment_fini(). */
int scu_wait_report(struct scu *s, int64_t ms, struct commitment *out, struct err *e);

/* True when the association is over. */
bool scu_broken(const struct scu *s);

/* Releases the association in order (aborts if it is broken) and frees it. NULL is fine. */
void scu_close(struct scu *s);

#endif
