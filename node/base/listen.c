/* listen.c - see listen.h */
#include "node/base/listen.h"

#include <errno.h>
#include <stdbool.h>

#include "node/base/clock.h"

#define PAUSE_MS 20

int listen_at(int fd, const struct sockaddr *address, socklen_t length, int backlog)
{
    int on = 1;
    bool bound = false;
    int64_t end = clock_mono_ms() + LISTEN_WAIT_MS;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    for (;;) {
        bound = bound || bind(fd, address, length) == 0;
        if (bound && listen(fd, backlog) == 0)
            return 0;
        if (errno != EADDRINUSE || clock_mono_ms() >= end)
            return -1;
        clock_sleep_ms(PAUSE_MS);
    }
}
