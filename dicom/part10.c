/* part10.c - preamble, "DICM" and file meta information, always explicit VR little endian */
#include "dicom/part10.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "node/base/err.h"

#define PREAMBLE 128

/* (0002,0000) File Meta Information Group Length: tag, "UL", 4, value. */
#define GROUP_LENGTH_AT (PREAMBLE + 4)
#define META_AT         (GROUP_LENGTH_AT + 12)

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint8_t *put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    return p + 2;
}

static uint8_t *put_text(uint8_t *p, uint16_t element, const char *vr, const char *text)
{
    size_t n = strlen(text);
    size_t padded = n + (n & 1);

    p = put16(p, 0x0002);
    p = put16(p, element);
    *p++ = (uint8_t)vr[0];
    *p++ = (uint8_t)vr[1];
    p = put16(p, (uint32_t)padded);
    memcpy(p, text, n);
    if (n & 1)
        p[n] = vr[0] == 'U' ? 0 : ' '; /* UIDs are padded with NUL, texts with a space */
    return p + padded;
}

int part10_encode(const struct part10 *head, uint8_t out[PART10_HEAD_MAX], size_t *used,
                  struct err *e)
{
    if (!uid_is_safe(head->sop_class) || !uid_is_safe(head->sop_instance) ||
        !uid_is_safe(head->transfer_syntax))
        return err_set(e, ERR_INVALID,
                       "cannot write a DICOM file head: SOP class, SOP instance and transfer "
                       "syntax must be UIDs");

    memset(out, 0, META_AT);
    memcpy(out + PREAMBLE, "DICM", 4);

    uint8_t *p = out + META_AT;
    static const uint8_t version[] = {0x02, 0x00, 0x01, 0x00, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1};
    memcpy(p, version, sizeof version);
    p += sizeof version;
    p = put_text(p, 0x0002, "UI", head->sop_class);
    p = put_text(p, 0x0003, "UI", head->sop_instance);
    p = put_text(p, 0x0010, "UI", head->transfer_syntax);
    p = put_text(p, 0x0012, "UI", UID_IMPLEMENTATION_CLASS);
    p = put_text(p, 0x0013, "SH", UID_IMPLEMENTATION_VERSION);
    if (head->source_ae[0] != '\0')
        p = put_text(p, 0x0016, "AE", head->source_ae);

    uint8_t *g = put16(out + GROUP_LENGTH_AT, 0x0002);
    g = put16(g, 0x0000);
    *g++ = 'U';
    *g++ = 'L';
    g = put16(g, 4);
    g = put16(g, (uint32_t)(p - (out + META_AT)));
    put16(g, 0);
    *used = (size_t)(p - out);
    return 0;
}

/* Copies a padded text without its padding; false if it does not fit. */
static bool take_text(char *out, size_t size, const uint8_t *value, size_t n)
{
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\0'))
        n--;
    if (n >= size || memchr(value, '\0', n) != NULL)
        return false;
    memcpy(out, value, n);
    out[n] = '\0';
    return true;
}

int part10_decode(const uint8_t *bytes, size_t n, struct part10 *out, struct err *e)
{
    struct part10 r = {.data_set = 0};

    if (n < META_AT || memcmp(bytes + PREAMBLE, "DICM", 4) != 0)
        return err_set(e, ERR_INVALID, "not a DICOM file: no \"DICM\" at byte 128");

    /* The group ends where its length says, or without one, where another group begins. */
    size_t at = PREAMBLE + 4;
    size_t end = 0;
    for (;;) {
        if (end != 0 && at == end)
            break;
        if (at > n || n - at < 8) {
            if (end == 0 && at == n)
                break;
            goto cut;
        }
        if (get16(bytes + at) != 0x0002) {
            if (end != 0)
                return err_set(e, ERR_INVALID,
                               "broken DICOM file head: its group length points elsewhere");
            break;
        }
        uint16_t element = get16(bytes + at + 2);
        const char *vr = (const char *)bytes + at + 4;
        size_t head = 8;
        size_t length = get16(bytes + at + 6);
        if (memcmp(vr, "OB", 2) == 0 || memcmp(vr, "UN", 2) == 0 || memcmp(vr, "OW", 2) == 0 ||
            memcmp(vr, "UT", 2) == 0 || memcmp(vr, "SQ", 2) == 0) {
            head = 12;
            if (n - at < head)
                goto cut;
            length = get32(bytes + at + 8);
        }
        if (length > n - at - head)
            goto cut;
        const uint8_t *value = bytes + at + head;
        at += head + length;
        bool fits = true;
        switch (element) {
        case 0x0000:
            if (end != 0 || length != 4 || at != META_AT)
                return err_set(e, ERR_INVALID, "broken DICOM file head: group length misplaced");
            if (get32(value) > PART10_HEAD_MAX - META_AT)
                return err_set(e, ERR_LIMIT,
                               "DICOM file head of %u bytes is longer than we read (%d)",
                               get32(value), PART10_HEAD_MAX);
            end = at + get32(value);
            if (end > n)
                goto cut;
            break;
        case 0x0002:
            fits = take_text(r.sop_class, sizeof r.sop_class, value, length);
            break;
        case 0x0003:
            fits = take_text(r.sop_instance, sizeof r.sop_instance, value, length);
            break;
        case 0x0010:
            fits = take_text(r.transfer_syntax, sizeof r.transfer_syntax, value, length);
            break;
        case 0x0016:
            fits = take_text(r.source_ae, sizeof r.source_ae, value, length);
            break;
        default:
            break;
        }
        if (!fits)
            return err_set(e, ERR_INVALID, "broken DICOM file head: value of (0002,%04X)", element);
    }
    if (!uid_is_safe(r.transfer_syntax))
        return err_set(e, ERR_INVALID, "broken DICOM file head: no transfer syntax (0002,0010)");
    if ((r.sop_class[0] != '\0' && !uid_is_safe(r.sop_class)) ||
        (r.sop_instance[0] != '\0' && !uid_is_safe(r.sop_instance)))
        return err_set(e, ERR_INVALID, "broken DICOM file head: malformed UID");
    r.data_set = at;
    *out = r;
    return 0;

cut:
    if (n >= PART10_HEAD_MAX)
        return err_set(e, ERR_LIMIT, "DICOM file head is longer than we read (%d bytes)",
                       PART10_HEAD_MAX);
    return err_set(e, ERR_INVALID, "truncated DICOM file: it ends within its head");
}

int part10_read(int fd, struct part10 *out, struct err *e)
{
    uint8_t bytes[PART10_HEAD_MAX];
    size_t n = 0;

    while (n < sizeof bytes) {
        ssize_t got = pread(fd, bytes + n, sizeof bytes - n, (off_t)n);
        if (got < 0)
            return err_errno(e, errno, "cannot read a DICOM file head");
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return part10_decode(bytes, n, out, e);
}
