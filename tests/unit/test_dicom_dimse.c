/* test_dicom_dimse.c - command sets, statuses, commitment and C-FIND identifiers */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dicom/commitment.h"
#include "dicom/dimse.h"
#include "dicom/find.h"
#include "dicom/status.h"
#include "node/base/buf.h"
#include "node/base/err.h"

static size_t element(uint8_t *out, uint16_t group, uint16_t number, const void *value, uint32_t n)
{
    uint8_t head[8] = {
        (uint8_t)group, (uint8_t)(group >> 8), (uint8_t)number,    (uint8_t)(number >> 8),
        (uint8_t)n,     (uint8_t)(n >> 8),     (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
    memcpy(out, head, 8);
    if (value != NULL)
        memcpy(out + 8, value, n);
    return 8 + n;
}

static struct dimse_command store_request(void)
{
    struct dimse_command c = {.field = DIMSE_C_STORE_RQ,
                              .message_id = 7,
                              .has = DIMSE_HAS_MESSAGE_ID | DIMSE_HAS_PRIORITY,
                              .data_set = true};
    strcpy(c.affected_class, SOP_MR);
    strcpy(c.affected_instance, "1.2.3");
    return c;
}

static void dimse__reads_back_what_it_wrote(void **state)
{
    struct dimse_command out, c = store_request();
    uint8_t bytes[DIMSE_COMMAND_MAX];

    (void)state;
    size_t n = dimse_encode(&c, bytes);
    assert_int_equal(n % 2, 0);
    assert_int_equal(bytes[8] | bytes[9] << 8, n - 12);
    assert_int_equal(dimse_parse(bytes, n, &out, NULL), 0);
    assert_memory_equal(&out, &c, sizeof c);

    struct dimse_command rsp = {.field = DIMSE_N_EVENT_REPORT_RSP,
                                .responded_id = 65535,
                                .status = 0x0110,
                                .event_type = 2,
                                .has = DIMSE_HAS_RESPONDED_ID | DIMSE_HAS_STATUS |
                                       DIMSE_HAS_EVENT_TYPE};
    strcpy(rsp.comment, "odd");
    n = dimse_encode(&rsp, bytes);
    assert_int_equal(n % 2, 0);
    assert_int_equal(dimse_parse(bytes, n, &out, NULL), 0);
    assert_memory_equal(&out, &rsp, sizeof rsp);
}

static void dimse__refuses_every_truncation(void **state)
{
    struct dimse_command out, c = store_request();
    uint8_t bytes[DIMSE_COMMAND_MAX];

    (void)state;
    size_t n = dimse_encode(&c, bytes);
    for (size_t cut = 0; cut < n; cut++) {
        /* A copy of exactly that length, so that a sanitizer sees any read beyond. */
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        int rc = dimse_parse(copy, cut, &out, NULL);
        free(copy);
        /* Cut between the data set type and the last element it is still a command. */
        if (rc == 0)
            assert_int_equal(cut, 12 + 8 + 26 + 4 * 10);
        else
            assert_int_equal(rc, ERR_INVALID);
    }
}

static void dimse__refuses_what_is_no_command(void **state)
{
    const uint8_t field[2] = {0x30, 0x00}, type[2] = {0x01, 0x01}, id[2] = {1, 0};
    struct dimse_command out;
    uint8_t b[512];
    size_t n;

    (void)state;
    /* the smallest command that is one, as the measure for those below */
    n = element(b, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), 0);
    assert_false(out.data_set);

    /* out of order, so also twice */
    n = element(b, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), ERR_INVALID);
    n = element(b, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), ERR_INVALID);

    /* another group; a sequence, which no command set has */
    n = element(b, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n + element(b + n, 8, 0x0018, "1.2.3\0", 6), &out, NULL),
                     ERR_INVALID);
    element(b + n, 0, 0x9999, NULL, 0);
    memset(b + n + 4, 0xFF, 4);
    assert_int_equal(dimse_parse(b, n + 8, &out, NULL), ERR_INVALID);

    /* a number of another size; a UID that is none; no data set type */
    n = element(b, 0, 0x0100, "\x30\0\0\0", 4);
    n += element(b + n, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), ERR_INVALID);
    n = element(b, 0, 0x0002, "../../etc/passwd", 16);
    n += element(b + n, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0110, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), ERR_INVALID);
    n = element(b, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0110, id, 2);
    assert_int_equal(dimse_parse(b, n, &out, NULL), ERR_INVALID);
}

