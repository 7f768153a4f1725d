/* dial.c - see dial.h */
#include "dicom/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/err.h"

/* Most addresses of one name that are tried. */
#define ADDRESSES_MAX 8

/* Waits for a connection that is being made. 0 or an errno. */
static int wait_connected(int fd, int64_t until_ms)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int64_t left = until_ms - clock_mono_ms();
        int n = left > 0 ? poll(&p, 1, left > 1000000 ? 1000000 : (int)left) : 0;
        if (n > 0) {
            int error = 0;
            socklen_t size = sizeof error;
            if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
                return errno;
            return error;
        }
        if (n < 0 && errno != EINTR)
            return errno;
        if (left <= 0)
            return ETIMEDOUT;
    }
}

/* A descriptor, or a negative errno. */
static int connect_to(const struct addrinfo *to, int64_t until_ms)
{
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int error = connect(fd, to->ai_addr, to->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS || error == EINTR)
        error = wait_connected(fd, until_ms);
    if (error == 0)
        return fd;
    close(fd);
    return -error;
}

int dial(const char *host, uint16_t port, int64_t deadline_ms, struct err *e)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    int rc = -EHOSTUNREACH, left = 0;

    snprintf(service, sizeof service, "%u", port);
    int problem = getaddrinfo(host, service, &hints, &found);
    if (problem != 0)
        return err_set(e, ERR_NETWORK, "cannot find the host: %s",
                       problem == EAI_SYSTEM ? strerror(errno) : gai_strerror(problem));
    for (const struct addrinfo *a = found; a != NULL && left < ADDRESSES_MAX; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = found; a != NULL && left > 0; a = a->ai_next, left--) {
        int64_t now = clock_mono_ms();
        rc = connect_to(a, now + (deadline_ms - now) / left);
        if (rc >= 0)
            break;
    }
    freeaddrinfo(found);
    if (rc >= 0)
        return rc;
    return err_set(e, rc == -ETIMEDOUT ? ERR_TIMEOUT : ERR_NETWORK, "cannot connect: %s",
                   strerror(-rc));
}

int dial_door(uint16_t *port, struct err *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make a socket");
    if (bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0) {
        int rc = err_errno(e, errno, "cannot listen on the loopback interface");
        close(fd);
        return rc;
    }
    *port = ntohs(at.sin_port);
    return fd;
}
