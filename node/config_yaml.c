/*
 * config_yaml.c - the text of the configuration, checked key by key, with the line of each
 *
 * libcyaml reports where it stands in the text, which for an unknown or missing key is not where
 * the mistake is, and knows no defaults. So the text is first walked here along the same schema.
 * What passes here passes in libcyaml.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/json.h"

#include "node/config.h"
#include "node/config_schema.h"

/* Deepest nesting of the schema, and a little. */
#define DEPTH_MAX 12

/* Longest piece of a wrong value that an error shows. */
#define SHOWN_MAX 40

struct walk {
    struct config_text *text;
    struct err *e;
};

/* Where in the document we are: the keys for people and for the table of settings. */
struct place {
    char shown[CONFIG_KEY_BYTES];   /* rules[2].match */
    char setting[CONFIG_KEY_BYTES]; /* rules.match */
};

static int report(const struct walk *w, size_t line, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int report(const struct walk *w, size_t line, const char *key, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return err_set(w->e, ERR_CONFIG, "%s:%zu: %s%s%s", w->text->path, line, key,
                   *key != '\0' ? ": " : "", text);
}

static yaml_node_t *node_at(const struct walk *w, int id)
{
    return yaml_document_get_node(&w->text->document, id);
}

static size_t line_of(const struct walk *w, int id)
{
    return node_at(w, id)->start_mark.line + 1;
}

static const char *scalar_text(const yaml_node_t *n)
{
    return (const char *)n->data.scalar.value;
}

static struct place place_key(const struct place *parent, const char *key)
{
    struct place p;
    const char *dot = parent->setting[0] != '\0' ? "." : "";
    /* Keys of the schema are short and its depth is fixed: this always fits. */
    snprintf(p.shown, sizeof p.shown, "%.80s%s%.40s", parent->shown, dot, key);
    snprintf(p.setting, sizeof p.setting, "%.80s%s%.40s", parent->setting, dot, key);
    return p;
}

static struct place place_index(const struct place *parent, int i)
{
    struct place p = *parent;
    snprintf(p.shown, sizeof p.shown, "%.100s[%d]", parent->shown, i);
    return p;
}

static const char *kind_of(const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE     ? "a single value"
           : n->type == YAML_SEQUENCE_NODE ? "a list"
                                           : "a mapping of keys";
}

/* ---- scalars ---- */

static int wrong_value(const struct walk *w, int id, const struct place *p, const char *expected)
{
    const yaml_node_t *n = node_at(w, id);
    return report(w, line_of(w, id), p->shown, "expected %s, found '%.*s'%s", expected, SHOWN_MAX,
                  scalar_text(n), strlen(scalar_text(n)) > SHOWN_MAX ? "..." : "");
}

static int check_number(const struct walk *w, int id, const struct place *p, bool whole,
                        const struct config_setting *s)
{
    const char *text = scalar_text(node_at(w, id));
    char expected[96], *end;
    snprintf(expected, sizeof expected,
             whole ? "a whole number from %.0f to %.0f" : "a number from %g to %g", s->min, s->max);
    /* Decimal only: 0x10 and 010 mean different things to different readers of YAML. */
    if (text[strspn(text, whole ? "-0123456789" : "-+.eE0123456789")] != '\0' ||
        (whole && text[0] == '0' && text[1] != '\0'))
        return wrong_value(w, id, p, expected);
    errno = 0;
    double value = whole ? (double)strtoll(text, &end, 10) : strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !isfinite(value) || value < s->min ||
        value > s->max)
        return wrong_value(w, id, p, expected);
    return 0;
}

static int check_word(const struct walk *w, int id, const struct place *p,
                      const cyaml_schema_value_t *schema)
{
    const char *text = scalar_text(node_at(w, id));
    char expected[160] = "one of";
    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        const char *word = schema->enumeration.strings[i].str;
        if (strcmp(text, word) == 0)
            return 0;
        size_t n = strlen(expected);
        snprintf(expected + n, sizeof expected - n, "%s %s", i > 0 ? "," : "", word);
    }
    return wrong_value(w, id, p, expected);
}

