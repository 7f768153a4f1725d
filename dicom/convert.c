/* convert.c - writes the events of a walk in implicit VR little endian */
#include "dicom/convert.h"

#include <stdlib.h>
#include <string.h>

#include "dicom/walk.h"
#include "node/base/err.h"

#define TAG_ITEM         0xFFFEE000u
#define TAG_ITEM_END     0xFFFEE00Du
#define TAG_SEQUENCE_END 0xFFFEE0DDu

struct out {
    int (*put)(void *ctx, const void *bytes, size_t n, int last, struct err *e);
    void *ctx;
    uint8_t *piece;
    size_t n;
};

static int flush(struct out *o, int last, struct err *e)
{
    int rc = o->put != NULL ? o->put(o->ctx, o->piece, o->n, last, e) : 0;
    o->n = 0;
    return rc;
}

static int add_head(struct out *o, uint32_t tag, uint32_t length, struct err *e)
{
    const uint8_t head[8] = {
        (uint8_t)(tag >> 16),    (uint8_t)(tag >> 24),    (uint8_t)tag,
        (uint8_t)(tag >> 8),     (uint8_t)length,         (uint8_t)(length >> 8),
        (uint8_t)(length >> 16), (uint8_t)(length >> 24),
    };
    int rc = CONVERT_PIECE - o->n < sizeof head ? flush(o, 0, e) : 0;
    if (rc != 0)
        return rc;
    memcpy(o->piece + o->n, head, sizeof head);
    o->n += sizeof head;
    return 0;
}

static int add_value(struct out *o, struct walk *w, uint32_t length, struct err *e)
{
    while (length > 0) {
        size_t got;
        int rc = o->n == CONVERT_PIECE ? flush(o, 0, e) : 0;
        if (rc == 0)
            rc = walk_value(w, o->piece + o->n, CONVERT_PIECE - o->n, &got, e);
        if (rc != 0)
            return rc;
        o->n += got;
        length -= (uint32_t)got;
    }
    return 0;
}

static int add_event(struct out *o, struct walk *w, const struct walk_event *event, struct err *e)
{
    int rc;

    switch (event->kind) {
    case WALK_ELEMENT:
        rc = add_head(o, event->tag, event->length, e);
        return rc == 0 ? add_value(o, w, event->length, e) : rc;
    case WALK_SEQUENCE:
        return add_head(o, event->tag, WALK_UNDEFINED, e);
    case WALK_ITEM:
        return add_head(o, TAG_ITEM, WALK_UNDEFINED, e);
    case WALK_ITEM_END:
        return add_head(o, TAG_ITEM_END, 0, e);
    case WALK_SEQUENCE_END:
        return add_head(o, TAG_SEQUENCE_END, 0, e);
    case WALK_SEQUENCE_NOT:
    case WALK_FRAGMENTS:
    case WALK_FRAGMENT:
    case WALK_FRAGMENTS_END:
        break;
    }
    return err_set(e, ERR_UNSUPPORTED, "the data set cannot be sent in implicit VR");
}

int convert_to_implicit(int fd, uint64_t offset, uint64_t end,
                        int (*put)(void *ctx, const void *bytes, size_t n, int last, struct err *e),
                        void *ctx, struct err *e)
{
    const struct sop_encoding explicit_le = {.explicit_vr = true};
    struct out o = {.put = put, .ctx = ctx, .piece = malloc(CONVERT_PIECE)};
    struct walk_event event;
    struct walk *w = NULL;
    int rc;

    if (o.piece == NULL)
        return err_set(e, ERR_NOMEM, "no memory to convert a data set");
    rc = walk_open_file(fd, offset, end, explicit_le, NULL, &w, e);
    while (rc == 0) {
        rc = walk_next(w, &event, e);
        if (rc <= 0)
            break;
        rc = add_event(&o, w, &event, e);
    }
    if (rc == 0)
        rc = flush(&o, 1, e);
    walk_close(w);
    free(o.piece);
    return rc;
}
