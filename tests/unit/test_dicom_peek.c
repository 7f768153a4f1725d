/* test_dicom_peek.c - file heads and the bounded walk over data sets that lie */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include "dicom/part10.h"
#include "dicom/peek.h"
#include "dicom/status.h"
#include "node/base/buf.h"
#include "node/base/err.h"

#define UNDEFINED 0xFFFFFFFFu

/* A writer of data sets in any of the three plain encodings. */
struct writer {
    struct buf b;
    bool explicit_vr, big;
};

static void put(struct writer *w, uint32_t v, unsigned bytes)
{
    uint8_t out[4];
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> 8 * (w->big ? bytes - 1 - i : i));
    buf_add(&w->b, out, bytes);
}

static void head(struct writer *w, uint32_t tag, const char *vr, uint32_t length)
{
    put(w, tag >> 16, 2);
    put(w, tag & 0xFFFF, 2);
    if (!w->explicit_vr || tag >> 16 == 0xFFFE) {
        put(w, length, 4);
    } else if (strstr("OB OW SQ UN UT UC OF", vr) != NULL) {
        buf_add(&w->b, vr, 2);
        put(w, 0, 2);
        put(w, length, 4);
    } else {
        buf_add(&w->b, vr, 2);
        put(w, length, 2);
    }
}

static void value(struct writer *w, uint32_t tag, const char *vr, const char *text)
{
    size_t n = strlen(text);
    head(w, tag, vr, (uint32_t)(n + (n & 1)));
    buf_add(&w->b, text, n);
    if (n & 1)
        buf_add(&w->b, "", 1);
}

static void start(struct writer *w, const char *syntax)
{
    memset(w, 0, sizeof *w);
    buf_init(&w->b, 64 << 20);
    w->explicit_vr = strcmp(syntax, SYNTAX_IMPLICIT_LE) != 0;
    w->big = strcmp(syntax, SYNTAX_EXPLICIT_BE) == 0;
}

static void sop(struct writer *w)
{
    value(w, 0x00080016, "UI", SOP_MR);
    value(w, 0x00080018, "UI", "1.2.3.4");
}

static void series(struct writer *w)
{
    value(w, 0x0020000D, "UI", "1.2.3");
    value(w, 0x0020000E, "UI", "1.2.3.5");
}

static int look(struct writer *w, const char *syntax, struct peek *p)
{
    /* exactly as long as it is, so that a sanitizer sees any read beyond */
    uint8_t *copy = malloc(w->b.len > 0 ? w->b.len : 1);
    assert_non_null(copy);
    if (w->b.len > 0)
        memcpy(copy, w->b.data, w->b.len);
    int rc = peek_memory(copy, w->b.len, syntax, NULL, p, NULL);
    free(copy);
    return rc;
}

static const char *const plain[] = {SYNTAX_EXPLICIT_LE, SYNTAX_IMPLICIT_LE, SYNTAX_EXPLICIT_BE};

static void sound(struct writer *w)
{
    sop(w);
    /* a sequence with lengths, in it one without, an empty one, an empty item */
    struct writer inner = *w, item = *w;
    buf_init(&item.b, 1 << 20);
    buf_init(&inner.b, 1 << 20);
    value(&item, 0x00081155, "UI", "1.9");
    head(&item, 0x00081199, "SQ", UNDEFINED);
    head(&item, 0xFFFEE000, "", UNDEFINED);
    value(&item, 0x00081150, "UI", "1.8");
    head(&item, 0xFFFEE00D, "", 0);
    head(&item, 0xFFFEE000, "", 0);
    head(&item, 0xFFFEE0DD, "", 0);
    head(&inner, 0xFFFEE000, "", (uint32_t)item.b.len);
    buf_add(&inner.b, item.b.data, item.b.len);
    head(w, 0x00081140, "SQ", (uint32_t)inner.b.len);
    buf_add(&w->b, inner.b.data, inner.b.len);
    buf_fini(&item.b);
    buf_fini(&inner.b);
    head(w, 0x00089215, "SQ", 0);
    series(w);
    value(w, 0x7FE00010, "OW", "\xFE\xFF\x01\xE0pixels that begin like an item");
}

