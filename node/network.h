/*
 * network.h - numeric addresses and networks in CIDR notation (RFC 4632, RFC 4291), IPv4 and IPv6
 *
 * Host names are refused: what they stand for is decided by whoever answers for the DNS at that
 * moment, and who may send images here must not be.
 */
#ifndef SPINENODE_NETWORK_H
#define SPINENODE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct network {
    int family;        /* AF_INET, AF_INET6, AF_UNSPEC: every address of both */
    unsigned bits;     /* how many of the first of them count */
    uint8_t bytes[16]; /* in network order */
};

/* "192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "any". ERR_CONFIG: it is none of these, or has bits
 * beyond its prefix, or is an IPv4 address in the clothes of IPv6. */
int network_parse(const char *text, struct network *out, struct err *e);

/* Is the numeric address in it? Never true for what is no address. */
bool network_holds(const struct network *n, const char *address);

#endif
