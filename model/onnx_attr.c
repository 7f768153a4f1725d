/* onnx_attr.c - AttributeProto: read once per node, asked for by name, all of them accounted for */
#include "model/onnx_read.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

int attr_refuse(struct node_reader *nr, int code, const char *format, ...)
{
    if (nr->rc != 0)
        return nr->rc;
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    nr->rc = err_set(nr->e, code, "%s: %s", nr->what, text);
    return nr->rc;
}

static const char *type_name(int type)
{
    static const char *const names[] = {"undefined", "float",   "int",    "string",
                                        "tensor",    "graph",   "floats", "ints",
                                        "strings",   "tensors", "graphs"};
    return type >= 0 && type < (int)(sizeof names / sizeof names[0]) ? names[type] : "unknown";
}

static int read_attribute(struct node_reader *nr, struct span message, struct attr *a)
{
    struct wire w = wire_of(message, nr->r->start);
    struct field f;
    uint64_t declared = 0;
    unsigned seen = 0; /* bit per attribute type that has a field */
    int rc;
    a->message = message;
    while ((rc = wire_next(&w, &f, nr->e)) > 0) {
        static const struct {
            unsigned char wire, attr; /* attr: AttributeType, 0: not a value; 255: refused */
        } fields[] = {
            [1] = {WIRE_BYTES, 0},           [2] = {WIRE_FIXED32, ATTR_FLOAT},
            [3] = {WIRE_VARINT, ATTR_INT},   [4] = {WIRE_BYTES, ATTR_STRING},
            [5] = {WIRE_BYTES, ATTR_TENSOR}, [6] = {WIRE_BYTES, 5},
            [7] = {255, ATTR_FLOATS},        [8] = {255, ATTR_INTS},
            [9] = {WIRE_BYTES, 8},           [10] = {WIRE_BYTES, 9},
            [11] = {WIRE_BYTES, 10},
        };
        if (f.number == 20) {
            if ((rc = wire_expect(&f, WIRE_VARINT, "an attribute's type", nr->e)) != 0)
                return rc;
            declared = f.value;
            continue;
        }
        if (f.number == 21 && f.bytes.n > 0)
            return attr_refuse(nr, ERR_UNSUPPORTED, "refers to an attribute of a function");
        if (f.number < 1 || f.number > 11)
            continue;
        if (fields[f.number].wire != 255 &&
            (rc = wire_expect(&f, (enum wire_type)fields[f.number].wire, "an attribute", nr->e)) !=
                0)
            return rc;
        seen |= 1u << fields[f.number].attr;
        uint32_t bits = (uint32_t)f.value;
        switch (f.number) {
        case 1:
            a->name = f.bytes;
            break;
        case 2:
            memcpy(&a->f, &bits, sizeof a->f);
            break;
        case 3:
            a->i = (int64_t)f.value;
            break;
        case 4:
        case 5:
            a->s = f.bytes;
            break;
        default:
            break;
        }
    }
    if (rc < 0)
        return rc;
    char shown[64];
    onnx_printable(a->name, shown, sizeof shown);
    seen &= ~1u;
    if (declared == 0 && seen != 0) /* files before IR 3 have no types */
        declared = (uint64_t)__builtin_ctz(seen);
    if (declared == 5 || declared == 10)
        return attr_refuse(nr, ERR_UNSUPPORTED, "attribute '%s' holds a subgraph", shown);
    if (declared != ATTR_FLOAT && declared != ATTR_INT && declared != ATTR_STRING &&
        declared != ATTR_TENSOR && declared != ATTR_FLOATS && declared != ATTR_INTS)
        return attr_refuse(nr, ERR_UNSUPPORTED, "attribute '%s' has type %s", shown,
                           type_name(declared > 10 ? -1 : (int)declared));
    if ((seen & ~(1u << declared)) != 0)
        return attr_refuse(nr, ERR_INVALID, "attribute '%s' says it is %s and holds something else",
                           shown, type_name((int)declared));
    if (declared == ATTR_TENSOR && seen == 0)
        return attr_refuse(nr, ERR_INVALID, "attribute '%s' holds no tensor", shown);
    a->type = (enum attr_type)declared;
    return 0;
}