static void peek__finds_the_uids_in_every_encoding(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct writer w;
        struct peek p;
        start(&w, plain[i]);
        sound(&w);
        assert_int_equal(look(&w, plain[i], &p), 0);
        assert_string_equal(p.sop_class, SOP_MR);
        assert_string_equal(p.sop_instance, "1.2.3.4");
        assert_string_equal(p.study, "1.2.3");
        assert_string_equal(p.series, "1.2.3.5");
        assert_int_equal(p.depth, 2);
        buf_fini(&w.b);
    }
}

static void peek__refuses_every_truncation(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct writer w;
        struct peek p;
        start(&w, plain[i]);
        sound(&w);
        size_t whole = w.b.len;
        for (size_t cut = 0; cut < whole; cut++) {
            w.b.len = cut;
            int rc = look(&w, plain[i], &p);
            if (rc == 0) {
                /* only the pixel data, as the last element, may be missing whole */
                assert_true(whole - cut == (i == 1 ? 8u : 12u) + 34u);
                continue;
            }
            assert_int_equal(rc, ERR_INVALID);
            assert_true(p.status == STATUS_TRUNCATED || p.status == STATUS_DATA_SET_MISMATCH);
        }
        w.b.len = whole;
        buf_fini(&w.b);
    }
}

static void peek__refuses_deep_nesting_however_it_is_written(void **state)
{
    (void)state;
    for (int form = 0; form < 5; form++) {
        const char *syntax = form < 3 ? plain[form] : plain[form - 3];
        struct writer w;
        struct peek p;
        start(&w, syntax);
        sop(&w);
        if (form < 3) {
            for (int i = 0; i < 10000; i++) {
                head(&w, 0x00081140, "SQ", UNDEFINED);
                head(&w, 0xFFFEE000, "", UNDEFINED);
            }
        } else {
            /* all lengths given: each as long as what is inside */
            unsigned each = form == 3 ? 20 : 16;
            for (unsigned i = 0; i < 10000; i++) {
                head(&w, 0x00081140, "SQ", (10000 - i) * each - (each - 8));
                head(&w, 0xFFFEE000, "", (10000 - i) * each - each);
            }
        }
        assert_int_equal(look(&w, syntax, &p), ERR_LIMIT);
        assert_int_equal(p.status, STATUS_TOO_DEEP);
        buf_fini(&w.b);
    }
    /* UN of undefined length holds implicit VR, whatever is around it */
    struct writer w;
    struct peek p;
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    head(&w, 0x00091010, "UN", UNDEFINED);
    w.explicit_vr = false;
    for (int i = 0; i < 10000; i++) {
        head(&w, 0xFFFEE000, "", UNDEFINED);
        head(&w, 0x00091010, "", UNDEFINED);
    }
    assert_int_equal(look(&w, SYNTAX_EXPLICIT_LE, &p), ERR_LIMIT);
    buf_fini(&w.b);
}

static void peek__refuses_lengths_that_lie(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (int lie = 0; lie < 6; lie++) {
            struct writer w;
            struct peek p;
            start(&w, plain[i]);
            sop(&w);
            series(&w);
            switch (lie) {
            case 0: /* beyond the end */
                head(&w, 0x7FE00010, "OW", 0xFFFFFFF0u);
                break;
            case 1: /* an item longer than its sequence */
                head(&w, 0x00400275, "SQ", 16);
                head(&w, 0xFFFEE000, "", 24);
                value(&w, 0x00400007, "LO", "0123456789");
                value(&w, 0x00400008, "LO", "0123456789");
                value(&w, 0x00400009, "LO", "0123456789");
                break;
            case 2: /* an element longer than its item, in a sequence that must be one */
                head(&w, 0x00400275, "SQ", UNDEFINED);
                head(&w, 0xFFFEE000, "", 10);
                value(&w, 0x00400007, "LO", "012345678901234567890123456789");
                head(&w, 0xFFFEE0DD, "", 0);
                break;
            case 3: /* never closed */
                head(&w, 0x00400275, "SQ", UNDEFINED);
                break;
            case 4: /* closed but not opened */
                head(&w, 0xFFFEE0DD, "", 0);
                break;
            default: /* no item in it */
                head(&w, 0x00400275, "SQ", UNDEFINED);
                value(&w, 0x00400007, "LO", "x");
                head(&w, 0xFFFEE0DD, "", 0);
                break;
            }
            assert_int_equal(look(&w, plain[i], &p), ERR_INVALID);
            buf_fini(&w.b);
        }
    }
}

