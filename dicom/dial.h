/*
 * dial.h - TCP connections to peers by name or numeric address, IPv4 and IPv6
 *
 * DCMTK 3.6.7 connects by itself, and to IPv4 addresses only. So the connection is made here, and
 * DCMTK is given a door on the loopback interface to connect to: what it got there is then replaced
 * by the real connection, under the same descriptor (association.cc).
 *
 * Internal to dicom/. Any thread.
 */
#ifndef SPINENODE_DICOM_DIAL_H
#define SPINENODE_DICOM_DIAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct err;

/* Tries the addresses of the host, one after the other, each for its share of the time that is left
 * until deadline_ms (clock_mono_ms()). How long a name takes to be looked up is the resolver's
 * matter. Returns a connected descriptor, close-on-exec, or ERR_NETWORK, ERR_TIMEOUT. */
int dial(const char *host, uint16_t port, int64_t deadline_ms, struct err *e);

/* A listening socket on 127.0.0.1, for one connection that nobody accepts. Returns the descriptor
 * and *port, or ERR_*. */
int dial_door(uint16_t *port, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
