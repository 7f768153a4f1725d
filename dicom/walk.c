/*
 * walk.c - the iterative reader of data sets
 *
 * A stack of frames says what encloses the current position; `bound` of a frame is the first byte
 * that none of its content may touch. Nothing is ever read backwards, so the time is linear in the
 * bytes, whatever they say.
 */
#include "dicom/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "dicom/status.h"
#include "node/base/err.h"

#define WINDOW 65536

#define TAG_ITEM         0xFFFEE000u
#define TAG_ITEM_END     0xFFFEE00Du
#define TAG_SEQUENCE_END 0xFFFEE0DDu
#define TAG_PIXEL_DATA   0x7FE00010u

enum frame_kind { FRAME_SEQUENCE, FRAME_ITEM, FRAME_FRAGMENTS };

struct frame {
    enum frame_kind kind;
    bool defined;     /* ends at bound; else by a delimiter */
    bool explicit_vr; /* how its content is encoded */
    bool big_endian;
    bool guessed;
    uint32_t tag;
    uint64_t bound;
};

struct walk {
    /* Where bytes come from: memory, or a window on a file. */
    const uint8_t *bytes; /* the whole memory, or the window */
    uint64_t first;       /* position of bytes[0] in the raw input */
    size_t have;          /* bytes that are valid in it */
    uint64_t raw_at;      /* raw position of the next byte */
    uint64_t raw_end;
    int fd; /* -1: memory */
    uint64_t file_offset;
    uint8_t *window;

    /* Deflated input is unpacked into a second window. */
    bool deflated, inflating, inflated_all;
    z_stream z;
    uint8_t *plain;
    size_t plain_at, plain_have;
    uint64_t inflated_max;

    uint64_t at; /* position in the data set */
    struct sop_encoding encoding;
    struct frame frames[2 * PEEK_DEPTH_MAX + 2];
    unsigned frame_count;
    unsigned depth, depth_max;
    uint64_t elements, elements_max;
    uint64_t value_left; /* of the last element, not yet read */
    uint16_t status;
};

static int fail(struct walk *w, struct err *e, int code, uint16_t status, const char *text)
{
    w->status = status;
    return err_set(e, code, "%s (at byte %llu of the data set)", text, (unsigned long long)w->at);
}

static int truncated(struct walk *w, struct err *e)
{
    return fail(w, e, ERR_INVALID, STATUS_TRUNCATED, "the data set ends too early");
}

static int broken(struct walk *w, struct err *e, const char *text)
{
    return fail(w, e, ERR_INVALID, STATUS_CANNOT_UNDERSTAND, text);
}

static int walk_new(struct sop_encoding encoding, const struct peek_limits *limits,
                    struct walk **out, struct err *e)
{
    struct walk *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "no memory to read a data set");
    w->fd = -1;
    w->encoding = encoding;
    w->deflated = encoding.deflated;
    w->depth_max = limits != NULL && limits->depth != 0 ? limits->depth : PEEK_DEPTH;
    if (w->depth_max > PEEK_DEPTH_MAX)
        w->depth_max = PEEK_DEPTH_MAX;
    w->elements_max = limits != NULL && limits->elements != 0 ? limits->elements : PEEK_ELEMENTS;
    w->inflated_max =
        limits != NULL && limits->inflated_bytes != 0 ? limits->inflated_bytes : PEEK_INFLATED;
    if (w->deflated) {
        w->plain = malloc(WINDOW);
        /* Negative window bits: raw deflate, without the zlib head (PS3.5 annex A.5). */
        if (w->plain == NULL || inflateInit2(&w->z, -MAX_WBITS) != Z_OK) {
            free(w->plain);
            free(w);
            return err_set(e, ERR_NOMEM, "no memory to unpack a data set");
        }
        w->inflating = true;
    }
    *out = w;
    return 0;
}