static void peek__takes_implicit_values_that_only_look_like_sequences(void **state)
{
    struct writer w;
    struct peek p;

    (void)state;
    start(&w, SYNTAX_IMPLICIT_LE);
    sop(&w);
    head(&w, 0x00091010, "", 20);
    buf_add(&w.b, "\xFE\xFF\x00\xE0\x40\x00\x00\x00 not an item", 20);
    series(&w);
    assert_int_equal(look(&w, SYNTAX_IMPLICIT_LE, &p), 0);
    assert_string_equal(p.series, "1.2.3.5");
    buf_fini(&w.b);
}

static void peek__wants_each_uid_once_and_sound(void **state)
{
    struct writer w;
    struct peek p;

    (void)state;
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    value(&w, 0x0020000D, "UI", "1.2.3");
    assert_int_equal(look(&w, SYNTAX_EXPLICIT_LE, &p), ERR_INVALID);
    assert_int_equal(p.status, STATUS_DATA_SET_MISMATCH);
    value(&w, 0x0020000E, "UI", "../../x");
    assert_int_equal(look(&w, SYNTAX_EXPLICIT_LE, &p), ERR_INVALID);
    assert_int_equal(p.status, STATUS_DATA_SET_MISMATCH);
    buf_fini(&w.b);

    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    series(&w);
    value(&w, 0x0020000E, "UI", "1.2.3.6");
    assert_int_equal(look(&w, SYNTAX_EXPLICIT_LE, &p), ERR_INVALID);
    assert_int_equal(p.status, STATUS_CANNOT_UNDERSTAND);
    buf_fini(&w.b);

    /* the same tag inside a sequence is another attribute */
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    head(&w, 0x00081140, "SQ", UNDEFINED);
    head(&w, 0xFFFEE000, "", UNDEFINED);
    value(&w, 0x0020000E, "UI", "9.9.9");
    head(&w, 0xFFFEE00D, "", 0);
    head(&w, 0xFFFEE0DD, "", 0);
    series(&w);
    assert_int_equal(look(&w, SYNTAX_EXPLICIT_LE, &p), 0);
    assert_string_equal(p.series, "1.2.3.5");
    buf_fini(&w.b);
}

static void peek__bounds_the_number_of_elements(void **state)
{
    struct peek_limits limits = {.elements = 100};
    struct writer w;
    struct peek p;

    (void)state;
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    for (uint32_t i = 0; i < 200; i++)
        value(&w, 0x00091000 + i, "LO", "");
    assert_int_equal(peek_memory(w.b.data, w.b.len, SYNTAX_EXPLICIT_LE, &limits, &p, NULL),
                     ERR_LIMIT);
    assert_int_equal(p.status, STATUS_TOO_LARGE);
    buf_fini(&w.b);
}

static void deflate_into(struct buf *out, const struct buf *in)
{
    z_stream z = {0};
    uint8_t room[65536];

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)in->data;
    z.avail_in = (uInt)in->len;
    int rc;
    do {
        z.next_out = room;
        z.avail_out = sizeof room;
        rc = deflate(&z, Z_FINISH);
        buf_add(out, room, sizeof room - z.avail_out);
    } while (rc == Z_OK);
    deflateEnd(&z);
}

