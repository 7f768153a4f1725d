/* test_node_config.c - the configuration file: strict, complete, explained */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

#include "dicom/recognise.h"
#include "node/config.h"
#include "node/config_schema.h"

static char folder[] = "/tmp/spinenode-config-XXXXXX";
static char path[PATH_BYTES];

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/node.yaml", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* The models folder of every text: the temporary one, which is where the file is. */
static int load(const char *text, struct config **c, struct err *e)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    *c = NULL;
    return config_load(path, c, e);
}

#define MODELS "models: {folder: .}\n"
#define PACS   "destinations:\n  - {name: pacs, ae_title: PACS, host: pacs, port: 104}\n"
/* Three lines; what follows begins in line 4. */
#define BASE MODELS PACS

static void assert_error(const char *text, int line, const char *key, const char *expected)
{
    struct config *c;
    struct err e;
    char where[PATH_BYTES + 32], what[200];
    if (load(text, &c, &e) != ERR_CONFIG)
        fail_msg("loaded, or another error: %s\n%s", e.text, text);
    assert_null(c);
    snprintf(where, sizeof where, "%s:%d: ", path, line);
    snprintf(what, sizeof what, "%s: ", key);
    if (strncmp(e.text, where, strlen(where)) != 0 ||
        strncmp(e.text + strlen(where), what, strlen(what)) != 0 ||
        strstr(e.text, expected) == NULL)
        fail_msg("got      %s\nexpected %s%s%s", e.text, where, what, expected);
}

static void walk_schema(const cyaml_schema_field_t *fields, const char *above, unsigned *leaves)
{
    for (const cyaml_schema_field_t *f = fields; f->key != NULL; f++) {
        char key[CONFIG_KEY_BYTES];
        snprintf(key, sizeof key, "%s%s%s", above, *above != '\0' ? "." : "", f->key);
        const cyaml_schema_value_t *v = &f->value;
        if (v->type == CYAML_SEQUENCE)
            v = v->sequence.entry;
        if (v->type == CYAML_MAPPING) {
            walk_schema(v->mapping.fields, key, leaves);
            continue;
        }
        (*leaves)++;
        if (config_setting_find(key) == NULL)
            fail_msg("%s is in the schema and not among the settings", key);
    }
}

static void schema__and_settings_name_the_same_keys(void **state)
{
    (void)state;
    unsigned leaves = 0, settings = 0;
    walk_schema(config_schema.mapping.fields, "", &leaves);
    while (config_setting_at(settings) != NULL)
        settings++;
    assert_int_equal(leaves, settings);
}

static void load__gives_every_absent_key_its_default(void **state)
{
    (void)state;
    struct config *c;
    struct err e;
    assert_int_equal(load(BASE, &c, &e), 0);
    assert_string_equal(c->node.ae_title, "SPINENODE");
    assert_int_equal(c->node.port, 11112);
    assert_string_equal(c->node.content_qualification, "RESEARCH");
    assert_string_equal(c->models.folder, folder);
    assert_int_equal(c->callers_count, 0);
    assert_int_equal(c->destinations_count, 1);
    assert_int_equal(c->destinations[0].retry.longest_ms, 600000);
    assert_false(c->destinations[0].commitment);
    assert_int_equal(c->limits.associations, 32);
    assert_int_equal(c->limits.disk_free_bytes, 1 << 30);
    assert_string_equal(c->engine.name, "auto");
    assert_int_equal(c->engine.devices_count, 0);
    assert_int_equal(c->engine.precision, CONFIG_PRECISION_F16);
    assert_int_equal(c->engine.batch, 8);
    assert_int_equal(c->engine.fallback, CONFIG_FALLBACK_AUTO);
    assert_string_equal(c->path, path);
    assert_ptr_equal(config_destination_find(c, "pacs"), &c->destinations[0]);
    assert_null(config_destination_find(c, "PACS"));
    config_free(c);
}