int walk_open_memory(const void *bytes, size_t n, struct sop_encoding encoding,
                     const struct peek_limits *limits, struct walk **out, struct err *e)
{
    struct walk *w;
    int rc = walk_new(encoding, limits, &w, e);
    if (rc != 0)
        return rc;
    w->bytes = bytes;
    w->have = n;
    w->raw_end = n;
    *out = w;
    return 0;
}

int walk_open_file(int fd, uint64_t offset, uint64_t end, struct sop_encoding encoding,
                   const struct peek_limits *limits, struct walk **out, struct err *e)
{
    struct walk *w;
    int rc = walk_new(encoding, limits, &w, e);
    if (rc != 0)
        return rc;
    w->window = malloc(WINDOW);
    if (w->window == NULL) {
        walk_close(w);
        return err_set(e, ERR_NOMEM, "no memory to read a data set");
    }
    w->bytes = w->window;
    w->fd = fd;
    w->file_offset = offset;
    w->raw_end = end > offset ? end - offset : 0;
    *out = w;
    return 0;
}

void walk_close(struct walk *w)
{
    if (w == NULL)
        return;
    if (w->inflating)
        inflateEnd(&w->z);
    free(w->plain);
    free(w->window);
    free(w);
}

uint16_t walk_status(const struct walk *w)
{
    return w->status;
}

uint64_t walk_elements(const struct walk *w)
{
    return w->elements;
}

/* Makes at least one raw byte available at raw_at; 1, or 0 at the end, or ERR_IO. */
static int raw_fill(struct walk *w, struct err *e)
{
    if (w->raw_at >= w->raw_end)
        return 0;
    if (w->raw_at >= w->first && w->raw_at - w->first < w->have)
        return 1;
    uint64_t want = w->raw_end - w->raw_at;
    ssize_t got;
    do {
        got = pread(w->fd, w->window, want < WINDOW ? (size_t)want : WINDOW,
                    (off_t)(w->file_offset + w->raw_at));
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        w->status = STATUS_PROCESSING_FAILURE;
        return err_errno(e, errno, "cannot read a data set");
    }
    if (got == 0)
        return 0;
    w->first = w->raw_at;
    w->have = (size_t)got;
    return 1;
}

/* Makes at least one unpacked byte available; 1, 0 at the end, or an error. */
static int plain_fill(struct walk *w, struct err *e)
{
    while (w->plain_at == w->plain_have) {
        if (w->inflated_all)
            return 0;
        int rc = raw_fill(w, e);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return truncated(w, e);
        size_t from = (size_t)(w->raw_at - w->first);
        size_t n = w->have - from;
        if (n > WINDOW)
            n = WINDOW;
        /* zlib's interface predates const; it does not write there. */
        w->z.next_in = (Bytef *)(uintptr_t)(w->bytes + from);
        w->z.avail_in = (uInt)n;
        w->z.next_out = w->plain;
        w->z.avail_out = WINDOW;
        int z = inflate(&w->z, Z_NO_FLUSH);
        w->raw_at += n - w->z.avail_in;
        w->plain_at = 0;
        w->plain_have = WINDOW - w->z.avail_out;
        if (z == Z_STREAM_END)
            w->inflated_all = true;
        else if (z != Z_OK && z != Z_BUF_ERROR)
            return broken(w, e, "the deflated data set is damaged");
        if (w->at + w->plain_have > w->inflated_max)
            return fail(w, e, ERR_LIMIT, STATUS_TOO_LARGE,
                        "the deflated data set unpacks to more than we take");
    }
    return 1;
}

/* 1 if there is another byte, 0 at the end of the input, or an error. */
static int more(struct walk *w, struct err *e)
{
    return w->deflated ? plain_fill(w, e) : raw_fill(w, e);
}

