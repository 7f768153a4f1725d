/*
 * config_tls.c - the keys for TLS: what they must agree on, what their files must hold
 *
 * TLS is on where there is what it cannot do without: our certificate at the listener, authorities
 * for a destination. Half of it is an error, never plain DICOM.
 */
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

#include "dicom/tls.h"
#include "node/config.h"
#include "node/config_schema.h"
#include "node/transport.h"

static bool given(const char *text)
{
    return *text != '\0';
}

static int check_listener(const struct config_listener_tls *l, struct config_text *t, struct err *e)
{
    if (!given(l->certificate)) {
        if (given(l->key) || given(l->authorities) || l->clients != CONFIG_CLIENTS_REQUIRED)
            return config_text_error(t, e, "node.tls.certificate",
                                     "expected the file of this node's certificate, which TLS "
                                     "cannot do without");
        return 0;
    }
    if (!given(l->key))
        return config_text_error(t, e, "node.tls.key",
                                 "expected the file of the certificate's key");
    if (l->clients == CONFIG_CLIENTS_NONE && given(l->authorities))
        return config_text_error(
            t, e, "node.tls.authorities",
            "with clients: none nobody is checked by them; remove this key, or "
            "say clients: required");
    if (l->clients != CONFIG_CLIENTS_NONE && !given(l->authorities))
        return config_text_error(t, e, "node.tls.authorities",
                                 "expected the file of the authorities that callers' certificates "
                                 "come from (clients: none takes callers without)");
    return 0;
}

static int check_destination(const struct config_destination_tls *d, uint32_t at,
                             struct config_text *t, struct err *e)
{
    char key[CONFIG_KEY_BYTES];
    if (!given(d->authorities) && (given(d->certificate) || given(d->key) || given(d->peer_name))) {
        snprintf(key, sizeof key, "destinations[%u].tls.authorities", at);
        return config_text_error(t, e, key,
                                 "expected the file of the authorities that the destination's "
                                 "certificate comes from, which TLS cannot do without");
    }
    if (given(d->certificate) != given(d->key)) {
        const char *missing = given(d->key) ? "certificate" : "key";
        snprintf(key, sizeof key, "destinations[%u].tls.%s", at, missing);
        return config_text_error(t, e, key, "expected certificate and key, or neither");
    }
    return 0;
}

int config_tls_check(const struct config *c, struct config_text *t, struct err *e)
{
    int rc = check_listener(&c->node.tls, t, e);
    for (uint32_t i = 0; rc == 0 && i < c->destinations_count; i++)
        rc = check_destination(&c->destinations[i].tls, i, t, e);
    return rc;
}

int config_tls_check_files(const struct config *c, struct config_text *t, struct transport **out,
                           struct err *e)
{
    static const char *const keys[] = {
        [TLS_CERTIFICATE] = "certificate", [TLS_KEY] = "key", [TLS_AUTHORITIES] = "authorities"};
    struct transport_fault at;
    struct err why;
    char key[CONFIG_KEY_BYTES];
    int rc = transport_new(c, out, &at, &why);
    if (rc == 0)
        return 0;
    if (rc != ERR_CONFIG)
        return err_set(e, rc, "%s", why.text);
    if (at.destination < 0)
        snprintf(key, sizeof key, "node.tls.%s", keys[at.file]);
    else
        snprintf(key, sizeof key, "destinations[%d].tls.%s", at.destination, keys[at.file]);
    return config_text_error(t, e, key, "%s", why.text);
}

bool config_listener_tls(const struct config *c, struct tls_config *out)
{
    const struct config_listener_tls *l = &c->node.tls;
    *out = (struct tls_config){.certificate = l->certificate,
                               .key = l->key,
                               .authorities = l->authorities,
                               .anonymous_peers = l->clients != CONFIG_CLIENTS_REQUIRED};
    return given(l->certificate);
}

bool config_destination_tls(const struct config_destination *d, struct tls_config *out)
{
    *out = (struct tls_config){.certificate = d->tls.certificate,
                               .key = d->tls.key,
                               .authorities = d->tls.authorities,
                               .peer_name = d->tls.peer_name};
    return given(d->tls.authorities);
}