static void load__leaves_recognition_at_its_defaults(void **state)
{
    (void)state;
    struct config *c;
    struct err e;
    struct recognise_options o;
    const struct recognise_options *d = &recognise_defaults;
    assert_int_equal(load(BASE, &c, &e), 0);
    config_recognise_options(c, &o);
    assert_true(o.t1_max_tr_ms == d->t1_max_tr_ms && o.t1_max_te_ms == d->t1_max_te_ms);
    assert_true(o.t2_min_tr_ms == d->t2_min_tr_ms && o.t2_min_te_ms == d->t2_min_te_ms);
    assert_true(o.pd_min_tr_ms == d->pd_min_tr_ms && o.pd_max_te_ms == d->pd_max_te_ms);
    assert_true(o.stir_min_ti_ms == d->stir_min_ti_ms && o.stir_max_ti_ms == d->stir_max_ti_ms);
    assert_true(o.stir_min_tr_ms == d->stir_min_tr_ms);
    assert_true(o.t1_flair_min_ti_ms == d->t1_flair_min_ti_ms);
    assert_true(o.t1_flair_max_ti_ms == d->t1_flair_max_ti_ms);
    assert_true(o.plane_min_cosine == d->plane_min_cosine);
    assert_int_equal(o.allow_3d, d->allow_3d);
    assert_int_equal(o.allow_body_part_by_name, d->allow_body_part_by_name);
    assert_int_equal(o.allow_unknown_body_part, d->allow_unknown_body_part);
    config_free(c);
}

static const char full[] = MODELS PACS
    "  - {name: archive, ae_title: ARCHIVE, host: '2001:db8::7', port: 2762,\n"
    "     tls: {authorities: roots.pem, peer_name: archive.example.org}}\n"
    "callers: [{ae_title: 'A B', addresses: ['::1', 192.0.2.0/24]},\n"
    "  {ae_title: C, addresses: [any]}]\n"
    "node: {tls: {certificate: our chain.pem, key: /k.pem, authorities: ca.pem,\n"
    "  clients: optional}, site_salt: \"no\", spool: 's \"p\" \\ x: #', log_level: debug}\n"
    "recognition: {t1_max_te_ms: 29.125, plane_min_cosine: 0.9500001}\n"
    "engine: {isa: avx2, low_memory: yes, devices: [1, GPU-6d3a], cache: plans,\n"
    "  precision: f32, batch: 16, fallback: none, crosscheck: no}\n"
    "rules:\n"
    "  - name: r1\n"
    "    match:\n"
    "      contrast: [T1]\n"
    "      slices: {min: 3}\n"
    "      tags: [{tag: '(0008,0060)', is: [MR, \"\", 'y'], is_not: ['12']}]\n"
    "    task: t1-to-t2\n"
    "    result: mr-image\n"
    "    destinations: [pacs]\n";