/* Moves on by n bytes, copying them to out unless that is NULL. */
static int take(struct walk *w, void *out, uint64_t n, struct err *e)
{
    uint8_t *to = out;

    if (!w->deflated) {
        if (n > w->raw_end - w->raw_at)
            return truncated(w, e);
        if (to == NULL) {
            w->raw_at += n;
            w->at += n;
            return 0;
        }
    }
    while (n > 0) {
        int rc = more(w, e);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return truncated(w, e);
        const uint8_t *from;
        uint64_t step;
        if (w->deflated) {
            from = w->plain + w->plain_at;
            step = w->plain_have - w->plain_at;
        } else {
            from = w->bytes + (w->raw_at - w->first);
            step = w->have - (w->raw_at - w->first);
        }
        if (step > n)
            step = n;
        if (to != NULL) {
            memcpy(to, from, (size_t)step);
            to += step;
        }
        if (w->deflated)
            w->plain_at += (size_t)step;
        else
            w->raw_at += step;
        w->at += step;
        n -= step;
    }
    return 0;
}

static uint16_t get16(const uint8_t *p, bool big)
{
    return (uint16_t)(big ? p[0] << 8 | p[1] : p[1] << 8 | p[0]);
}

static uint32_t get32(const uint8_t *p, bool big)
{
    return big ? (uint32_t)get16(p, true) << 16 | get16(p + 2, true)
               : (uint32_t)get16(p + 2, false) << 16 | get16(p, false);
}

/* The first byte that may not be touched here. */
static uint64_t bound_of(const struct walk *w)
{
    if (w->frame_count > 0)
        return w->frames[w->frame_count - 1].bound;
    return w->deflated ? UINT64_MAX : w->raw_end;
}

static int push(struct walk *w, struct frame f, struct err *e)
{
    if (f.kind != FRAME_ITEM) {
        if (w->depth == w->depth_max)
            return fail(w, e, ERR_LIMIT, STATUS_TOO_DEEP,
                        "sequences are nested deeper than we take");
        w->depth++;
    }
    w->frames[w->frame_count++] = f;
    return 0;
}

static void pop(struct walk *w)
{
    if (w->frames[--w->frame_count].kind != FRAME_ITEM)
        w->depth--;
}

/* VRs with a 32-bit length in explicit VR (PS3.5 table 7.1-1). Any VR that is unknown has one too
 * (PS3.5 clause 6.2), so this lists those with 16 bits. */
static bool has_short_length(const char vr[2])
{
    static const char known[] = "AEASATCSDADSDTFLFDISLOLTPNSHSLSSSTTMUIULUS";
    for (const char *p = known; *p != '\0'; p += 2)
        if (p[0] == vr[0] && p[1] == vr[1])
            return true;
    return false;
}

/* Implicit VR: does a value of defined length begin like a sequence? */
static int looks_like_sequence(struct walk *w, uint32_t tag, uint32_t length, struct err *e)
{
    if (length < 8 || tag == TAG_PIXEL_DATA)
        return 0;
    int rc = more(w, e);
    if (rc <= 0)
        return rc;
    /* The four bytes may straddle two windows: then look at what is there, which errs towards
     * taking it for a sequence, and a guess that was wrong does no harm. */
    static const uint8_t item[4] = {0xFE, 0xFF, 0x00, 0xE0};
    const uint8_t *p;
    size_t have;
    if (w->deflated) {
        p = w->plain + w->plain_at;
        have = w->plain_have - w->plain_at;
    } else {
        p = w->bytes + (w->raw_at - w->first);
        have = w->have - (size_t)(w->raw_at - w->first);
    }
    return memcmp(p, item, have < 4 ? have : 4) == 0;
}