static int check_scalar(const struct walk *w, int id, const struct place *p,
                        const cyaml_schema_value_t *schema)
{
    const yaml_node_t *n = node_at(w, id);
    const struct config_setting *s = config_setting_find(p->setting);
    if (s == NULL)
        return err_set(w->e, ERR_BUG, "no setting for %s", p->setting);
    if (n->type != YAML_SCALAR_NODE)
        return report(w, line_of(w, id), p->shown, "expected %s, found %s",
                      s->expected != NULL ? s->expected : "a single value", kind_of(n));
    if (strlen(scalar_text(n)) != n->data.scalar.length)
        return report(w, line_of(w, id), p->shown, "a NUL character is not allowed");
    const char *text = scalar_text(n);
    bool plain = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (plain && (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
        return report(w, line_of(w, id), p->shown,
                      "no value is given; expected %s (remove the key for its default)",
                      s->expected != NULL ? s->expected : "one");
    switch (schema->type) {
    case CYAML_INT:
        return check_number(w, id, p, true, s);
    case CYAML_FLOAT:
        return check_number(w, id, p, false, s);
    case CYAML_ENUM:
        return check_word(w, id, p, schema);
    default:
        if (n->data.scalar.length > schema->string.max)
            return report(w, line_of(w, id), p->shown, "expected at most %u bytes, found %zu",
                          schema->string.max, n->data.scalar.length);
        if (s->is_ok != NULL && !s->is_ok(text))
            return wrong_value(w, id, p, s->expected);
        return 0;
    }
}

/* ---- mappings and lists ---- */

static int walk_value(struct walk *w, int id, const struct place *p,
                      const cyaml_schema_value_t *schema);

static const cyaml_schema_field_t *field_find(const cyaml_schema_value_t *schema, const char *key)
{
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        if (strcmp(f->key, key) == 0)
            return f;
    }
    return NULL;
}

static int unknown_key(const struct walk *w, int key_id, const struct place *p,
                       const cyaml_schema_value_t *schema)
{
    char known[ERR_TEXT_MAX / 2] = "";
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n > 0 ? ", " : "", f->key);
    }
    char key[SHOWN_MAX + 1];
    snprintf(key, sizeof key, "%s", scalar_text(node_at(w, key_id)));
    struct place here = place_key(p, key);
    return report(w, line_of(w, key_id), here.shown, "unknown key; expected one of %s", known);
}

/* The value of key in mapping id, 0 if it has none. */
static int value_of(const struct walk *w, int id, const char *key)
{
    const yaml_node_t *n = node_at(w, id);
    if (n->type != YAML_MAPPING_NODE)
        return 0;
    for (yaml_node_pair_t *pair = n->data.mapping.pairs.start; pair < n->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *k = node_at(w, pair->key);
        if (k->type == YAML_SCALAR_NODE && strcmp(scalar_text(k), key) == 0)
            return pair->value;
    }
    return 0;
}

static int check_keys(const struct walk *w, int id, const struct place *p,
                      const cyaml_schema_value_t *schema)
{
    const yaml_node_t *n = node_at(w, id);
    for (yaml_node_pair_t *pair = n->data.mapping.pairs.start; pair < n->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *k = node_at(w, pair->key);
        if (k->type != YAML_SCALAR_NODE)
            return report(w, line_of(w, pair->key), p->shown, "expected a key, found %s",
                          kind_of(k));
        const cyaml_schema_field_t *f = field_find(schema, scalar_text(k));
        if (f == NULL)
            return unknown_key(w, pair->key, p, schema);
        if (value_of(w, id, f->key) != pair->value) {
            struct place here = place_key(p, f->key);
            return report(w, line_of(w, pair->key), here.shown,
                          "the key is given twice, first in line %zu",
                          line_of(w, value_of(w, id, f->key)));
        }
    }
    return 0;
}

