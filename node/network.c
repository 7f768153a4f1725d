/* network.c - see network.h */
#include "node/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* Longest text that an error shows of. */
#define SHOWN_MAX 40

static unsigned width(int family)
{
    return family == AF_INET ? 32 : 128;
}

static bool address_parse(const char *text, struct network *out)
{
    for (int i = 0; i < 2; i++) {
        out->family = i == 0 ? AF_INET : AF_INET6;
        if (inet_pton(out->family, text, out->bytes) == 1) {
            out->bits = width(out->family);
            return true;
        }
    }
    return false;
}

/* Clears what is beyond the first n bits. */
static void mask(uint8_t bytes[16], unsigned n)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned kept = n <= 8 * i ? 0 : n - 8 * i >= 8 ? 8 : n - 8 * i;
        bytes[i] &= (uint8_t)(0xff00 >> kept);
    }
}

/* "24": decimal, no zero before it. */
static bool prefix_parse(const char *text, unsigned most, unsigned *out)
{
    size_t n = strlen(text);
    if (n == 0 || n > 3 || text[strspn(text, "0123456789")] != '\0' || (n > 1 && text[0] == '0'))
        return false;
    *out = (unsigned)strtoul(text, NULL, 10);
    return *out <= most;
}

int network_parse(const char *text, struct network *out, struct err *e)
{
    char address[INET6_ADDRSTRLEN] = "", clean[INET6_ADDRSTRLEN];
    struct network n = {.family = AF_UNSPEC};
    const char *slash = strchr(text, '/');
    size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (strcmp(text, "any") == 0) {
        *out = n;
        return 0;
    }
    if (length < sizeof address)
        memcpy(address, text, length);
    if (!address_parse(address, &n))
        return err_set(e, ERR_CONFIG,
                       "expected a numeric address (192.0.2.7), a network (192.0.2.0/24, "
                       "2001:db8::/32) or any, found '%.*s'; a host name would let the DNS decide "
                       "who may call",
                       SHOWN_MAX, text);
    if (n.family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(void *)n.bytes))
        return err_set(e, ERR_CONFIG, "expected an IPv4 address written as one, found '%.*s'",
                       SHOWN_MAX, text);
    if (slash != NULL && !prefix_parse(slash + 1, width(n.family), &n.bits))
        return err_set(e, ERR_CONFIG, "expected a prefix from /0 to /%u, found '%.*s'",
                       width(n.family), SHOWN_MAX, text);
    struct network whole = n;
    mask(n.bytes, n.bits);
    if (memcmp(n.bytes, whole.bytes, sizeof n.bytes) != 0) {
        inet_ntop(n.family, n.bytes, clean, sizeof clean);
        return err_set(e, ERR_CONFIG,
                       "expected %s/%u (that network) or %s (that address alone), found '%.*s'",
                       clean, n.bits, address, SHOWN_MAX, text);
    }
    *out = n;
    return 0;
}

bool network_holds(const struct network *n, const char *address)
{
    struct network a = {.bits = 0};
    if (!address_parse(address, &a))
        return false;
    if (n->family == AF_UNSPEC)
        return true;
    mask(a.bytes, n->bits);
    return a.family == n->family && memcmp(a.bytes, n->bytes, sizeof a.bytes) == 0;
}
