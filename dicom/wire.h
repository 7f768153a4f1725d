/*
 * wire.h - one TCP connection, plain or TLS, on which nothing can last for ever
 *
 * Each read and write ends by data, by the peer, by wire_cancel() from another thread, when no byte
 * moved for idle_ms, or at the absolute deadline. TCP_NODELAY is set; TCP_QUICKACK is re-armed on
 * every read where asked (a peer with Nagle's algorithm would else wait 40 ms for our ACK).
 *
 * Internal to dicom/. Not thread-safe but for wire_cancel().
 */
#ifndef SPINENODE_DICOM_WIRE_H
#define SPINENODE_DICOM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct err;
struct tls;

enum wire_end {
    WIRE_OPEN,
    WIRE_CLOSED,   /* by the peer */
    WIRE_LOST,     /* a socket error, such as a reset */
    WIRE_IDLE,     /* no byte for idle_ms */
    WIRE_DEADLINE, /* the deadline passed */
    WIRE_TLS,      /* the handshake or the TLS layer failed */
};

#define WIRE_BUFFER 65536

struct wire {
    int fd; /* owned; -1: not yet connected */
    void *ssl;
    int64_t deadline_ms; /* clock_mono_ms(), 0: none */
    int64_t idle_ms;     /* 0: no limit */
    bool quickack;
    enum wire_end end;
    const char *tls_why; /* at WIRE_TLS: why; static storage, nothing of the peer's in it */
    size_t at, have;     /* what was read ahead */
    unsigned char *buffer;
    char fingerprint[65]; /* of the peer's certificate, after the handshake */
};

/* Clears w and allocates its buffer. ERR_NOMEM. */
int wire_init(struct wire *w, struct err *e);
/* Takes fd and sets it up. */
void wire_connect(struct wire *w, int fd);
/* Closes and frees. */
void wire_fini(struct wire *w);

/* Does the TLS handshake within the deadline. host: compared with the certificate; NULL: server. */
int wire_handshake(struct wire *w, const struct tls *tls, const char *host);

/* Like recv(2): n > 0, 0 when the peer closed, -1 (errno is never EINTR); w->end says why. */
ssize_t wire_read(struct wire *w, void *out, size_t n);
/* Writes all: n or -1. more: further bytes follow at once. */
ssize_t wire_write(struct wire *w, const void *bytes, size_t n, bool more);

/* Waits for a byte to read, at most ms (negative: only idle and deadline count), or for wake_fd
 * (-1: none) to be readable. */
enum wire_wait { WIRE_WAIT_READY, WIRE_WAIT_TIMEOUT, WIRE_WAIT_WOKEN };
enum wire_wait wire_wait(struct wire *w, int64_t ms, int wake_fd);

/* Ends all traffic from any thread; the caller sees to it that w is not freed meanwhile. */
void wire_cancel(struct wire *w);

#ifdef __cplusplus
}
#endif
#endif
