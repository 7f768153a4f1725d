/* status.c - DIMSE status codes: one table, from PS3.7 annex C and the service classes of PS3.4 */
#include "dicom/status.h"

#include <stddef.h>

#include "node/base/err.h"

struct entry {
    uint16_t mask; /* which bits of the status must be as in value */
    uint16_t value;
    enum status_kind kind;
    const char *name;
};

/* The first entry that fits counts, so ranges stand behind their members. */
static const struct entry table[] = {
    {0xFFFF, STATUS_SUCCESS, STATUS_KIND_SUCCESS, "success"},
    {0xFFFF, 0x0001, STATUS_KIND_WARNING, "requested optional attributes are not supported"},
    {0xFFFF, 0x0105, STATUS_KIND_PERMANENT, "no such attribute"},
    {0xFFFF, 0x0106, STATUS_KIND_PERMANENT, "invalid attribute value"},
    {0xFFFF, 0x0107, STATUS_KIND_WARNING, "attribute list error"},
    {0xFFFF, STATUS_PROCESSING_FAILURE, STATUS_KIND_TRANSIENT, "processing failure"},
    /* The sender asked to store it and the receiver has it: nothing is left to do. */
    {0xFFFF, STATUS_DUPLICATE_INSTANCE, STATUS_KIND_WARNING, "duplicate SOP instance"},
    {0xFFFF, STATUS_NO_SUCH_INSTANCE, STATUS_KIND_PERMANENT, "no such SOP instance"},
    {0xFFFF, 0x0113, STATUS_KIND_PERMANENT, "no such event type"},
    {0xFFFF, 0x0114, STATUS_KIND_PERMANENT, "no such argument"},
    {0xFFFF, 0x0115, STATUS_KIND_PERMANENT, "invalid argument value"},
    {0xFFFF, 0x0116, STATUS_KIND_WARNING, "attribute value out of range"},
    {0xFFFF, 0x0117, STATUS_KIND_PERMANENT, "invalid SOP instance"},
    {0xFFFF, STATUS_NO_SUCH_SOP_CLASS, STATUS_KIND_PERMANENT, "no such SOP class"},
    {0xFFFF, 0x0119, STATUS_KIND_PERMANENT, "class-instance conflict"},
    {0xFFFF, 0x0120, STATUS_KIND_PERMANENT, "missing attribute"},
    {0xFFFF, 0x0121, STATUS_KIND_PERMANENT, "missing attribute value"},
    {0xFFFF, STATUS_SOP_CLASS_NOT_SUPPORTED, STATUS_KIND_PERMANENT, "SOP class not supported"},
    {0xFFFF, 0x0123, STATUS_KIND_PERMANENT, "no such action type"},
    {0xFFFF, STATUS_NOT_AUTHORISED, STATUS_KIND_PERMANENT, "not authorised"},
    {0xFFFF, 0x0210, STATUS_KIND_PERMANENT, "duplicate invocation"},
    {0xFFFF, STATUS_UNRECOGNISED_OPERATION, STATUS_KIND_PERMANENT, "unrecognised operation"},
    {0xFFFF, STATUS_MISTYPED_ARGUMENT, STATUS_KIND_PERMANENT, "mistyped argument"},
    {0xFFFF, STATUS_RESOURCE_LIMITATION, STATUS_KIND_TRANSIENT, "resource limitation"},
    {0xFF00, STATUS_OUT_OF_RESOURCES, STATUS_KIND_TRANSIENT, "out of resources"},
    {0xFF00, 0xA800, STATUS_KIND_PERMANENT, "SOP class not supported"},
    {0xFF00, STATUS_DATA_SET_MISMATCH, STATUS_KIND_PERMANENT, "data set does not match SOP class"},
    {0xF000, STATUS_COERCED, STATUS_KIND_WARNING, "stored with changes"},
    {0xF000, STATUS_CANNOT_UNDERSTAND, STATUS_KIND_PERMANENT, "cannot understand"},
    {0xFFFF, STATUS_CANCELLED, STATUS_KIND_CANCELLED, "cancelled"},
    {0xFFFF, STATUS_PENDING, STATUS_KIND_PENDING, "pending"},
    {0xFFFF, STATUS_PENDING_WARNING, STATUS_KIND_PENDING, "pending"},
};

static const struct entry *find(uint16_t status)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if ((status & table[i].mask) == table[i].value)
            return &table[i];
    return NULL;
}

enum status_kind status_kind(uint16_t status)
{
    const struct entry *entry = find(status);
    return entry != NULL ? entry->kind : STATUS_KIND_PERMANENT;
}

const char *status_name(uint16_t status)
{
    const struct entry *entry = find(status);
    return entry != NULL ? entry->name : "unknown status";
}

int status_to_err(uint16_t status)
{
    switch (status_kind(status)) {
    case STATUS_KIND_SUCCESS:
    case STATUS_KIND_WARNING:
        return 0;
    case STATUS_KIND_TRANSIENT:
        return ERR_PEER_BUSY;
    case STATUS_KIND_PENDING:
    case STATUS_KIND_CANCELLED:
    case STATUS_KIND_PERMANENT:
        break;
    }
    return ERR_PEER_REFUSED;
}
