/*
 * listen.h - a server's socket on an address that may be free in a moment only
 */
#ifndef SPINENODE_BASE_LISTEN_H
#define SPINENODE_BASE_LISTEN_H

#include <sys/socket.h>

/* bind() and listen() of a stream socket. A node that was killed just now may still have processes
 * that are about to end and hold the address: while it is in use, it is asked for again, for
 * LISTEN_WAIT_MS at most. 0, or -1 and errno. */
int listen_at(int fd, const struct sockaddr *address, socklen_t length, int backlog);

#define LISTEN_WAIT_MS 2000

#endif