static int next_in_sequence(struct walk *w, struct frame *top, uint32_t tag, uint32_t length,
                            struct walk_event *event, struct err *e)
{
    if (tag == TAG_SEQUENCE_END) {
        if (top->defined)
            return broken(w, e, "sequence delimiter in a sequence of defined length");
        event->kind = top->kind == FRAME_FRAGMENTS ? WALK_FRAGMENTS_END : WALK_SEQUENCE_END;
        event->tag = top->tag;
        event->guessed = top->guessed;
        pop(w);
        event->depth = w->depth;
        return 1;
    }
    if (tag != TAG_ITEM)
        return broken(w, e, "something else than an item in a sequence");
    if (length != WALK_UNDEFINED && length > top->bound - w->at)
        return truncated(w, e);
    event->tag = top->tag;
    event->length = length;
    event->depth = w->depth;
    if (top->kind == FRAME_FRAGMENTS) {
        if (length == WALK_UNDEFINED)
            return broken(w, e, "fragment of undefined length");
        event->kind = WALK_FRAGMENT;
        w->value_left = length;
        return 1;
    }
    event->kind = WALK_ITEM;
    struct frame item = *top;
    item.kind = FRAME_ITEM;
    item.guessed = false;
    item.defined = length != WALK_UNDEFINED;
    if (item.defined)
        item.bound = w->at + length;
    int rc = push(w, item, e);
    return rc == 0 ? 1 : rc;
}

static int next_element(struct walk *w, uint32_t tag, uint32_t length, const char vr[3],
                        const struct frame *around, struct walk_event *event, struct err *e)
{
    event->tag = tag;
    memcpy(event->vr, vr, 3);
    event->length = length;
    event->depth = w->depth;

    struct frame f = {
        .kind = FRAME_SEQUENCE,
        .explicit_vr = around->explicit_vr,
        .big_endian = around->big_endian,
        .tag = tag,
        .bound = around->bound,
    };
    if (length == WALK_UNDEFINED) {
        if (vr[0] == '\0' || strcmp(vr, "SQ") == 0) {
            event->kind = WALK_SEQUENCE;
        } else if (strcmp(vr, "UN") == 0) {
            /* A sequence in implicit VR little endian, whatever is around (PS3.5 clause 6.2.2). */
            event->kind = WALK_SEQUENCE;
            f.explicit_vr = false;
            f.big_endian = false;
        } else if (tag == TAG_PIXEL_DATA && (strcmp(vr, "OB") == 0 || strcmp(vr, "OW") == 0)) {
            event->kind = WALK_FRAGMENTS;
            f.kind = FRAME_FRAGMENTS;
        } else {
            return broken(w, e, "undefined length where none may be");
        }
        int rc = push(w, f, e);
        return rc == 0 ? 1 : rc;
    }
    if (length > around->bound - w->at)
        return truncated(w, e);
    int sequence = strcmp(vr, "SQ") == 0;
    if (vr[0] == '\0') {
        sequence = looks_like_sequence(w, tag, length, e);
        if (sequence < 0)
            return sequence;
        f.guessed = sequence;
    }
    if (sequence) {
        event->kind = WALK_SEQUENCE;
        event->guessed = f.guessed;
        f.defined = true;
        f.bound = w->at + length;
        int rc = push(w, f, e);
        return rc == 0 ? 1 : rc;
    }
    event->kind = WALK_ELEMENT;
    w->value_left = length;
    return 1;
}