int onnx_read_attributes(struct node_reader *nr, struct span node_message)
{
    struct wire w = wire_of(node_message, nr->r->start);
    struct field f;
    int rc;
    while ((rc = wire_next(&w, &f, nr->e)) > 0) {
        if (f.number != 5)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "an attribute", nr->e)) != 0)
            return rc;
        if (nr->n_attr == ONNX_ATTRIBUTES_MAX)
            return attr_refuse(nr, ERR_LIMIT, "more than %d attributes", ONNX_ATTRIBUTES_MAX);
        struct attr *a = &nr->attr[nr->n_attr];
        memset(a, 0, sizeof *a);
        if ((rc = read_attribute(nr, f.bytes, a)) != 0)
            return rc;
        for (int i = 0; i < nr->n_attr; i++)
            if (span_equal(nr->attr[i].name, a->name)) {
                char shown[64];
                return attr_refuse(nr, ERR_INVALID, "attribute '%s' is there twice",
                                   onnx_printable(a->name, shown, sizeof shown));
            }
        nr->n_attr++;
    }
    return rc;
}

struct attr *attr_find(struct node_reader *nr, const char *name, enum attr_type type)
{
    for (int i = 0; i < nr->n_attr; i++) {
        struct attr *a = &nr->attr[i];
        if (!span_is(a->name, name))
            continue;
        a->used = true;
        if (a->type != type) {
            attr_refuse(nr, ERR_INVALID, "attribute '%s' is %s, must be %s", name,
                        type_name((int)a->type), type_name((int)type));
            return NULL;
        }
        return a;
    }
    return NULL;
}

int64_t attr_int(struct node_reader *nr, const char *name, int64_t absent, int64_t lowest,
                 int64_t highest)
{
    const struct attr *a = attr_find(nr, name, ATTR_INT);
    if (a == NULL)
        return absent;
    if (a->i < lowest || a->i > highest) {
        attr_refuse(nr, ERR_INVALID, "attribute '%s' is %lld, must be %lld to %lld", name,
                    (long long)a->i, (long long)lowest, (long long)highest);
        return absent;
    }
    return a->i;
}

float attr_float(struct node_reader *nr, const char *name, float absent)
{
    const struct attr *a = attr_find(nr, name, ATTR_FLOAT);
    if (a == NULL)
        return absent;
    if (!isfinite(a->f)) {
        attr_refuse(nr, ERR_NUMERIC, "attribute '%s' is NaN or infinite", name);
        return absent;
    }
    return a->f;
}

int attr_word(struct node_reader *nr, const char *name, const char *const *words)
{
    const struct attr *a = attr_find(nr, name, ATTR_STRING);
    if (a == NULL)
        return 0;
    for (int i = 0; words[i] != NULL; i++)
        if (span_is(a->s, words[i]))
            return i;
    char shown[64];
    attr_refuse(nr, ERR_UNSUPPORTED, "attribute '%s' is '%s', which is not supported", name,
                onnx_printable(a->s, shown, sizeof shown));
    return 0;
}

int attr_ints(struct node_reader *nr, const char *name, int64_t *out, int max, int64_t lowest,
              int64_t highest)
{
    const struct attr *a = attr_find(nr, name, ATTR_INTS);
    if (a == NULL)
        return -1;
    struct repeat it = repeat_of(a->message, nr->r->start, 8, WIRE_VARINT);
    uint64_t bits;
    int n = 0, rc;
    while ((rc = repeat_next(&it, &bits, nr->e)) > 0) {
        int64_t value = (int64_t)bits;
        if (n == max) {
            attr_refuse(nr, ERR_UNSUPPORTED, "attribute '%s' has more than %d numbers", name, max);
            return -1;
        }
        if (value < lowest || value > highest) {
            attr_refuse(nr, ERR_INVALID, "attribute '%s' holds %lld, must be %lld to %lld", name,
                        (long long)value, (long long)lowest, (long long)highest);
            return -1;
        }
        out[n++] = value;
    }
    if (rc < 0) {
        nr->rc = rc;
        return -1;
    }
    return n;
}
