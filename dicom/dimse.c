/* dimse.c - the flat reader and writer of command sets */
#include "dicom/dimse.h"

#include <string.h>

#include "node/base/err.h"

/* Elements of group 0000 (PS3.7 table E.1-1). */
enum {
    GROUP_LENGTH = 0x0000,
    AFFECTED_CLASS = 0x0002,
    REQUESTED_CLASS = 0x0003,
    COMMAND_FIELD = 0x0100,
    MESSAGE_ID = 0x0110,
    RESPONDED_ID = 0x0120,
    PRIORITY = 0x0700,
    DATA_SET_TYPE = 0x0800,
    STATUS = 0x0900,
    ERROR_COMMENT = 0x0902,
    AFFECTED_INSTANCE = 0x1000,
    REQUESTED_INSTANCE = 0x1001,
    EVENT_TYPE = 0x1002,
    ACTION_TYPE = 0x1008,
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static int take_number(uint16_t *out, const uint8_t *value, uint32_t n, uint16_t element,
                       struct err *e)
{
    if (n != 2)
        return err_set(e, ERR_INVALID, "command element (0000,%04X) has %u bytes instead of 2",
                       element, n);
    *out = get16(value);
    return 0;
}

static int take_uid(char out[UID_BYTES], const uint8_t *value, uint32_t n, uint16_t element,
                    struct err *e)
{
    char uid[UID_BYTES] = "";

