/*
 * config_dump.c - struct config as YAML that loads as the same
 *
 * Along libcyaml's schema, but not by libcyaml: it writes "" as an empty plain scalar, which reads
 * back as no value, and numbers with seventeen digits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/json.h"

#include "node/config.h"
#include "node/config_schema.h"

static void dump_value(struct buf *out, const void *at, const cyaml_schema_value_t *schema,
                       int indent);

/* Words that are sure to be texts for every reader of YAML need no quotes. */
static bool needs_quotes(const char *text)
{
    static const char *const meanings[] = {"yes",   "no", "on", "off", "true",
                                           "false", "y",  "n",  "null"};
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./";
    bool starts_well = (*text | 0x20) >= 'a' && (*text | 0x20) <= 'z';
    if ((!starts_well && *text != '/') || text[strspn(text, safe)] != '\0')
        return true;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        if (strcasecmp(text, meanings[i]) == 0)
            return true;
    }
    return false;
}

static void dump_text(struct buf *out, const char *text)
{
    if (needs_quotes(text))
        json_string(out, text);
    else
        buf_puts(out, text);
}

/* The fewest digits that read back as the same number. */
static void dump_number(struct buf *out, double value)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_puts(out, text);
}

static int64_t integer_at(const void *at, uint32_t size)
{
    int64_t wide = 0;
    int32_t narrow = 0;
    uint8_t byte = 0;
    switch (size) {
    case sizeof byte:
        memcpy(&byte, at, sizeof byte);
        return byte;
    case sizeof narrow:
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    default:
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
}

static const char *text_at(const void *at)
{
    char *text;
    memcpy(&text, at, sizeof text);
    return text;
}

static bool is_inline(const cyaml_schema_value_t *schema)
{
    return (schema->flags & CYAML_FLAG_FLOW) != 0;
}

static void dump_keys(struct buf *out, const char *at, const cyaml_schema_value_t *schema,
                      int indent, bool inside_line);

static void dump_list(struct buf *out, const char *at, const cyaml_schema_field_t *f, int indent)
{
    const cyaml_schema_value_t *entry = f->value.sequence.entry;
    int64_t count = integer_at(at + f->count_offset, f->count_size);
    char *entries;
    memcpy(&entries, at + f->data_offset, sizeof entries);
    if (count == 0 || is_inline(&f->value)) {
        buf_puts(out, " [");
        for (int64_t i = 0; i < count; i++) {
            if (i > 0)
                buf_puts(out, ", ");
            dump_text(out, text_at(entries + (size_t)i * entry->data_size));
        }
        buf_puts(out, "]\n");
        return;
    }
    buf_puts(out, "\n");
    for (int64_t i = 0; i < count; i++) {
        buf_printf(out, "%*s- ", indent + 2, "");
        dump_keys(out, entries + (size_t)i * entry->data_size, entry, indent + 4, false);
    }
}

/* The keys of one mapping. The first stands where the cursor is, when it follows "- ". */
static void dump_keys(struct buf *out, const char *at, const cyaml_schema_value_t *schema,
                      int indent, bool inside_line)
{
    bool first = true;
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        if (inside_line)
            buf_printf(out, "%s%s:", first ? "" : ", ", f->key);
        else
            buf_printf(out, "%*s%s:", first ? 0 : indent, "", f->key);
        first = false;
        if (f->value.type == CYAML_SEQUENCE) {
            dump_list(out, at, f, indent);
            continue;
        }
        dump_value(out, at + f->data_offset, &f->value, indent);
        if (!inside_line && (f->value.type != CYAML_MAPPING || is_inline(&f->value)))
            buf_puts(out, "\n");
    }
}

static void dump_value(struct buf *out, const void *at, const cyaml_schema_value_t *schema,
                       int indent)
{
    double number;
    if (schema->type == CYAML_MAPPING && is_inline(schema)) {
        buf_puts(out, " {");
        dump_keys(out, at, schema, 0, true);
        buf_puts(out, "}");
        return;
    }
    if (schema->type == CYAML_MAPPING) {
        buf_printf(out, "\n%*s", indent + 2, "");
        dump_keys(out, at, schema, indent + 2, false);
        return;
    }
    buf_puts(out, " ");
    switch (schema->type) {
    case CYAML_INT:
        buf_printf(out, "%lld", (long long)integer_at(at, schema->data_size));
        break;
    case CYAML_FLOAT:
        memcpy(&number, at, sizeof number);
        dump_number(out, number);
        break;
    case CYAML_ENUM:
        for (uint32_t i = 0; i < schema->enumeration.count; i++) {
            if (schema->enumeration.strings[i].val == integer_at(at, schema->data_size)) {
                buf_puts(out, schema->enumeration.strings[i].str);
                break;
            }
        }
        break;
    default:
        dump_text(out, text_at(at));
        break;
    }
}

int config_dump(const struct config *c, struct buf *out, struct err *e)
{
    dump_keys(out, (const char *)c, &config_schema, 0, false);
    return buf_error(out) == 0 ? 0 : err_set(e, buf_error(out), "writing the configuration");
}