static void dump__loads_as_the_same(void **state)
{
    (void)state;
    struct config *first, *second;
    struct err e;
    struct buf a, b;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    assert_int_equal(load(full, &first, &e), 0);
    assert_int_equal(config_dump(first, &a, &e), 0);
    assert_int_equal(load(buf_text(&a), &second, &e), 0);
    assert_int_equal(config_dump(second, &b, &e), 0);
    assert_string_equal(buf_text(&a), buf_text(&b));
    for (int i = 0; i < 2; i++) {
        const struct config *c = i == 0 ? first : second;
        char spool[PATH_BYTES];
        snprintf(spool, sizeof spool, "%s/s \"p\" \\ x: #", folder);
        assert_string_equal(c->node.spool, spool);
        assert_string_equal(c->node.site_salt, "no");
        assert_string_equal(c->callers[0].ae_title, "A B");
        assert_int_equal(c->callers[0].addresses_count, 2);
        assert_string_equal(c->callers[0].addresses[0], "::1");
        assert_string_equal(c->callers[0].addresses[1], "192.0.2.0/24");
        assert_string_equal(c->callers[1].addresses[0], "any");
        char file[PATH_BYTES];
        snprintf(file, sizeof file, "%s/our chain.pem", folder);
        assert_string_equal(c->node.tls.certificate, file);
        assert_string_equal(c->node.tls.key, "/k.pem");
        assert_int_equal(c->node.tls.clients, CONFIG_CLIENTS_OPTIONAL);
        snprintf(file, sizeof file, "%s/roots.pem", folder);
        assert_string_equal(c->destinations[1].tls.authorities, file);
        assert_string_equal(c->destinations[1].tls.certificate, "");
        assert_string_equal(c->destinations[1].tls.peer_name, "archive.example.org");
        assert_true(c->recognition.t1_max_te_ms == 29.125);
        assert_true(c->recognition.plane_min_cosine == 0.9500001);
        assert_int_equal(c->engine.isa, CONFIG_ISA_AVX2);
        assert_true(c->engine.low_memory);
        assert_false(c->engine.crosscheck);
        char cache[PATH_BYTES];
        snprintf(cache, sizeof cache, "%s/plans", folder);
        assert_string_equal(c->engine.cache, cache);
        assert_int_equal(c->engine.devices_count, 2);
        assert_string_equal(c->engine.devices[0], "1");
        assert_string_equal(c->engine.devices[1], "GPU-6d3a");
        assert_int_equal(c->engine.precision, CONFIG_PRECISION_F32);
        assert_int_equal(c->engine.batch, 16);
        assert_int_equal(c->engine.fallback, CONFIG_FALLBACK_NONE);
        assert_int_equal(c->rules[0].result, CONFIG_RESULT_MR_IMAGE);
        assert_int_equal(c->rules[0].match.slices.min, 3);
        assert_int_equal(c->rules[0].match.slices.max, 0);
        const struct config_tag_match *t = &c->rules[0].match.tags[0];
        assert_int_equal(t->is_count, 3);
        assert_string_equal(t->is[1], "");
        assert_string_equal(t->is[2], "y");
        assert_string_equal(t->is_not[0], "12");
    }
    config_free(first);
    config_free(second);
    buf_fini(&a);
    buf_fini(&b);
}

static void load__names_line_and_key_of_unknown_and_missing_keys(void **state)
{
    (void)state;
    assert_error("node:\n  ae_title: X\n  prot: 5\n", 3, "node.prot", "expected one of ae_title, ");
    assert_error("nodes: {}\n", 1, "nodes", "expected one of node, models");
    assert_error(BASE "callers:\n  - addresses: [any]\n", 5, "callers[0]", "ae_title is missing");
    assert_error("node:\n  port: 1\n  bind: '::'\n  port: 2\n", 4, "node.port",
                 "given twice, first in line 2");
    assert_error(BASE "rules:\n  - name: r\n    match:\n      slices:\n        mni: 5\n", 8,
                 "rules[0].match.slices.mni", "expected one of min, max");
}

