/* scp_serve.h - between scp.c (connections) and scp_serve.c (one association); internal */
#ifndef SPINENODE_DICOM_SCP_SERVE_H
#define SPINENODE_DICOM_SCP_SERVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dicom/association.h"
#include "dicom/scp.h"

struct connection;

/* What all associations share; config has no zeros left. */
struct scp_serve {
    struct scp_config config;
    const struct scp_handler *handler;
    int stop_fd;
    atomic_bool stopped;
};

/* Serves one connection from its first byte to its last. Takes fd. */
void scp_serve(struct scp_serve *s, struct connection *c, int fd, const char *address,
               uint16_t port, int64_t since_ms);

/* Counts the connection as an association; false: there are too many already. */
bool scp_establish(struct connection *c);
uint64_t scp_next_id(struct connection *c);

#endif