    while (n > 0 && (value[n - 1] == '\0' || value[n - 1] == ' '))
        n--;
    if (n == 0)
        return 0;
    if (n < UID_BYTES)
        memcpy(uid, value, n);
    if (n >= UID_BYTES || !uid_is_safe(uid))
        return err_set(e, ERR_INVALID, "command element (0000,%04X) is not a UID", element);
    memcpy(out, uid, UID_BYTES);
    return 0;
}

static void take_comment(char out[COMMENT_BYTES], const uint8_t *value, uint32_t n)
{
    while (n > 0 && (value[n - 1] == '\0' || value[n - 1] == ' '))
        n--;
    if (n >= COMMENT_BYTES)
        n = COMMENT_BYTES - 1;
    for (uint32_t i = 0; i < n; i++)
        out[i] = value[i] >= 0x20 && value[i] < 0x7F ? (char)value[i] : '?';
    out[n] = '\0';
}

int dimse_parse(const uint8_t *bytes, size_t n, struct dimse_command *out, struct err *e)
{
    struct dimse_command c = {.field = 0};
    int last = -1;
    bool has_field = false, has_type = false;
    uint16_t type = 0;

    if (n > DIMSE_COMMAND_MAX)
        return err_set(e, ERR_LIMIT, "command set of %zu bytes: at most %d are read", n,
                       DIMSE_COMMAND_MAX);
    for (size_t at = 0; at < n;) {
        if (n - at < 8)
            return err_set(e, ERR_INVALID, "truncated command set");
        uint16_t group = get16(bytes + at);
        uint16_t element = get16(bytes + at + 2);
        uint32_t length = get32(bytes + at + 4);
        at += 8;
        if (group != 0x0000)
            return err_set(e, ERR_INVALID, "element (%04X,%04X) in a command set", group, element);
        if (element <= last)
            return err_set(e, ERR_INVALID, "command element (0000,%04X) out of order", element);
        last = element;
        if (length > n - at)
            return err_set(e, ERR_INVALID, "command element (0000,%04X) is longer than the rest",
                           element);
        const uint8_t *value = bytes + at;
        at += length;

        int rc = 0;
        switch (element) {
        case AFFECTED_CLASS:
            rc = take_uid(c.affected_class, value, length, element, e);
            break;
        case REQUESTED_CLASS:
            rc = take_uid(c.requested_class, value, length, element, e);
            break;
        case COMMAND_FIELD:
            rc = take_number(&c.field, value, length, element, e);
            has_field = true;
            break;
        case MESSAGE_ID:
            rc = take_number(&c.message_id, value, length, element, e);
            c.has |= DIMSE_HAS_MESSAGE_ID;
            break;
        case RESPONDED_ID:
            rc = take_number(&c.responded_id, value, length, element, e);
            c.has |= DIMSE_HAS_RESPONDED_ID;
            break;
        case PRIORITY:
            rc = take_number(&c.priority, value, length, element, e);
            c.has |= DIMSE_HAS_PRIORITY;
            break;
        case DATA_SET_TYPE:
            rc = take_number(&type, value, length, element, e);
            has_type = true;
            break;
        case STATUS:
            rc = take_number(&c.status, value, length, element, e);
            c.has |= DIMSE_HAS_STATUS;
            break;
        case ERROR_COMMENT:
            take_comment(c.comment, value, length);
            break;
        case AFFECTED_INSTANCE:
            rc = take_uid(c.affected_instance, value, length, element, e);
            break;
        case REQUESTED_INSTANCE:
            rc = take_uid(c.requested_instance, value, length, element, e);
            break;
        case EVENT_TYPE:
            rc = take_number(&c.event_type, value, length, element, e);
            c.has |= DIMSE_HAS_EVENT_TYPE;
            break;
        case ACTION_TYPE:
            rc = take_number(&c.action_type, value, length, element, e);
            c.has |= DIMSE_HAS_ACTION_TYPE;
            break;
        default: /* also the group length: the PDVs said already where the command set ends */
            break;
        }
        if (rc != 0)
            return rc;
    }
    if (!has_field || !has_type)
        return err_set(e, ERR_INVALID, "command set without %s",
                       has_field ? "data set type (0000,0800)" : "command field (0000,0100)");
    bool response = (c.field & DIMSE_RESPONSE) != 0;
    if (response && (c.has & (DIMSE_HAS_STATUS | DIMSE_HAS_RESPONDED_ID)) !=
                        (DIMSE_HAS_STATUS | DIMSE_HAS_RESPONDED_ID))
        return err_set(e, ERR_INVALID, "response without status or message ID");
    if (!response && c.field != DIMSE_C_CANCEL_RQ && (c.has & DIMSE_HAS_MESSAGE_ID) == 0)
        return err_set(e, ERR_INVALID, "request without message ID (0000,0110)");
    c.data_set = type != DIMSE_NO_DATA_SET;
    *out = c;
    return 0;
}

static uint8_t *put(uint8_t *p, uint16_t element, const void *value, size_t n)
{
    uint8_t head[8] = {
        0, 0, (uint8_t)element, (uint8_t)(element >> 8), (uint8_t)n, (uint8_t)(n >> 8), 0, 0};
    memcpy(p, head, sizeof head);
    memcpy(p + 8, value, n);
    return p + 8 + n;
}

static uint8_t *put_number(uint8_t *p, uint16_t element, uint16_t v)
{
    uint8_t value[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    return put(p, element, value, 2);
}

/* pad: what makes the length even. */
static uint8_t *put_text(uint8_t *p, uint16_t element, const char *text, char pad)
{
    char value[UID_BYTES + 1];
    size_t n = strnlen(text, UID_BYTES - 1);

    if (n == 0)
        return p;
    memcpy(value, text, n);
    if (n & 1)
        value[n++] = pad;
    return put(p, element, value, n);
}

size_t dimse_encode(const struct dimse_command *c, uint8_t out[DIMSE_COMMAND_MAX])
{
    uint8_t *p = out + 12; /* behind the group length */

    p = put_text(p, AFFECTED_CLASS, c->affected_class, '\0');
    p = put_text(p, REQUESTED_CLASS, c->requested_class, '\0');
    p = put_number(p, COMMAND_FIELD, c->field);
    if (c->has & DIMSE_HAS_MESSAGE_ID)
        p = put_number(p, MESSAGE_ID, c->message_id);
    if (c->has & DIMSE_HAS_RESPONDED_ID)
        p = put_number(p, RESPONDED_ID, c->responded_id);
    if (c->has & DIMSE_HAS_PRIORITY)
        p = put_number(p, PRIORITY, c->priority);
    p = put_number(p, DATA_SET_TYPE, c->data_set ? 0x0001 : DIMSE_NO_DATA_SET);
    if (c->has & DIMSE_HAS_STATUS)
        p = put_number(p, STATUS, c->status);
    p = put_text(p, ERROR_COMMENT, c->comment, ' ');
    p = put_text(p, AFFECTED_INSTANCE, c->affected_instance, '\0');
    p = put_text(p, REQUESTED_INSTANCE, c->requested_instance, '\0');
    if (c->has & DIMSE_HAS_EVENT_TYPE)
        p = put_number(p, EVENT_TYPE, c->event_type);
    if (c->has & DIMSE_HAS_ACTION_TYPE)
        p = put_number(p, ACTION_TYPE, c->action_type);

    size_t rest = (size_t)(p - (out + 12));
    uint8_t length[4] = {(uint8_t)rest, (uint8_t)(rest >> 8), 0, 0};
    put(out, GROUP_LENGTH, length, 4);
    return (size_t)(p - out);
}

const char *dimse_name(uint16_t field)
{
    switch (field) {
    case DIMSE_C_STORE_RQ:
        return "C-STORE-RQ";
    case DIMSE_C_STORE_RSP:
        return "C-STORE-RSP";
    case DIMSE_C_GET_RQ:
        return "C-GET-RQ";
    case DIMSE_C_FIND_RQ:
        return "C-FIND-RQ";
    case DIMSE_C_FIND_RSP:
        return "C-FIND-RSP";
    case DIMSE_C_MOVE_RQ:
        return "C-MOVE-RQ";
    case DIMSE_C_ECHO_RQ:
        return "C-ECHO-RQ";
    case DIMSE_C_ECHO_RSP:
        return "C-ECHO-RSP";
    case DIMSE_N_EVENT_REPORT_RQ:
        return "N-EVENT-REPORT-RQ";
    case DIMSE_N_EVENT_REPORT_RSP:
        return "N-EVENT-REPORT-RSP";
    case DIMSE_N_ACTION_RQ:
        return "N-ACTION-RQ";
    case DIMSE_N_ACTION_RSP:
        return "N-ACTION-RSP";
    case DIMSE_C_CANCEL_RQ:
        return "C-CANCEL-RQ";
    default:
        return "unknown command";
    }
}