static void load__names_line_and_key_of_wrong_values(void **state)
{
    (void)state;
    assert_error("node:\n  port: 65536\n", 2, "node.port", "whole number from 1 to 65535, found");
    assert_error("node:\n\n  port: '0x10'\n", 3, "node.port", "found '0x10'");
    assert_error("node: {port: 010}\n", 1, "node.port", "found '010'");
    assert_error("node: {port: 1.5}\n", 1, "node.port", "found '1.5'");
    assert_error("node: {port: [1]}\n", 1, "node.port", "found a list");
    assert_error("node: 5\n", 1, "node", "expected a mapping of keys, found a single value");
    assert_error("callers: {ae_title: X}\n", 1, "callers", "expected a list, found a mapping");
    assert_error("engine: {low_memory: maybe}\n", 1, "engine.low_memory", "one of yes, no");
    assert_error("engine: {devices: [0, GPU 1]}\n", 1, "engine.devices[1]", "UUID of a GPU");
    assert_error("engine: {devices: [-1]}\n", 1, "engine.devices[0]", "found '-1'");
    assert_error("engine: {fallback: gpu}\n", 1, "engine.fallback", "one of auto, cpu, none");
    assert_error("engine: {precision: bf16}\n", 1, "engine.precision", "one of f16, tf32, f32");
    assert_error("engine: {batch: 0}\n", 1, "engine.batch", "from 1 to 256");
    assert_error("engine: {isa: AVX2}\n", 1, "engine.isa", "one of auto, base, avx2, avx512");
    assert_error("node:\n  ae_title: ABCDEFGHIJKLMNOPQ\n", 2, "node.ae_title", "1 to 16");
    assert_error("node:\n  ae_title: 'A\\B'\n", 2, "node.ae_title", "no backslash");
    assert_error("node:\n  ae_title: ' A'\n", 2, "node.ae_title", "no blanks");
    assert_error("node:\n  ae_title:\n", 2, "node.ae_title", "no value is given");
    assert_error("node:\n  site_salt: ~\n", 2, "node.site_salt", "no value is given");
    assert_error("node: {bind: localhost}\n", 1, "node.bind", "numeric");
    assert_error("node: {log_level: loud}\n", 1, "node.log_level", "debug, info");
    assert_error("recognition: {plane_min_cosine: .nan}\n", 1, "recognition.plane_min_cosine",
                 "a number from 0.5 to 1");
    assert_error("recognition: {plane_min_cosine: 0.9x}\n", 1, "recognition.plane_min_cosine",
                 "found '0.9x'");
    assert_error(BASE "rules:\n  - name: a b\n", 5, "rules[0].name", "letters, digits");
    assert_error(BASE "rules:\n  - name: a\n    task: t1-to-t3\n", 6, "rules[0].task",
                 "t2-to-stir, t2-to-tirm or xray-to-t2, found 't1-to-t3'");
    assert_error(BASE "rules:\n  - name: a\n    model: ../m.onnx\n", 6, "rules[0].model",
                 "not a path");
    assert_error(BASE "rules:\n  - name: a\n    match:\n      tags:\n        - tag: Modalitty\n", 8,
                 "rules[0].match.tags[0].tag", "a DICOM keyword or (gggg,eeee), found 'Modalitty'");
}

#define RULE BASE "rules:\n  - name: r\n    task: t1-to-t2\n    destinations: [pacs]\n"

static void load__names_line_and_key_of_what_does_not_agree(void **state)
{
    (void)state;
    assert_error("models:\n  folder: nowhere\n", 2, "models.folder", "No such file");
    assert_error("models:\n  folder: node.yaml\n", 2, "models.folder", "is no folder");
    assert_error(MODELS "callers:\n  - {ae_title: A, addresses: [any]}\n"
                        "  - {ae_title: B, addresses: [any]}\n"
                        "  - {ae_title: A, addresses: ['::1']}\n",
                 5, "callers[2].ae_title", "callers[0] has this AE title");
    assert_error(BASE "  - {name: pacs, ae_title: P2, host: h, port: 1}\n", 4,
                 "destinations[1].name", "destinations[0] is called 'pacs'");
    assert_error(BASE "  - {name: me, ae_title: SPINENODE, host: h, port: 1}\n", 4,
                 "destinations[1].ae_title", "own AE title");
    assert_error(BASE "  - {name: p2, ae_title: P2, host: h, port: 1, retry: {longest_ms: 100}}\n",
                 4, "destinations[1].retry.longest_ms", "at least first_ms (5000), found 100");
    assert_error(RULE "  - name: r\n    task: t1-to-t2\n    destinations: [pacs]\n", 8,
                 "rules[1].name", "rules[0] is called 'r'");
    assert_error(BASE "rules:\n  - name: r\n    destinations: [pacs]\n", 5, "rules[0]",
                 "task or model");
    assert_error(BASE "rules:\n  - name: r\n    task: t1-to-t2\n", 5, "rules[0].destinations",
                 "at least one");
    assert_error(BASE "rules:\n  - name: r\n    task: t1-to-t2\n    destinations: [pacs, x]\n", 7,
                 "rules[0].destinations[1]", "found 'x'");
    assert_error(BASE "rules:\n  - name: r\n    task: t1-to-t2\n    destinations: [pacs, pacs]\n",
                 7, "rules[0].destinations[1]", "given twice");
    assert_error(RULE "    match:\n      contrast: [T2]\n", 9, "rules[0].match.contrast[0]",
                 "needs T1, found T2");
    assert_error(RULE "    match:\n      rows: {min: 9, max: 3}\n", 9, "rules[0].match.rows",
                 "nothing matches");
    assert_error(RULE "    match:\n      tags:\n        - tag: Modality\n", 10,
                 "rules[0].match.tags[0]", "is or is_not");
    assert_error(BASE "completeness:\n  ask_pacs: x\n", 5, "completeness.ask_pacs", "found 'x'");
    assert_error(BASE "completeness: {quiet_ms: 9000, max_wait_ms: 8000}\n", 4,
                 "completeness.max_wait_ms", "at least quiet_ms (9000)");
    assert_error(BASE "recognition:\n  t2_min_te_ms: 20\n", 5, "recognition.t2_min_te_ms",
                 "at least t1_max_te_ms (30)");
}

