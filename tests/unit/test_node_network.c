/* test_node_network.c - addresses and networks: what is one, and what lies in it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "node/base/err.h"

#include "node/network.h"

static bool holds(const char *network, const char *address)
{
    struct network n;
    struct err e;
    if (network_parse(network, &n, &e) != 0)
        fail_msg("%s: %s", network, e.text);
    return network_holds(&n, address);
}

static void network__holds_what_begins_with_its_bits(void **state)
{
    (void)state;
    assert_true(holds("192.0.2.7", "192.0.2.7"));
    assert_false(holds("192.0.2.7", "192.0.2.6"));
    assert_true(holds("192.0.2.0/24", "192.0.2.255"));
    assert_false(holds("192.0.2.0/24", "192.0.3.0"));
    assert_true(holds("192.0.2.128/25", "192.0.2.128"));
    assert_false(holds("192.0.2.128/25", "192.0.2.127"));
    assert_true(holds("10.16.0.0/12", "10.31.255.255"));
    assert_false(holds("10.16.0.0/12", "10.32.0.0"));
    assert_true(holds("192.0.2.7/32", "192.0.2.7"));
    assert_true(holds("2001:db8::/32", "2001:db8:ffff::1"));
    assert_false(holds("2001:db8::/32", "2001:db9::"));
    assert_true(holds("2001:db8::f0/124", "2001:db8::ff"));
    assert_false(holds("2001:db8::f0/124", "2001:db8::ef"));
    assert_true(holds("2001:DB8:0::1", "2001:db8::1"));
}

static void network__keeps_the_two_families_apart(void **state)
{
    (void)state;
    assert_true(holds("0.0.0.0/0", "203.0.113.9"));
    assert_false(holds("0.0.0.0/0", "::1"));
    assert_true(holds("::/0", "::1"));
    assert_false(holds("::/0", "203.0.113.9"));
    assert_true(holds("any", "203.0.113.9") && holds("any", "::1"));
    assert_false(holds("any", "unknown") || holds("any", ""));
    /* The same bytes in both. */
    assert_false(holds("32.1.13.184", "2001:db8::"));
}

static void network__refuses_all_else_and_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"pacs.example.org", "a host name would let the DNS decide"},
        {"localhost/8", "a host name would let the DNS decide"},
        {"", "a numeric address"},
        {"192.0.2", "a numeric address"},
        {"192.0.2.07", "a numeric address"},
        {"192.0.2.1.1", "a numeric address"},
        {"ANY", "a numeric address"},
        {"fe80::1%eth0", "a numeric address"},
        {"[::1]", "a numeric address"},
        {"0123456789012345678901234567890123456789012345678901234567890/8", "a numeric address"},
        {"192.0.2.0/33", "from /0 to /32"},
        {"192.0.2.0/", "from /0 to /32"},
        {"192.0.2.0/024", "from /0 to /32"},
        {"192.0.2.0/-1", "from /0 to /32"},
        {"192.0.2.0/24/8", "from /0 to /32"},
        {"192.0.2.0/255.255.255.0", "from /0 to /32"},
        {"2001:db8::/129", "from /0 to /128"},
        {"192.0.2.7/24", "expected 192.0.2.0/24 (that network) or 192.0.2.7"},
        {"2001:db8::1/32", "expected 2001:db8::/32 (that network) or 2001:db8::1"},
        {"::ffff:192.0.2.7", "an IPv4 address written as one"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct network n = {.bits = 77};
        struct err e = {0};
        if (network_parse(cases[i].text, &n, &e) != ERR_CONFIG ||
            strstr(e.text, cases[i].expected) == NULL)
            fail_msg("%s: %s", cases[i].text, e.text);
        assert_int_equal(n.bits, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network__holds_what_begins_with_its_bits),
        cmocka_unit_test(network__keeps_the_two_families_apart),
        cmocka_unit_test(network__refuses_all_else_and_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
