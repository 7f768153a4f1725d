/*
 * scp.c - accepts connections, one thread each, and ends them all in time
 *
 * The main thread only accepts. It keeps a list of the live connections, each with a duplicate of
 * its socket: shutting that down ends a connection from outside, whatever its thread waits for.
 * What an association is told and asks lies in scp_serve.c.
 */
#include "dicom/scp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dicom/scp_serve.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/listen.h"

/* Connections that may be negotiating (or being rejected) beside the associations. When there are
 * more, the oldest of them is dropped: so silent connections cannot keep new ones out. */
#define NEGOTIATING_MAX 64

/* DCMTK, OpenSSL and a file head on the stack stay well below this. */
#define STACK_BYTES (1024 * 1024)

struct connection {
    struct connection *next;
    struct scp *scp;
    int fd;     /* goes to the association */
    int end_fd; /* our duplicate, to shut it down */
    bool negotiating;
    int64_t since_ms;
    char address[ADDRESS_BYTES];
    uint16_t port;
};

struct scp {
    struct scp_serve serve;
    pthread_mutex_t mutex;
    pthread_cond_t gone;            /* a connection ended */
    struct connection *connections; /* newest first */
    unsigned count;
    unsigned established;
    uint64_t last_id;
    /* Each thread joins the one that ended before it, so only the last is left to be joined. */
    pthread_t last;
    bool has_last;
};

static void describe_peer(struct connection *c, const struct sockaddr_storage *from)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;
    const struct sockaddr_in *four = (const struct sockaddr_in *)from;

    if (from->ss_family == AF_INET) {
        inet_ntop(AF_INET, &four->sin_addr, c->address, sizeof c->address);
        c->port = ntohs(four->sin_port);
    } else if (from->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], c->address, sizeof c->address);
        c->port = ntohs(six->sin6_port);
    } else if (from->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &six->sin6_addr, c->address, sizeof c->address);
        c->port = ntohs(six->sin6_port);
    } else {
        snprintf(c->address, sizeof c->address, "unknown");
    }
}

bool scp_establish(struct connection *c)
{
    struct scp *s = c->scp;

    pthread_mutex_lock(&s->mutex);
    bool room = s->established < s->serve.config.associations;
    if (room) {
        s->established++;
        c->negotiating = false;
    }
    pthread_mutex_unlock(&s->mutex);
    return room;
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;
    struct scp *s = c->scp;

    scp_serve(&s->serve, c, c->fd, c->address, c->port, c->since_ms);

    pthread_mutex_lock(&s->mutex);
    struct connection **link = &s->connections;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    s->count--;
    if (!c->negotiating)
        s->established--;
    close(c->end_fd);
    pthread_t before = s->last;
    bool has_before = s->has_last;
    s->last = pthread_self();
    s->has_last = true;
    pthread_cond_broadcast(&s->gone);
    pthread_mutex_unlock(&s->mutex);
    free(c);
    if (has_before)
        pthread_join(before, NULL);
    return NULL;
}

uint64_t scp_next_id(struct connection *c)
{
    struct scp *s = c->scp;
    pthread_mutex_lock(&s->mutex);
    uint64_t id = ++s->last_id;
    pthread_mutex_unlock(&s->mutex);
    return id;
}

/* Waits on gone until the monotonic time; called with the mutex held. */
static void wait_gone(struct scp *s, int64_t until_ms)
{
    struct timespec ts = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    pthread_cond_timedwait(&s->gone, &s->mutex, &ts);
}

/* Sees to it that there is room for one more connection; called with the mutex held. */
static bool make_room(struct scp *s)
{
    unsigned most = s->serve.config.associations + NEGOTIATING_MAX;
    int64_t until = clock_mono_ms() + 200;

    while (s->count >= most && clock_mono_ms() < until) {
        struct connection *oldest = NULL;
        for (struct connection *c = s->connections; c != NULL; c = c->next)
            if (c->negotiating)
                oldest = c;
        if (oldest != NULL)
            shutdown(oldest->end_fd, SHUT_RDWR);
        wait_gone(s, until);
    }
    return s->count < most;
}

static void refuse(struct scp *s, const struct connection *c, const char *why)
{
    if (s->serve.handler->connection_refused != NULL)
        s->serve.handler->connection_refused(s->serve.handler->ctx, c->address, "", why);
}

/* Takes fd. */
static void start_connection(struct scp *s, int fd, const struct sockaddr_storage *from)
{
    struct connection *c = calloc(1, sizeof *c);
    pthread_attr_t attributes;
    pthread_t thread;

    if (c == NULL) {
        close(fd);
        return;
    }
    c->scp = s;
    c->fd = fd;
    c->negotiating = true;
    c->since_ms = clock_mono_ms();
    describe_peer(c, from);
    c->end_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (c->end_fd < 0) {
        refuse(s, c, "no file descriptors left");
        close(fd);
        free(c);
        return;
    }

    pthread_mutex_lock(&s->mutex);
    bool room = make_room(s);
    if (room) {
        c->next = s->connections;
        s->connections = c;
        s->count++;
    }
    pthread_mutex_unlock(&s->mutex);

    int rc = EAGAIN;
    if (room) {
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        rc = pthread_create(&thread, &attributes, connection_main, c);
        pthread_attr_destroy(&attributes);
        if (rc != 0) {
            pthread_mutex_lock(&s->mutex);
            s->connections = c->next; /* only this thread adds, so it is still the first */
            s->count--;
            pthread_mutex_unlock(&s->mutex);
        }
    }
    if (rc != 0) {
        refuse(s, c, room ? "no thread left" : "too many connections");
        close(c->end_fd);
        close(fd);
        free(c);
    }
}