#define CALLER(addresses) MODELS "callers:\n  - ae_title: A\n    addresses: " addresses "\n"

static void load__takes_callers_from_addresses_and_networks_but_not_from_names(void **state)
{
    (void)state;
    struct config *c;
    struct err e;
    assert_int_equal(load(CALLER("[192.0.2.7, 10.0.0.0/8, '2001:db8::/32', '::1']"), &c, &e), 0);
    assert_int_equal(c->callers[0].addresses_count, 4);
    config_free(c);
    assert_error(MODELS "callers:\n  - ae_title: A\n", 3, "callers[0].addresses",
                 "[any] = from anywhere");
    assert_error(CALLER("[]"), 4, "callers[0].addresses", "at least one address");
    assert_error(CALLER("any"), 4, "callers[0].addresses", "expected a list");
    assert_error(CALLER("[192.0.2.7, any]"), 4, "callers[0].addresses[1]", "stands alone");
    assert_error(CALLER("[192.0.2.7, pacs.example.org]"), 4, "callers[0].addresses[1]",
                 "found 'pacs.example.org'; a host name would let the DNS decide");
    assert_error(CALLER("[192.0.2.7/24]"), 4, "callers[0].addresses[0]",
                 "192.0.2.0/24 (that network) or 192.0.2.7 (that address alone)");
}

static void load__refuses_half_of_tls(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *key, *expected;
    } listener[] = {
        {"{key: k}", "node.tls.certificate", "which TLS cannot do without"},
        {"{authorities: a}", "node.tls.certificate", "which TLS cannot do without"},
        {"{clients: none}", "node.tls.certificate", "which TLS cannot do without"},
        {"{certificate: c, authorities: a}", "node.tls.key", "the certificate's key"},
        {"{certificate: c, key: k}", "node.tls.authorities", "callers' certificates"},
        {"{certificate: c, key: k, clients: optional}", "node.tls.authorities", "callers'"},
        {"{certificate: c, key: k, authorities: a, clients: none}", "node.tls.authorities",
         "remove this key"},
        {"{certificate: c, key: k, clients: yes}", "node.tls.clients",
         "one of required, optional, none"},
    };
    static const struct {
        const char *keys, *key, *expected;
    } destination[] = {
        {"{certificate: c, key: k}", "tls.authorities", "which TLS cannot do without"},
        {"{peer_name: p}", "tls.authorities", "which TLS cannot do without"},
        {"{authorities: a, key: k}", "tls.certificate", "certificate and key, or neither"},
        {"{authorities: a, certificate: c}", "tls.key", "certificate and key, or neither"},
        {"{authorities: a, peer_name: 'a b'}", "tls.peer_name", "a host name or a numeric address"},
    };
    char text[600], key[80];
    for (size_t i = 0; i < sizeof listener / sizeof *listener; i++) {
        snprintf(text, sizeof text, BASE "node:\n  tls: %s\n", listener[i].keys);
        assert_error(text, 5, listener[i].key, listener[i].expected);
    }
    for (size_t i = 0; i < sizeof destination / sizeof *destination; i++) {
        snprintf(text, sizeof text,
                 BASE "  - {name: p2, ae_title: P2, host: h, port: 1, tls: %s}\n",
                 destination[i].keys);
        snprintf(key, sizeof key, "destinations[1].%s", destination[i].key);
        assert_error(text, 4, key, destination[i].expected);
    }
}

