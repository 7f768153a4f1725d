/* find.c - the identifiers of C-FIND requests and responses */
#include "dicom/find.h"

#include <stdlib.h>
#include <string.h>

#include "dicom/walk.h"
#include "node/base/buf.h"
#include "node/base/err.h"

#define TAG_SOP_INSTANCE 0x00080018u
#define TAG_LEVEL        0x00080052u
#define TAG_STUDY        0x0020000Du
#define TAG_SERIES       0x0020000Eu
#define TAG_NUMBER       0x00201209u

static void add(struct buf *out, uint32_t tag, const char *value, char pad)
{
    size_t n = strlen(value);
    size_t padded = n + (n & 1);
    const uint8_t head[8] = {
        (uint8_t)(tag >> 16),
        (uint8_t)(tag >> 24),
        (uint8_t)tag,
        (uint8_t)(tag >> 8),
        (uint8_t)padded,
        (uint8_t)(padded >> 8),
        0,
        0,
    };
    buf_add(out, head, sizeof head);
    buf_add(out, value, n);
    if (n & 1)
        buf_add(out, &pad, 1);
}

int find_encode(const struct find_query *query, struct buf *out, struct err *e)
{
    bool series = query->level == FIND_SERIES;

    if (!uid_is_safe(query->study) || !uid_is_safe(query->series))
        return err_set(e, ERR_INVALID, "a series can only be counted by its study and series UID");
    if (!series)
        add(out, TAG_SOP_INSTANCE, "", ' ');
    add(out, TAG_LEVEL, series ? "SERIES" : "IMAGE", ' ');
    add(out, TAG_STUDY, query->study, '\0');
    add(out, TAG_SERIES, query->series, '\0');
    if (series)
        add(out, TAG_NUMBER, "", ' ');
    return buf_error(out) == 0 ? 0 : err_set(e, buf_error(out), "no memory for a query");
}

/* An integer string; false if it is none or negative. */
static bool parse_number(const char *text, uint32_t *out)
{
    char *end;
    while (*text == ' ')
        text++;
    long v = strtol(text, &end, 10);
    if (end == text || *end != '\0' || v < 0 || v > 0x7FFFFFFF)
        return false;
    *out = (uint32_t)v;
    return true;
}

int find_decode(const struct find_query *query, const void *bytes, size_t n,
                struct find_result *result, struct err *e)
{
    struct peek_limits limits = {.depth = 4};
    struct sop_encoding implicit = {.explicit_vr = false};
    struct walk_event event;
    struct walk *w;
    char series[UID_BYTES] = "";
    uint32_t number = 0;
    bool has_number = false;

    int rc = walk_open_memory(bytes, n, implicit, &limits, &w, e);
    if (rc != 0)
        return rc;
    while ((rc = walk_next(w, &event, e)) > 0) {
        char text[UID_BYTES] = "";
        if (event.kind != WALK_ELEMENT || event.depth != 0 || event.length == 0)
            continue;
        if (event.tag == TAG_SERIES) {
            rc = walk_text(w, &event, series, sizeof series, e);
        } else if (event.tag == TAG_NUMBER) {
            rc = walk_text(w, &event, text, sizeof text, e);
            if (rc == 0)
                has_number = parse_number(text, &number);
        }
        if (rc < 0)
            break;
    }
    walk_close(w);
    if (rc < 0)
        return err_context(e, "cannot read a C-FIND response");
    /* A peer that ignores our key answers about other series too. */
    if (series[0] != '\0' && strcmp(series, query->series) != 0)
        return 0;
    result->has_number = has_number && (result->matches == 0 || result->has_number);
    result->matches++;
    result->number += number;
    return 0;
}
