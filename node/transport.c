/* transport.c - see transport.h */
#include "node/transport.h"

#include <stdlib.h>

#include "node/base/err.h"

#include "dicom/scu.h"
#include "node/config.h"

struct side {
    struct tls *tls;   /* NULL: plain, or dropped */
    int64_t not_after; /* 0: no certificate of ours */
};

struct transport {
    const struct config *config;
    struct side listener;
    struct side *destinations; /* as config->destinations */
};

static void side_drop(struct side *s)
{
    tls_free(s->tls);
    s->tls = NULL;
}

int transport_new(const struct config *c, struct transport **out, struct transport_fault *fault,
                  struct err *e)
{
    struct transport_fault at = {.destination = -1};
    struct tls_config files;
    struct transport *t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_set(e, ERR_NOMEM, "no memory");
    t->config = c;
    t->destinations = calloc(c->destinations_count + 1, sizeof *t->destinations);
    int rc = t->destinations != NULL ? 0 : err_set(e, ERR_NOMEM, "no memory");
    if (rc == 0 && config_listener_tls(c, &files)) {
        rc = tls_new_server(&files, &t->listener.tls, &at.file, e);
        if (rc == 0)
            t->listener.not_after = tls_not_after(t->listener.tls);
    }
    for (uint32_t i = 0; rc == 0 && i < c->destinations_count; i++) {
        struct side *s = &t->destinations[i];
        if (!config_destination_tls(&c->destinations[i], &files))
            continue;
        at.destination = (int)i;
        rc = tls_new_client(&files, &s->tls, &at.file, e);
        if (rc == 0)
            s->not_after = tls_not_after(s->tls);
    }
    if (rc == 0)
        *out = t;
    else
        transport_free(t);
    if (fault != NULL)
        *fault = at;
    return rc;
}

void transport_keep(struct transport *t, bool listener, bool destinations)
{
    if (!listener)
        side_drop(&t->listener);
    for (uint32_t i = 0; !destinations && i < t->config->destinations_count; i++)
        side_drop(&t->destinations[i]);
}

void transport_free(struct transport *t)
{
    if (t == NULL)
        return;
    if (t->destinations != NULL)
        transport_keep(t, false, false);
    else
        side_drop(&t->listener);
    free(t->destinations);
    free(t);
}

struct tls *transport_listener(const struct transport *t)
{
    return t->listener.tls;
}

void transport_target(const struct transport *t, const struct config_destination *d,
                      int32_t timeout_ms, struct scu_target *out)
{
    *out = (struct scu_target){.host = d->host,
                               .port = (uint16_t)d->port,
                               .called_ae = d->ae_title,
                               .calling_ae = t->config->node.ae_title,
                               .tls = t->destinations[d - t->config->destinations].tls,
                               .connect_ms = timeout_ms,
                               .response_ms = timeout_ms};
}

bool transport_certificate(const struct transport *t, uint32_t i, const char **destination,
                           int64_t *not_after)
{
    if (t->listener.not_after != 0 && i-- == 0) {
        *destination = NULL;
        *not_after = t->listener.not_after;
        return true;
    }
    for (uint32_t k = 0; k < t->config->destinations_count; k++) {
        if (t->destinations[k].not_after == 0 || i-- != 0)
            continue;
        *destination = t->config->destinations[k].name;
        *not_after = t->destinations[k].not_after;
        return true;
    }
    return false;
}