static void peek__unpacks_deflated_data_sets_within_bounds(void **state)
{
    struct peek_limits limits = {.inflated_bytes = 1 << 20};
    struct writer w;
    struct buf packed;
    struct peek p;

    (void)state;
    start(&w, SYNTAX_EXPLICIT_LE);
    sound(&w);
    buf_init(&packed, 1 << 20);
    deflate_into(&packed, &w.b);
    assert_int_equal(peek_memory(packed.data, packed.len, SYNTAX_DEFLATED, &limits, &p, NULL), 0);
    assert_string_equal(p.series, "1.2.3.5");
    for (size_t cut = 0; cut < packed.len; cut++) {
        assert_int_equal(peek_memory(packed.data, cut, SYNTAX_DEFLATED, &limits, &p, NULL),
                         ERR_INVALID);
        assert_int_equal(p.status, STATUS_TRUNCATED);
    }
    packed.data[5] ^= 0x55;
    assert_true(peek_memory(packed.data, packed.len, SYNTAX_DEFLATED, &limits, &p, NULL) < 0);
    buf_fini(&w.b);

    /* 32 MiB of zeros in 32 KiB */
    buf_clear(&packed);
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    series(&w);
    head(&w, 0x7FE00010, "OW", 32 << 20);
    uint8_t *zeros = calloc(1, 32 << 20);
    assert_non_null(zeros);
    buf_add(&w.b, zeros, 32 << 20);
    free(zeros);
    deflate_into(&packed, &w.b);
    assert_true(packed.len < 100000);
    assert_int_equal(peek_memory(packed.data, packed.len, SYNTAX_DEFLATED, &limits, &p, NULL),
                     ERR_LIMIT);
    assert_int_equal(p.status, STATUS_TOO_LARGE);
    buf_fini(&w.b);
    buf_fini(&packed);
}

static void peek__walks_encapsulated_pixel_data(void **state)
{
    const char *jpeg = "1.2.840.10008.1.2.4.70";
    struct writer w;
    struct peek p;

    (void)state;
    start(&w, SYNTAX_EXPLICIT_LE);
    sop(&w);
    series(&w);
    head(&w, 0x7FE00010, "OB", UNDEFINED);
    head(&w, 0xFFFEE000, "", 0);
    head(&w, 0xFFFEE000, "", 6);
    buf_add(&w.b, "\xFF\xD8jpeg", 6);
    assert_int_equal(look(&w, jpeg, &p), ERR_INVALID);
    assert_int_equal(p.status, STATUS_TRUNCATED);
    head(&w, 0xFFFEE0DD, "", 0);
    assert_int_equal(look(&w, jpeg, &p), 0);
    assert_int_equal(look(&w, "1.2.3.4.5", &p), ERR_UNSUPPORTED);
    buf_fini(&w.b);
}

static void peek__never_fails_otherwise_on_noise(void **state)
{
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct writer w;
        struct peek p;
        const char *syntax = plain[round % 3];
        start(&w, syntax);
        sound(&w);
        for (int flips = 0; flips < 4; flips++) {
            seed = seed * 1664525u + 1013904223u;
            w.b.data[(seed >> 8) % w.b.len] = (char)(seed >> 24);
        }
        int rc = look(&w, syntax, &p);
        assert_true(rc == 0 || rc == ERR_INVALID || rc == ERR_LIMIT);
        assert_int_equal(rc == 0, p.status == STATUS_SUCCESS);
        buf_fini(&w.b);
    }
}

static void part10__reads_back_what_it_wrote(void **state)
{
    struct part10 out, h = {.sop_class = SOP_MR,
                            .sop_instance = "1.2.3",
                            .transfer_syntax = SYNTAX_EXPLICIT_LE,
                            .source_ae = "SCANNER"};
    uint8_t bytes[PART10_HEAD_MAX];
    size_t n;

    (void)state;
    assert_int_equal(part10_encode(&h, bytes, &n, NULL), 0);
    h.data_set = n;
    assert_int_equal(part10_decode(bytes, n, &out, NULL), 0);
    assert_memory_equal(&out, &h, sizeof h);
    bytes[n] = 8; /* the data set begins */
    assert_int_equal(part10_decode(bytes, n + 1, &out, NULL), 0);
    assert_int_equal(out.data_set, n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        assert_int_equal(part10_decode(copy, cut, &out, NULL), ERR_INVALID);
        free(copy);
    }
    strcpy(h.sop_instance, "1..3");
    assert_int_equal(part10_encode(&h, bytes, &n, NULL), ERR_INVALID);
}