/* Adds key with its default (or an empty mapping or list, which walk_value() then completes). */
static int add_default(struct walk *w, int id, const struct place *p, const cyaml_schema_field_t *f)
{
    yaml_document_t *d = &w->text->document;
    struct place here = place_key(p, f->key);
    int value = 0;
    if (f->value.type == CYAML_MAPPING) {
        value = yaml_document_add_mapping(d, NULL, YAML_ANY_MAPPING_STYLE);
    } else if (f->value.type == CYAML_SEQUENCE) {
        value = yaml_document_add_sequence(d, NULL, YAML_ANY_SEQUENCE_STYLE);
    } else {
        const struct config_setting *s = config_setting_find(here.setting);
        if (s == NULL)
            return err_set(w->e, ERR_BUG, "no setting for %s", here.setting);
        if (s->initial == NULL)
            return report(w, line_of(w, id), p->shown, "the key %s is missing; expected %s", f->key,
                          s->expected != NULL ? s->expected : "a value");
        value = yaml_document_add_scalar(d, NULL, (const yaml_char_t *)s->initial, -1,
                                         YAML_DOUBLE_QUOTED_SCALAR_STYLE);
    }
    int key =
        yaml_document_add_scalar(d, NULL, (const yaml_char_t *)f->key, -1, YAML_ANY_SCALAR_STYLE);
    if (value == 0 || key == 0 || !yaml_document_append_mapping_pair(d, id, key, value))
        return err_set(w->e, ERR_NOMEM, "reading %s: no memory", w->text->path);
    /* Mistakes about defaults (of keys that must agree) are shown where they would stand. */
    node_at(w, value)->start_mark = node_at(w, id)->start_mark;
    return 0;
}

static int walk_mapping(struct walk *w, int id, const struct place *p,
                        const cyaml_schema_value_t *schema)
{
    if (node_at(w, id)->type != YAML_MAPPING_NODE)
        return report(w, line_of(w, id), p->shown, "expected a mapping of keys, found %s",
                      kind_of(node_at(w, id)));
    int rc = check_keys(w, id, p, schema);
    for (const cyaml_schema_field_t *f = schema->mapping.fields; rc == 0 && f->key != NULL; f++) {
        if (value_of(w, id, f->key) == 0)
            rc = add_default(w, id, p, f);
        if (rc == 0) {
            struct place here = place_key(p, f->key);
            rc = walk_value(w, value_of(w, id, f->key), &here, &f->value);
        }
    }
    return rc;
}