static void load__looks_into_files_only_for_a_node_that_is_to_run(void **state)
{
    (void)state;
    struct config *c;
    struct err e;
    const char *text = MODELS "node:\n  tls:\n    certificate: missing.pem\n    key: k\n"
                              "    authorities: a\n";
    assert_int_equal(load(text, &c, &e), 0);
    config_free(c);
    c = NULL;
    struct transport *transport = NULL;
    assert_int_equal(config_load_to_run(path, &c, &transport, &e), ERR_CONFIG);
    assert_null(c);
    assert_null(transport);
    assert_non_null(strstr(e.text, "node.yaml:4: node.tls.certificate: cannot read "));
    assert_non_null(strstr(e.text, "missing.pem: No such file"));
}

static void load__refuses_what_yaml_allows_and_nobody_needs(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"node: {site_salt: &a x}\n", ":1: anchors (&name) are not taken"},
        {"node:\n  site_salt: *a\n", ":2: aliases (*name) are not taken"},
        {"node:\n  site_salt: !!str x\n", ":2: tags (!name) are not taken"},
        {"node: {}\n---\nnode: {}\n", ":2: a second document begins"},
        {"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n", ":1: nested deeper"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config *c;
        struct err e;
        assert_int_equal(load(cases[i].text, &c, &e), ERR_CONFIG);
        if (strstr(e.text, cases[i].expected) == NULL)
            fail_msg("got %s, expected %s", e.text, cases[i].expected);
    }
}

static void load__survives_texts_that_are_no_configuration(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "# nothing\n",
        "node: [\n",
        "\t",
        "- a\n- b\n",
        "node\n",
        "{}: {}\n",
        "? [a]\n: b\n",
        "node: {}\n---\nnode: {}\n",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]",
        MODELS "node: {ae_title: !!str X}\n",
        MODELS "node: {spool: \"a\\0b\"}\n",
        "\xff\xfe\xfd",
        MODELS "node: {ae_title: \"\xc3\x28\"}\n",
        "%YAML 9.9\n---\na: b\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct config *c;
        struct err e;
        if (load(texts[i], &c, &e) != ERR_CONFIG)
            fail_msg("text %zu is taken for a configuration", i);
        assert_null(c);
        assert_non_null(strstr(e.text, path));
    }
}

static void load__takes_relative_paths_from_the_files_folder(void **state)
{
    (void)state;
    struct config *c;
    struct err e;
    char expected[PATH_BYTES];
    assert_int_equal(load(MODELS "node: {database: db/x.sqlite, spool: /var/s}\n", &c, &e), 0);
    snprintf(expected, sizeof expected, "%s/db/x.sqlite", folder);
    assert_string_equal(c->node.database, expected);
    assert_string_equal(c->node.spool, "/var/s");
    config_free(c);
}

static void load__says_when_there_is_no_file(void **state)
{
    (void)state;
    struct config *c = NULL;
    struct err e;
    char missing[PATH_BYTES + 16];
    snprintf(missing, sizeof missing, "%s/missing.yaml", folder);
    assert_int_equal(config_load(missing, &c, &e), ERR_NOT_FOUND);
    assert_int_equal(config_load(folder, &c, &e), ERR_IO);
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema__and_settings_name_the_same_keys),
        cmocka_unit_test(load__gives_every_absent_key_its_default),
        cmocka_unit_test(load__leaves_recognition_at_its_defaults),
        cmocka_unit_test(dump__loads_as_the_same),
        cmocka_unit_test(load__names_line_and_key_of_unknown_and_missing_keys),
        cmocka_unit_test(load__names_line_and_key_of_wrong_values),
        cmocka_unit_test(load__names_line_and_key_of_what_does_not_agree),
        cmocka_unit_test(load__takes_callers_from_addresses_and_networks_but_not_from_names),
        cmocka_unit_test(load__refuses_half_of_tls),
        cmocka_unit_test(load__looks_into_files_only_for_a_node_that_is_to_run),
        cmocka_unit_test(load__refuses_what_yaml_allows_and_nobody_needs),
        cmocka_unit_test(load__survives_texts_that_are_no_configuration),
        cmocka_unit_test(load__takes_relative_paths_from_the_files_folder),
        cmocka_unit_test(load__says_when_there_is_no_file),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