/* Ends connections: those that are negotiating only, or all. */
static void end_connections(struct scp *s, bool all)
{
    pthread_mutex_lock(&s->mutex);
    for (struct connection *c = s->connections; c != NULL; c = c->next)
        if (all || c->negotiating)
            shutdown(c->end_fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->mutex);
}

static void drain(struct scp *s)
{
    end_connections(s, false);
    int64_t until = clock_mono_ms() + s->serve.config.grace_ms;
    pthread_mutex_lock(&s->mutex);
    while (s->count > 0 && clock_mono_ms() < until)
        wait_gone(s, until);
    pthread_mutex_unlock(&s->mutex);

    end_connections(s, true);
    pthread_mutex_lock(&s->mutex);
    while (s->count > 0)
        pthread_cond_wait(&s->gone, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
    if (s->has_last)
        pthread_join(s->last, NULL);
}

static int accept_loop(struct scp *s, int listen_fd, int stop_fd, struct err *e)
{
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = listen_fd, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return err_errno(e, errno, "cannot wait for connections");
        }
        if (fds[0].revents != 0)
            return 0;
        if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
            return err_set(e, ERR_NETWORK, "the listening socket failed");
        struct sockaddr_storage from;
        socklen_t n = sizeof from;
        int fd = accept4(listen_fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC);
        if (fd >= 0) {
            start_connection(s, fd, &from);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* Nothing but time, and the end of silent connections, can help. */
            end_connections(s, false);
            clock_sleep_ms(50);
        } else if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK) {
            return err_errno(e, errno, "cannot accept connections");
        }
        /* All others are about one connection that went away again. */
    }
}

static void set_defaults(struct scp_config *c)
{
    if (c->storage_classes == NULL) {
        c->storage_classes = sop_storage_default;
        c->storage_class_count = sop_storage_default_count;
    }
    if (c->transfer_syntaxes == NULL) {
        c->transfer_syntaxes = sop_syntax_uncompressed;
        c->transfer_syntax_count = sop_syntax_uncompressed_count;
    }
    if (c->associations == 0)
        c->associations = 32;
    if (c->negotiation_ms == 0)
        c->negotiation_ms = 10000;
    if (c->idle_ms == 0)
        c->idle_ms = 60000;
    if (c->message_ms == 0)
        c->message_ms = 1800000;
    if (c->grace_ms == 0)
        c->grace_ms = 5000;
    if (c->instance_bytes == 0)
        c->instance_bytes = UINT64_C(4) << 30;
    if (c->pdu_bytes == 0)
        c->pdu_bytes = ASSOCIATION_PDU_MAX;
    if (c->peek.inflated_bytes == 0)
        c->peek.inflated_bytes = c->instance_bytes;
}

int scp_run(int listen_fd, const struct scp_config *config, const struct scp_handler *handler,
            int stop_fd, struct err *e)
{
    struct scp s = {.serve = {.config = *config, .handler = handler, .stop_fd = stop_fd}};
    pthread_condattr_t monotonic;

    if (handler->authorise == NULL || handler->store_open == NULL || handler->store_done == NULL ||
        handler->store_abort == NULL)
        return err_set(e, ERR_BUG, "the receiver lacks functions of its handler");
    set_defaults(&s.serve.config);
    /* A peer that left between poll() and accept() must not block the others. */
    if (fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) != 0)
        return err_errno(e, errno, "cannot use the listening socket");
    pthread_mutex_init(&s.mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s.gone, &monotonic);
    pthread_condattr_destroy(&monotonic);

    int rc = accept_loop(&s, listen_fd, stop_fd, e);
    s.serve.stopped = true;
    drain(&s);
    pthread_cond_destroy(&s.gone);
    pthread_mutex_destroy(&s.mutex);
    return rc;
}

int scp_listen(const char *address, uint16_t port, struct err *e)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    char service[8];
    const char *shown = address != NULL && address[0] != '\0' ? address : "0.0.0.0";

    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(shown, service, &hints, &found);
    if (rc != 0)
        return err_set(e, ERR_CONFIG, "cannot listen on \"%s\": not a numeric address", shown);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        rc = err_errno(e, errno, "cannot listen on %s port %u", shown, port);
        goto out;
    }
    if (listen_at(fd, found->ai_addr, found->ai_addrlen, 128) != 0) {
        rc = err_errno(e, errno, "cannot listen on %s port %u", shown, port);
        close(fd);
        goto out;
    }
    rc = fd;
out:
    freeaddrinfo(found);
    return rc;
}

uint16_t scp_listen_port(int listen_fd)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof at;

    if (getsockname(listen_fd, (struct sockaddr *)&at, &n) != 0)
        return 0;
    if (at.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&at)->sin6_port);
    return ntohs(((struct sockaddr_in *)&at)->sin_port);
}