static int step(struct walk *w, struct walk_event *event, struct err *e)
{
    struct frame root = {
        .kind = FRAME_ITEM,
        .explicit_vr = w->encoding.explicit_vr,
        .big_endian = w->encoding.big_endian,
        .bound = bound_of(w),
    };
    struct frame *top = w->frame_count > 0 ? &w->frames[w->frame_count - 1] : NULL;

    if (top == NULL) {
        int rc = more(w, e);
        if (rc <= 0)
            return rc;
    } else if (top->defined && w->at == top->bound) {
        event->kind = top->kind == FRAME_ITEM ? WALK_ITEM_END : WALK_SEQUENCE_END;
        event->tag = top->tag;
        event->guessed = top->guessed;
        pop(w);
        event->depth = w->depth;
        return 1;
    }

    if (++w->elements > w->elements_max)
        return fail(w, e, ERR_LIMIT, STATUS_TOO_LARGE, "more elements than we take");
    const struct frame *in = top != NULL ? top : &root;
    uint8_t head[12];
    if (in->bound - w->at < 8)
        return truncated(w, e);
    int rc = take(w, head, 8, e);
    if (rc != 0)
        return rc;
    uint32_t tag = (uint32_t)get16(head, in->big_endian) << 16 | get16(head + 2, in->big_endian);
    uint32_t length = get32(head + 4, in->big_endian);

    if (top != NULL && top->kind != FRAME_ITEM)
        return next_in_sequence(w, top, tag, length, event, e);

    if (tag == TAG_ITEM_END && top != NULL && !top->defined) {
        event->kind = WALK_ITEM_END;
        event->tag = top->tag;
        pop(w);
        event->depth = w->depth;
        return 1;
    }
    if (tag >> 16 == 0xFFFE)
        return broken(w, e, "item or delimiter where none may be");
    if (tag >> 16 == 0x0000 || tag >> 16 == 0x0002)
        return broken(w, e, "command or file meta element in a data set");

    char vr[3] = "";
    if (in->explicit_vr) {
        memcpy(vr, head + 4, 2);
        if (vr[0] < 'A' || vr[0] > 'Z' || vr[1] < 'A' || vr[1] > 'Z')
            return broken(w, e, "an element without a value representation");
        if (has_short_length(vr)) {
            length = get16(head + 6, in->big_endian);
        } else {
            if (in->bound - w->at < 4)
                return truncated(w, e);
            rc = take(w, head + 8, 4, e);
            if (rc != 0)
                return rc;
            length = get32(head + 8, in->big_endian);
        }
    }
    return next_element(w, tag, length, vr, in, event, e);
}

int walk_next(struct walk *w, struct walk_event *event, struct err *e)
{
    memset(event, 0, sizeof *event);
    int rc = 0;
    if (w->value_left > 0) {
        uint64_t left = w->value_left;
        w->value_left = 0;
        rc = take(w, NULL, left, e);
    }
    if (rc == 0)
        rc = step(w, event, e);
    if (rc != ERR_INVALID)
        return rc;

    /* Was it a guess that does not hold? Then that value is plain bytes: on behind it. */
    for (unsigned i = w->frame_count; i-- > 0;) {
        if (!w->frames[i].guessed)
            continue;
        memset(event, 0, sizeof *event);
        event->kind = WALK_SEQUENCE_NOT;
        event->tag = w->frames[i].tag;
        uint64_t skip = w->frames[i].bound - w->at;
        while (w->frame_count > i)
            pop(w);
        event->depth = w->depth;
        rc = take(w, NULL, skip, e);
        if (rc != 0)
            return rc;
        w->status = 0;
        return 1;
    }
    return rc;
}

int walk_value(struct walk *w, void *out, size_t max, size_t *got, struct err *e)
{
    size_t n = w->value_left < max ? (size_t)w->value_left : max;
    int rc = take(w, out, n, e);
    if (rc != 0)
        return rc;
    w->value_left -= n;
    *got = n;
    return 0;
}

int walk_text(struct walk *w, const struct walk_event *event, char *out, size_t size, struct err *e)
{
    char text[1024];
    size_t n;

    if (event->length >= sizeof text)
        return err_set(e, ERR_LIMIT, "value of (%04X,%04X) is too long", event->tag >> 16,
                       event->tag & 0xFFFF);
    int rc = walk_value(w, text, sizeof text, &n, e);
    if (rc != 0)
        return rc;
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\0'))
        n--;
    if (n >= size)
        return err_set(e, ERR_LIMIT, "value of (%04X,%04X) is too long", event->tag >> 16,
                       event->tag & 0xFFFF);
    if (memchr(text, '\0', n) != NULL)
        return err_set(e, ERR_INVALID, "NUL inside the value of (%04X,%04X)", event->tag >> 16,
                       event->tag & 0xFFFF);
    memcpy(out, text, n);
    out[n] = '\0';
    return 0;
}
