/* commitment.c - the data sets of N-ACTION and N-EVENT-REPORT for storage commitment */
#include "dicom/commitment.h"

#include <stdlib.h>
#include <string.h>

#include "dicom/walk.h"
#include "node/base/buf.h"
#include "node/base/err.h"

#define TAG_FAILED_SOP_SEQUENCE     0x00081198u
#define TAG_REFERENCED_SOP_SEQUENCE 0x00081199u
#define TAG_REFERENCED_SOP_CLASS    0x00081150u
#define TAG_REFERENCED_SOP_INSTANCE 0x00081155u
#define TAG_TRANSACTION             0x00081195u
#define TAG_FAILURE_REASON          0x00081197u

void commitment_fini(struct commitment *c)
{
    free(c->items);
    memset(c, 0, sizeof *c);
}

static void add_head(struct buf *out, uint32_t tag, uint32_t length)
{
    const uint8_t head[8] = {
        (uint8_t)(tag >> 16),    (uint8_t)(tag >> 24),    (uint8_t)tag,
        (uint8_t)(tag >> 8),     (uint8_t)length,         (uint8_t)(length >> 8),
        (uint8_t)(length >> 16), (uint8_t)(length >> 24),
    };
    buf_add(out, head, sizeof head);
}

static size_t uid_length(const char *uid)
{
    size_t n = strlen(uid);
    return n + (n & 1);
}

static void add_uid(struct buf *out, uint32_t tag, const char *uid)
{
    add_head(out, tag, (uint32_t)uid_length(uid));
    buf_add(out, uid, strlen(uid));
    if (strlen(uid) & 1)
        buf_add(out, "", 1);
}

int commitment_encode(const struct commitment *c, struct buf *out, struct err *e)
{
    if (c->count == 0 || c->count > COMMITMENT_ITEMS_MAX)
        return err_set(e, ERR_LIMIT, "storage commitment for %zu instances: 1 to %d can be asked",
                       c->count, COMMITMENT_ITEMS_MAX);
    if (!uid_is_safe(c->transaction))
        return err_set(e, ERR_INVALID, "storage commitment needs a transaction UID");

    size_t total = 0;
    for (size_t i = 0; i < c->count; i++) {
        const struct commitment_item *item = &c->items[i];
        if (!uid_is_safe(item->sop_class) || !uid_is_safe(item->sop_instance))
            return err_set(e, ERR_INVALID, "storage commitment: instance %zu has no valid UIDs",
                           i + 1);
        total += 8 + 16 + uid_length(item->sop_class) + uid_length(item->sop_instance);
    }
    add_uid(out, TAG_TRANSACTION, c->transaction);
    add_head(out, TAG_REFERENCED_SOP_SEQUENCE, (uint32_t)total);
    for (size_t i = 0; i < c->count; i++) {
        const struct commitment_item *item = &c->items[i];
        add_head(out, 0xFFFEE000u,
                 (uint32_t)(16 + uid_length(item->sop_class) + uid_length(item->sop_instance)));
        add_uid(out, TAG_REFERENCED_SOP_CLASS, item->sop_class);
        add_uid(out, TAG_REFERENCED_SOP_INSTANCE, item->sop_instance);
    }
    if (buf_error(out) != 0)
        return err_set(e, buf_error(out), "storage commitment request grew too large");
    return 0;
}

static int take_uid(struct walk *w, const struct walk_event *event, char out[UID_BYTES],
                    struct err *e)
{
    int rc = walk_text(w, event, out, UID_BYTES, e);
    if (rc == 0 && !uid_is_safe(out))
        rc = err_set(e, ERR_INVALID, "(%04X,%04X) is not a UID", event->tag >> 16,
                     event->tag & 0xFFFF);
    return rc;
}

static int add_item(struct commitment *c, size_t *room, struct commitment_item **out, struct err *e)
{
    if (c->count == COMMITMENT_ITEMS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d instances", COMMITMENT_ITEMS_MAX);
    if (c->count == *room) {
        size_t wider = *room == 0 ? 64 : *room * 2;
        struct commitment_item *items = realloc(c->items, wider * sizeof *items);
        if (items == NULL)
            return err_set(e, ERR_NOMEM, "no memory for %zu instances", wider);
        c->items = items;
        *room = wider;
    }
    *out = &c->items[c->count++];
    memset(*out, 0, sizeof **out);
    return 0;
}

static int decode(struct walk *w, bool big_endian, struct commitment *c, struct err *e)
{
    struct commitment_item *item = NULL;
    struct walk_event event;
    uint32_t sequence = 0; /* the top-level sequence that we are in */
    size_t room = 0;
    int rc;

    while ((rc = walk_next(w, &event, e)) > 0) {
        rc = 0;
        if (event.kind == WALK_SEQUENCE_NOT)
            return err_set(e, ERR_INVALID, "damaged sequence");
        if (event.kind == WALK_SEQUENCE && event.depth == 0)
            sequence = event.tag;
        if (event.depth == 0 && event.kind == WALK_ELEMENT && event.tag == TAG_TRANSACTION)
            rc = take_uid(w, &event, c->transaction, e);
        if (event.depth == 1 &&
            (sequence == TAG_FAILED_SOP_SEQUENCE || sequence == TAG_REFERENCED_SOP_SEQUENCE)) {
            if (event.kind == WALK_ITEM) {
                rc = add_item(c, &room, &item, e);
                if (rc == 0)
                    item->failed = sequence == TAG_FAILED_SOP_SEQUENCE;
            } else if (event.kind == WALK_ITEM_END) {
                if (item->sop_instance[0] == '\0')
                    rc = err_set(e, ERR_INVALID, "an item names no instance");
                item = NULL;
            } else if (event.kind == WALK_ELEMENT && item != NULL) {
                uint8_t us[2];
                size_t got;
                if (event.tag == TAG_REFERENCED_SOP_CLASS) {
                    rc = take_uid(w, &event, item->sop_class, e);
                } else if (event.tag == TAG_REFERENCED_SOP_INSTANCE) {
                    rc = take_uid(w, &event, item->sop_instance, e);
                } else if (event.tag == TAG_FAILURE_REASON && event.length == 2) {
                    rc = walk_value(w, us, 2, &got, e);
                    if (rc == 0)
                        item->reason =
                            (uint16_t)(big_endian ? us[0] << 8 | us[1] : us[1] << 8 | us[0]);
                }
            }
        }
        if (rc != 0)
            return rc;
    }
    if (rc == 0 && c->transaction[0] == '\0')
        return err_set(e, ERR_INVALID, "no transaction UID (0008,1195)");
    return rc;
}

int commitment_decode(const void *bytes, size_t n, const char *transfer_syntax,
                      struct commitment *out, struct err *e)
{
    struct peek_limits limits = {.depth = 4, .inflated_bytes = COMMITMENT_BYTES_MAX};
    struct sop_encoding encoding;
    struct walk *w;

    memset(out, 0, sizeof *out);
    if (n > COMMITMENT_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "storage commitment report of %zu bytes: at most %d are read",
                       n, COMMITMENT_BYTES_MAX);
    if (!sop_encoding(transfer_syntax, &encoding))
        return err_set(e, ERR_UNSUPPORTED, "storage commitment report in an unknown syntax");
    int rc = walk_open_memory(bytes, n, encoding, &limits, &w, e);
    if (rc != 0)
        return rc;
    rc = decode(w, encoding.big_endian, out, e);
    walk_close(w);
    if (rc != 0) {
        commitment_fini(out);
        err_context(e, "cannot read a storage commitment report");
    }
    return rc;
}