static void dimse__bounds_the_command_set(void **state)
{
    struct dimse_command out;
    uint8_t *b = calloc(1, DIMSE_COMMAND_MAX + 1);

    (void)state;
    assert_non_null(b);
    assert_int_equal(dimse_parse(b, DIMSE_COMMAND_MAX + 1, &out, NULL), ERR_LIMIT);
    free(b);
}

static void dimse__comments_hold_nothing_but_plain_text(void **state)
{
    const uint8_t field[2] = {0x30, 0x80}, type[2] = {0x01, 0x01}, id[2] = {1, 0};
    struct dimse_command out;
    uint8_t b[512];
    size_t n;

    (void)state;
    n = element(b, 0, 0x0100, field, 2);
    n += element(b + n, 0, 0x0120, id, 2);
    n += element(b + n, 0, 0x0800, type, 2);
    n += element(b + n, 0, 0x0900, "\0\xA7", 2);
    n += element(b + n, 0, 0x0902, "no\nroom\x1B[2J\xFF ", 14);
    assert_int_equal(dimse_parse(b, n, &out, NULL), 0);
    assert_string_equal(out.comment, "no?room?[2J?");
    assert_int_equal(out.status, 0xA700);
}

static void status__tells_transient_from_permanent(void **state)
{
    static const struct {
        uint16_t status;
        int err;
    } cases[] = {
        {0x0000, 0},
        {0xA700, ERR_PEER_BUSY},
        {0xA701, ERR_PEER_BUSY},
        {0xA7FF, ERR_PEER_BUSY},
        {0x0110, ERR_PEER_BUSY},
        {0x0213, ERR_PEER_BUSY},
        {0xA900, ERR_PEER_REFUSED},
        {0xA9FF, ERR_PEER_REFUSED},
        {0xC000, ERR_PEER_REFUSED},
        {0xCFFF, ERR_PEER_REFUSED},
        {0x0122, ERR_PEER_REFUSED},
        {0x0124, ERR_PEER_REFUSED},
        {0xFE00, ERR_PEER_REFUSED},
        {0xB000, 0},
        {0xB006, 0},
        {0xB007, 0},
        {0x0111, 0},
        {0x1234, ERR_PEER_REFUSED},
        {0xFF00, ERR_PEER_REFUSED},
        {0xA800, ERR_PEER_REFUSED},
        {0x0211, ERR_PEER_REFUSED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(status_to_err(cases[i].status), cases[i].err);
    assert_int_equal(status_kind(0xB007), STATUS_KIND_WARNING);
    assert_int_equal(status_kind(0xFF01), STATUS_KIND_PENDING);
    assert_int_equal(status_kind(0xFE00), STATUS_KIND_CANCELLED);
    assert_string_equal(status_name(0xA702), "out of resources");
    assert_string_equal(status_name(0x4321), "unknown status");
}

static void commitment__reads_back_its_request(void **state)
{
    struct commitment_item items[3];
    struct commitment c = {.items = items, .count = 3}, out;
    struct buf b;

    (void)state;
    memset(items, 0, sizeof items);
    strcpy(c.transaction, "2.25.99");
    for (int i = 0; i < 3; i++) {
        strcpy(items[i].sop_class, SOP_SECONDARY_CAPTURE);
        strcpy(items[i].sop_instance, i == 0 ? "1.2.3" : i == 1 ? "1.2.34" : "1.2.345");
    }
    buf_init(&b, COMMITMENT_BYTES_MAX);
    assert_int_equal(commitment_encode(&c, &b, NULL), 0);
    assert_int_equal(commitment_decode(b.data, b.len, SYNTAX_IMPLICIT_LE, &out, NULL), 0);
    assert_int_equal(out.count, 3);
    assert_string_equal(out.transaction, "2.25.99");
    assert_memory_equal(out.items, items, sizeof items);
    commitment_fini(&out);

    /* cut anywhere but between the two top-level elements it is refused */
    for (size_t cut = 0; cut < b.len; cut++) {
        int rc = commitment_decode(b.data, cut, SYNTAX_IMPLICIT_LE, &out, NULL);
        if (rc == 0) {
            assert_int_equal(out.count, 0);
            assert_int_equal(cut, 8 + 8);
            commitment_fini(&out);
        }
    }
    buf_fini(&b);
}

static void commitment__tells_failed_from_committed(void **state)
{
    /* explicit LE, undefined lengths: what pynetdicom and others send */
    static const uint8_t report[] = "\x08\x00\x95\x11UI\x04\x00"
                                    "1.2\0"
                                    "\x08\x00\x98\x11SQ\0\0\xFF\xFF\xFF\xFF"
                                    "\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"
                                    "\x08\x00\x50\x11UI\x04\x00"
                                    "1.9\0"
                                    "\x08\x00\x55\x11UI\x04\x00"
                                    "1.3\0"
                                    "\x08\x00\x97\x11US\x02\x00\x12\x01"
                                    "\xFE\xFF\x0D\xE0\0\0\0\0"
                                    "\xFE\xFF\xDD\xE0\0\0\0\0"
                                    "\x08\x00\x99\x11SQ\0\0\x20\0\0\0"
                                    "\xFE\xFF\x00\xE0\x18\0\0\0"
                                    "\x08\x00\x50\x11UI\x04\x00"
                                    "1.9\0"
                                    "\x08\x00\x55\x11UI\x04\x00"
                                    "1.4\0";
    struct commitment out;

    (void)state;
    assert_int_equal(commitment_decode(report, sizeof report - 1, SYNTAX_EXPLICIT_LE, &out, NULL),
                     0);
    assert_int_equal(out.count, 2);
    assert_true(out.items[0].failed);
    assert_int_equal(out.items[0].reason, 0x0112);
    assert_string_equal(out.items[0].sop_instance, "1.3");
    assert_false(out.items[1].failed);
    assert_string_equal(out.items[1].sop_instance, "1.4");
    commitment_fini(&out);
}

static void find__takes_the_number_and_ignores_other_series(void **state)
{
    struct find_query query = {.level = FIND_SERIES, .study = "1.2", .series = "1.2.3"};
    struct find_result result = {0};
    struct buf b;
    uint8_t r[256];
    size_t n;

    (void)state;
    buf_init(&b, FIND_BYTES_MAX);
    assert_int_equal(find_encode(&query, &b, NULL), 0);
    assert_int_equal(b.len, 8 + 6 + 8 + 4 + 8 + 6 + 8);
    buf_fini(&b);

    n = element(r, 0x0020, 0x000E, "1.2.4\0", 6);
    n += element(r + n, 0x0020, 0x1209, "99", 2);
    assert_int_equal(find_decode(&query, r, n, &result, NULL), 0);
    assert_int_equal(result.matches, 0);

    n = element(r, 0x0020, 0x000E, "1.2.3\0", 6);
    n += element(r + n, 0x0020, 0x1209, "15", 2);
    assert_int_equal(find_decode(&query, r, n, &result, NULL), 0);
    assert_int_equal(result.matches, 1);
    assert_int_equal(result.number, 15);
    assert_true(result.has_number);

    /* no number, or none that is one: to be counted image by image */
    struct find_result without = {0};
    n = element(r, 0x0020, 0x000E, "1.2.3\0", 6);
    n += element(r + n, 0x0020, 0x1209, "-3", 2);
    assert_int_equal(find_decode(&query, r, n, &without, NULL), 0);
    assert_int_equal(without.matches, 1);
    assert_false(without.has_number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dimse__reads_back_what_it_wrote),
        cmocka_unit_test(dimse__refuses_every_truncation),
        cmocka_unit_test(dimse__refuses_what_is_no_command),
        cmocka_unit_test(dimse__bounds_the_command_set),
        cmocka_unit_test(dimse__comments_hold_nothing_but_plain_text),
        cmocka_unit_test(status__tells_transient_from_permanent),
        cmocka_unit_test(commitment__reads_back_its_request),
        cmocka_unit_test(commitment__tells_failed_from_committed),
        cmocka_unit_test(find__takes_the_number_and_ignores_other_series),
    };
    return cmocka_run_group_tests_name("dicom_dimse", tests, NULL, NULL);
}