static void part10__refuses_a_group_length_that_lies(void **state)
{
    struct part10 out,
        h = {.sop_class = SOP_MR, .sop_instance = "1.2.3", .transfer_syntax = SYNTAX_EXPLICIT_LE};
    uint8_t bytes[PART10_HEAD_MAX];
    size_t n;

    (void)state;
    assert_int_equal(part10_encode(&h, bytes, &n, NULL), 0);
    memset(bytes + n, 0, 64);
    uint8_t right = bytes[140];
    for (int lie = -64; lie <= 64; lie++) {
        bytes[140] = (uint8_t)(right + lie);
        int rc = part10_decode(bytes, n + 64, &out, NULL);
        if (rc == 0) /* a length that ends between two elements is one that could be meant */
            assert_true(out.data_set <= n);
        else
            assert_int_equal(rc, ERR_INVALID);
    }
    memset(bytes + 140, 0xFF, 4);
    assert_int_equal(part10_decode(bytes, n + 64, &out, NULL), ERR_LIMIT);
    assert_int_equal(part10_decode((const uint8_t *)"", 0, &out, NULL), ERR_INVALID);
}

static void part10__peeks_a_whole_file_and_compares_head_and_data_set(void **state)
{
    char path[] = "/tmp/test_dicom_peek_XXXXXX";
    struct part10 h = {
        .sop_class = SOP_MR, .sop_instance = "1.2.3.4", .transfer_syntax = SYNTAX_EXPLICIT_LE};
    uint8_t bytes[PART10_HEAD_MAX];
    struct writer w;
    struct peek p;
    size_t n;

    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    start(&w, SYNTAX_EXPLICIT_LE);
    sound(&w);
    assert_int_equal(part10_encode(&h, bytes, &n, NULL), 0);
    assert_int_equal(write(fd, bytes, n), n);
    assert_int_equal(write(fd, w.b.data, w.b.len), w.b.len);
    assert_int_equal(peek_part10(path, NULL, &p, NULL), 0);
    assert_string_equal(p.sop_instance, "1.2.3.4");

    strcpy(h.sop_instance, "1.2.3.5");
    assert_int_equal(part10_encode(&h, bytes, &n, NULL), 0);
    assert_int_equal(pwrite(fd, bytes, n, 0), n);
    assert_int_equal(peek_part10(path, NULL, &p, NULL), ERR_INVALID);
    assert_int_equal(p.status, STATUS_DATA_SET_MISMATCH);
    close(fd);
    unlink(path);
    assert_int_equal(peek_part10(path, NULL, &p, NULL), ERR_NOT_FOUND);
    buf_fini(&w.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peek__finds_the_uids_in_every_encoding),
        cmocka_unit_test(peek__refuses_every_truncation),
        cmocka_unit_test(peek__refuses_deep_nesting_however_it_is_written),
        cmocka_unit_test(peek__refuses_lengths_that_lie),
        cmocka_unit_test(peek__takes_implicit_values_that_only_look_like_sequences),
        cmocka_unit_test(peek__wants_each_uid_once_and_sound),
        cmocka_unit_test(peek__bounds_the_number_of_elements),
        cmocka_unit_test(peek__unpacks_deflated_data_sets_within_bounds),
        cmocka_unit_test(peek__walks_encapsulated_pixel_data),
        cmocka_unit_test(peek__never_fails_otherwise_on_noise),
        cmocka_unit_test(part10__reads_back_what_it_wrote),
        cmocka_unit_test(part10__refuses_a_group_length_that_lies),
        cmocka_unit_test(part10__peeks_a_whole_file_and_compares_head_and_data_set),
    };
    return cmocka_run_group_tests_name("dicom_peek", tests, NULL, NULL);
}
