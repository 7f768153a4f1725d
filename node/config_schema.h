/*
 * config_schema.h - inside the reader of the configuration: its shape, and its text with lines
 *
 * config_schema.c holds the tables (which keys, which types, which defaults, which values are
 * allowed). config_yaml.c reads the file with libyaml, checks it against those tables, fills in
 * what is absent, and keeps for every key the line that it stands in. config.c then lets libcyaml
 * turn the completed text into struct config and checks what several keys must agree on.
 */
#ifndef SPINENODE_CONFIG_SCHEMA_H
#define SPINENODE_CONFIG_SCHEMA_H

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <yaml.h>

struct buf;
struct config;
struct err;
struct transport;

/* What libcyaml's schema cannot say about a scalar. */
struct config_setting {
    const char *path;    /* keys joined by '.', list indices left out */
    const char *initial; /* the value when the key is absent; NULL: it must be given */
    double min, max;     /* of a number */
    /* Of a text: is it allowed? NULL: any. */
    bool (*is_ok)(const char *text);
    const char *expected; /* "a whole number from 1 to 65535": made from min and max if NULL */
};

extern const cyaml_schema_value_t config_schema;

/* Every scalar of the schema has one (a unit test holds the two tables together). */
const struct config_setting *config_setting_find(const char *path);
const struct config_setting *config_setting_at(unsigned i); /* NULL after the last */

/* Longest path of keys, terminator included. */
#define CONFIG_KEY_BYTES 128

struct config_text {
    const char *path; /* of the file, as given; borrowed */
    yaml_document_t document;
};

/* Parses and checks bytes. On success t is to be freed with config_text_fini(). */
int config_text_init(struct config_text *t, const char *path, const char *bytes, size_t n,
                     struct err *e);
void config_text_fini(struct config_text *t);

/* Adds the whole text, defaults included, as YAML. */
int config_text_emit(struct config_text *t, struct buf *out, struct err *e);

/* Sets "FILE:LINE: KEY: format" for the value at key, e.g. "rules[2].match.slices"; keys with
 * defaults have the line of what they are in. Returns ERR_CONFIG. */
int config_text_error(struct config_text *t, struct err *e, const char *key, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

/* config_tls.c: what the keys for TLS must agree on, and what their files must hold. */
int config_tls_check(const struct config *c, struct config_text *t, struct err *e);
int config_tls_check_files(const struct config *c, struct config_text *t, struct transport **out,
                           struct err *e);

#endif
