/* message.c - assembles PDVs into messages, bounded */
#include "dicom/message.h"

#include <string.h>

#include "node/base/buf.h"
#include "node/base/err.h"

int message_read_command(struct association *a, uint8_t *context, struct dimse_command *out,
                         struct err *e)
{
    uint8_t bytes[DIMSE_COMMAND_MAX];
    size_t n = 0;
    struct association_pdv pdv;

    do {
        int rc = association_read(a, &pdv, e);
        if (rc != 0)
            return rc;
        if (!pdv.command)
            return err_set(e, ERR_INVALID, "the peer sent data where a command was due");
        if (n == 0)
            *context = pdv.context;
        else if (*context != pdv.context)
            return err_set(e, ERR_INVALID, "the peer changed the context within a command");
        if (pdv.n > sizeof bytes - n)
            return err_set(e, ERR_LIMIT, "the peer sent a command set of more than %d bytes",
                           DIMSE_COMMAND_MAX);
        /* An empty fragment that is not the last brings nothing and could come for ever. */
        if (pdv.n == 0 && !pdv.last)
            return err_set(e, ERR_INVALID, "the peer sent an empty fragment");
        memcpy(bytes + n, pdv.bytes, pdv.n);
        n += pdv.n;
    } while (!pdv.last);
    return dimse_parse(bytes, n, out, e);
}

int message_read_data(struct association *a, uint8_t context,
                      int (*take)(void *ctx, const uint8_t *bytes, size_t n, struct err *e),
                      void *ctx, struct err *e)
{
    struct association_pdv pdv;

    do {
        int rc = association_read(a, &pdv, e);
        if (rc != 0)
            return rc;
        if (pdv.command || pdv.context != context)
            return err_set(e, ERR_INVALID, "the peer sent %s within a data set",
                           pdv.command ? "a command" : "another context");
        rc = take(ctx, pdv.bytes, pdv.n, e);
        if (rc != 0)
            return rc;
    } while (!pdv.last);
    return 0;
}

static int take_buffer(void *ctx, const uint8_t *bytes, size_t n, struct err *e)
{
    struct buf *out = ctx;
    buf_add(out, bytes, n);
    if (buf_error(out) != 0)
        return err_set(e, buf_error(out), "the peer sent a data set of more than %zu bytes",
                       out->max);
    return 0;
}

int message_read_buffer(struct association *a, uint8_t context, struct buf *out, struct err *e)
{
    return message_read_data(a, context, take_buffer, out, e);
}

int message_send(struct association *a, uint8_t context, const struct dimse_command *c,
                 const void *data, size_t n, struct err *e)
{
    uint8_t bytes[DIMSE_COMMAND_MAX];
    size_t used = dimse_encode(c, bytes);
    int rc = association_write(a, context, true, true, bytes, used, e);
    if (rc == 0 && c->data_set)
        rc = association_write(a, context, false, true, data, n, e);
    return rc;
}
