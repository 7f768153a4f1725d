/* wire.c - non-blocking socket, poll() with deadlines, optional TLS */
#include "dicom/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "dicom/tls.h"
#include "dicom/tls_context.h"
#include "node/base/clock.h"
#include "node/base/err.h"

int wire_init(struct wire *w, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->fd = -1;
    w->buffer = malloc(WIRE_BUFFER);
    if (w->buffer == NULL)
        return err_set(e, ERR_NOMEM, "no memory for a connection");
    return 0;
}

void wire_connect(struct wire *w, int fd)
{
    int on = 1;

    w->fd = fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

void wire_fini(struct wire *w)
{
    SSL_free(w->ssl);
    if (w->fd >= 0)
        close(w->fd);
    free(w->buffer);
    memset(w, 0, sizeof *w);
    w->fd = -1;
}

void wire_cancel(struct wire *w)
{
    if (w->fd >= 0)
        shutdown(w->fd, SHUT_RDWR);
}

/* Milliseconds that may still be waited, -1: for ever; *why: what ends then. */
static int64_t remaining(const struct wire *w, int64_t since, enum wire_end *why)
{
    int64_t now = clock_mono_ms();
    int64_t left = -1;

    *why = WIRE_OPEN;
    if (w->idle_ms > 0) {
        left = since + w->idle_ms - now;
        *why = WIRE_IDLE;
        if (left < 0)
            left = 0;
    }
    if (w->deadline_ms > 0 && (left < 0 || w->deadline_ms - now < left)) {
        left = w->deadline_ms - now;
        *why = WIRE_DEADLINE;
        if (left < 0)
            left = 0;
    }
    return left;
}

/* poll() for at most left ms, whatever signals come; the revents of fds[0], 0 when it was time. */
static int poll_until(struct pollfd *fds, nfds_t count, int64_t left)
{
    int64_t until = clock_mono_ms() + left;

    for (;;) {
        int n = poll(fds, count, left < 0 ? -1 : left > 1000000 ? 1000000 : (int)left);
        if (n > 0)
            return n;
        if (n < 0 && errno != EINTR)
            return -1;
        if (left >= 0) {
            left = until - clock_mono_ms();
            if (left <= 0)
                return 0;
        }
    }
}

/* Waits until the socket can be read or written; -1 sets end. */
static int wait_for(struct wire *w, short events)
{
    struct pollfd fd = {.fd = w->fd, .events = events};
    enum wire_end why;
    int64_t left = remaining(w, clock_mono_ms(), &why);

    if (left != 0) {
        int n = poll_until(&fd, 1, left);
        if (n > 0)
            return 0;
        if (n < 0)
            why = WIRE_LOST;
    }
    w->end = why;
    errno = ETIMEDOUT;
    return -1;
}

/* Why OpenSSL gave up: what is wrong with the peer's certificate, else what it met. */
static const char *failure(const SSL *ssl)
{
    long verdict = SSL_get_verify_result(ssl);
    if (verdict != X509_V_OK)
        return X509_verify_cert_error_string(verdict);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason != NULL ? reason : "the connection broke";
}

/* What SSL_get_error() asks for: 1 try again, 0 the peer closed, -1 failed. */
static int tls_verdict(struct wire *w, int result)
{
    switch (SSL_get_error(w->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return wait_for(w, POLLIN) == 0 ? 1 : -1;
    case SSL_ERROR_WANT_WRITE:
        return wait_for(w, POLLOUT) == 0 ? 1 : -1;
    case SSL_ERROR_ZERO_RETURN:
        w->end = WIRE_CLOSED;
        return 0;
    default:
        /* Also a connection that was closed without a close alert: truncation must not pass for
         * an orderly end. */
        w->end = WIRE_TLS;
        w->tls_why = failure(w->ssl);
        errno = EPROTO;
        return -1;
    }
}

static ssize_t read_some(struct wire *w, void *out, size_t n)
{
    /* OpenSSL reports through a queue per thread; what others left there must not be read. */
    for (;;) {
        if (w->ssl != NULL) {
            ERR_clear_error();
            int got = SSL_read(w->ssl, out, n > INT32_MAX ? INT32_MAX : (int)n);
            if (got > 0)
                return got;
            int rc = tls_verdict(w, got);
            if (rc <= 0)
                return rc;
            continue;
        }
        ssize_t got = recv(w->fd, out, n, 0);
        if (got > 0) {
            if (w->quickack) {
                int on = 1;
                setsockopt(w->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
            }
            return got;
        }
        if (got == 0) {
            w->end = WIRE_CLOSED;
            return 0;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            w->end = WIRE_LOST;
            return -1;
        }
        if (wait_for(w, POLLIN) != 0)
            return -1;
    }
}

static bool past_deadline(struct wire *w)
{
    if (w->deadline_ms == 0 || clock_mono_ms() < w->deadline_ms)
        return false;
    w->end = WIRE_DEADLINE;
    errno = ETIMEDOUT;
    return true;
}

ssize_t wire_read(struct wire *w, void *out, size_t n)
{
    if (w->fd < 0)
        return -1;
    if (w->at == w->have) {
        /* A trickle must end too, so the deadline holds even while bytes keep coming. */
        if (past_deadline(w))
            return -1;
        if (n >= WIRE_BUFFER / 4)
            return read_some(w, out, n);
        ssize_t got = read_some(w, w->buffer, WIRE_BUFFER);
        if (got <= 0)
            return got;
        w->at = 0;
        w->have = (size_t)got;
    }
    size_t have = w->have - w->at;
    if (n > have)
        n = have;
    memcpy(out, w->buffer + w->at, n);
    w->at += n;
    return (ssize_t)n;
}

ssize_t wire_write(struct wire *w, const void *bytes, size_t n, bool more)
{
    const char *p = bytes;
    size_t left = n;

    if (w->fd < 0)
        return -1;
    if (past_deadline(w))
        return -1;
    while (left > 0) {
        ssize_t sent;
        if (w->ssl != NULL) {
            ERR_clear_error();
            int result = SSL_write(w->ssl, p, left > INT32_MAX ? INT32_MAX : (int)left);
            if (result <= 0) {
                if (tls_verdict(w, result) <= 0)
                    return -1;
                continue;
            }
            sent = result;
        } else {
            sent = send(w->fd, p, left, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
            if (sent < 0) {
                if (errno == EINTR)
                    continue;
                if (errno != EAGAIN && errno != EWOULDBLOCK) {
                    w->end = WIRE_LOST;
                    return -1;
                }
                if (wait_for(w, POLLOUT) != 0)
                    return -1;
                continue;
            }
        }
        p += sent;
        left -= (size_t)sent;
    }
    return (ssize_t)n;
}

enum wire_wait wire_wait(struct wire *w, int64_t ms, int wake_fd)
{
    struct pollfd fds[2] = {{.fd = w->fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    enum wire_end why;

    if (w->at < w->have || (w->ssl != NULL && SSL_pending(w->ssl) > 0))
        return WIRE_WAIT_READY;
    if (w->fd < 0)
        return WIRE_WAIT_TIMEOUT;
    int64_t left = remaining(w, clock_mono_ms(), &why);
    bool ours = ms >= 0 && (left < 0 || ms < left);
    if (ours)
        left = ms;
    int n = poll_until(fds, 2, left);
    if (n > 0 && fds[1].revents != 0 && wake_fd >= 0)
        return WIRE_WAIT_WOKEN;
    if (n > 0)
        return WIRE_WAIT_READY;
    if (!ours)
        w->end = n < 0 ? WIRE_LOST : why;
    return WIRE_WAIT_TIMEOUT;
}

int wire_handshake(struct wire *w, const struct tls *tls, const char *host)
{
    /* OpenSSL writes without MSG_NOSIGNAL. */
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);

    SSL *ssl = SSL_new(tls->context);
    if (ssl == NULL || SSL_set_fd(ssl, w->fd) != 1)
        goto fail;
    w->ssl = ssl;
    if (host != NULL && !tls->any_host) {
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        const char *name = tls->peer_name != NULL ? tls->peer_name : host;
        if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) != 1 &&
            (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1))
            goto fail;
    }
    for (;;) {
        ERR_clear_error();
        int rc = host != NULL ? SSL_connect(ssl) : SSL_accept(ssl);
        if (rc == 1)
            break;
        rc = tls_verdict(w, rc);
        if (rc <= 0)
            return -1;
        if (past_deadline(w))
            return -1;
    }
    X509 *peer = SSL_get1_peer_certificate(ssl);
    if (peer != NULL) {
        uint8_t digest[DIGEST_BYTES];
        unsigned n = sizeof digest;
        if (X509_digest(peer, EVP_sha256(), digest, &n) == 1)
            digest_to_hex(digest, w->fingerprint);
        X509_free(peer);
    }
    return 0;

fail:
    if (w->ssl == NULL)
        SSL_free(ssl);
    w->end = WIRE_TLS;
    w->tls_why = "no memory";
    return -1;
}