static int walk_list(struct walk *w, int id, const struct place *p,
                     const cyaml_schema_value_t *schema)
{
    if (node_at(w, id)->type != YAML_SEQUENCE_NODE)
        return report(w, line_of(w, id), p->shown, "expected a list, found %s",
                      kind_of(node_at(w, id)));
    yaml_node_t *n = node_at(w, id);
    int count = (int)(n->data.sequence.items.top - n->data.sequence.items.start);
    if (count > CONFIG_LIST_MAX)
        return report(w, line_of(w, id), p->shown, "expected at most %d entries, found %d",
                      CONFIG_LIST_MAX, count);
    for (int i = 0; i < count; i++) {
        struct place here = place_index(p, i);
        /* The node may have moved: defaults are added to the same array. */
        int entry = node_at(w, id)->data.sequence.items.start[i];
        int rc = walk_value(w, entry, &here, schema->sequence.entry);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int walk_value(struct walk *w, int id, const struct place *p,
                      const cyaml_schema_value_t *schema)
{
    if (schema->type == CYAML_MAPPING)
        return walk_mapping(w, id, p, schema);
    if (schema->type == CYAML_SEQUENCE)
        return walk_list(w, id, p, schema);
    return check_scalar(w, id, p, schema);
}

/* ---- the file ---- */

static int syntax_error(const struct walk *w, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(w->e, ERR_NOMEM, "reading %s: no memory", w->text->path);
    size_t line = parser->problem_mark.line + 1;
    return report(w, line, "", "not well-formed YAML: %s%s%s",
                  parser->problem != NULL ? parser->problem : "unreadable",
                  parser->context != NULL ? " " : "",
                  parser->context != NULL ? parser->context : "");
}

/* What YAML allows and a configuration has no use for: aliases (a few lines can stand for
 * gigabytes), tags, a second document that would be passed over, deep nesting. */
static int check_events(const struct walk *w, const char *bytes, size_t n)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return err_set(w->e, ERR_NOMEM, "reading %s: no memory", w->text->path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
    int rc = 0, depth = 0, documents = 0;
    bool end = false;
    while (rc == 0 && !end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = syntax_error(w, &parser);
            break;
        }
        size_t line = event.start_mark.line + 1;
        const yaml_char_t *anchor = NULL, *tag = NULL;
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            end = true;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (++documents > 1)
                rc = report(w, line, "", "a second document begins; expected only one");
            break;
        case YAML_ALIAS_EVENT:
            rc = report(w, line, "", "aliases (*name) are not taken; write the value out");
            break;
        case YAML_SCALAR_EVENT:
            anchor = event.data.scalar.anchor;
            tag = event.data.scalar.tag;
            break;
        case YAML_SEQUENCE_START_EVENT:
            anchor = event.data.sequence_start.anchor;
            tag = event.data.sequence_start.tag;
            depth++;
            break;
        case YAML_MAPPING_START_EVENT:
            anchor = event.data.mapping_start.anchor;
            tag = event.data.mapping_start.tag;
            depth++;
            break;
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT:
            depth--;
            break;
        default:
            break;
        }
        if (rc == 0 && anchor != NULL)
            rc = report(w, line, "",
                        "anchors (&name) are not taken; put a text that begins with & in quotes");
        if (rc == 0 && tag != NULL)
            rc = report(w, line, "",
                        "tags (!name) are not taken; put a text that begins with ! in quotes");
        if (rc == 0 && depth > DEPTH_MAX)
            rc = report(w, line, "", "nested deeper than any key of the configuration");
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return rc;
}

static int load_document(const struct walk *w, const char *bytes, size_t n)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return err_set(w->e, ERR_NOMEM, "reading %s: no memory", w->text->path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
    int rc = yaml_parser_load(&parser, &w->text->document) ? 0 : syntax_error(w, &parser);
    yaml_parser_delete(&parser);
    return rc;
}

int config_text_init(struct config_text *t, const char *path, const char *bytes, size_t n,
                     struct err *e)
{
    memset(t, 0, sizeof *t);
    t->path = path;
    struct walk w = {.text = t, .e = e};
    int rc = check_events(&w, bytes, n);
    if (rc == 0)
        rc = load_document(&w, bytes, n);
    if (rc != 0)
        return rc;
    const struct place top = {"", ""};
    if (yaml_document_get_root_node(&t->document) == NULL)
        rc = report(&w, 1, "", "the file is empty; expected a mapping of keys");
    else
        rc = walk_value(&w, 1, &top, &config_schema);
    if (rc != 0)
        yaml_document_delete(&t->document);
    return rc;
}

void config_text_fini(struct config_text *t)
{
    yaml_document_delete(&t->document);
}

static void emit(yaml_document_t *d, int id, struct buf *out)
{
    /* JSON, every scalar in quotes: YAML that leaves libcyaml nothing to interpret. */
    yaml_node_t *n = yaml_document_get_node(d, id);
    if (n->type == YAML_SCALAR_NODE) {
        json_string(out, scalar_text(n));
    } else if (n->type == YAML_SEQUENCE_NODE) {
        buf_puts(out, "[");
        for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top;
             i++) {
            if (i > n->data.sequence.items.start)
                buf_puts(out, ", ");
            emit(d, *i, out);
        }
        buf_puts(out, "]");
    } else {
        buf_puts(out, "{");
        for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
             p++) {
            if (p > n->data.mapping.pairs.start)
                buf_puts(out, ", ");
            emit(d, p->key, out);
            buf_puts(out, ": ");
            emit(d, p->value, out);
        }
        buf_puts(out, "}\n");
    }
}

int config_text_emit(struct config_text *t, struct buf *out, struct err *e)
{
    emit(&t->document, 1, out);
    return buf_error(out) == 0 ? 0 : err_set(e, buf_error(out), "reading %s: too long", t->path);
}

int config_text_error(struct config_text *t, struct err *e, const char *key, const char *format,
                      ...)
{
    struct walk w = {.text = t, .e = e};
    int id = 1;
    const char *at = key;
    while (id != 0 && *at != '\0') {
        char word[CONFIG_KEY_BYTES];
        size_t n = strcspn(at, ".[");
        if (*at == '[') {
            int i = (int)strtol(at + 1, NULL, 10);
            id = node_at(&w, id)->data.sequence.items.start[i];
            at += strcspn(at, "]") + 1;
        } else {
            snprintf(word, sizeof word, "%.*s", (int)n, at);
            id = value_of(&w, id, word);
            at += n;
        }
        at += *at == '.';
    }
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return report(&w, id != 0 ? line_of(&w, id) : 1, key, "%s", text);
}
