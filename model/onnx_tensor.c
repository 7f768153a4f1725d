/*
 * onnx_tensor.c - TensorProto: weights left where they lie
 *
 * raw_data and packed float_data stay in the file, as far as they are large; external data stay in
 * their own file; numbers stored as varints, and floats that came in pieces, are decoded.
 */
#include "model/onnx_read.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/base/err.h"

/* TensorProto.DataType */
enum {
    T_FLOAT = 1,
    T_UINT8,
    T_INT8,
    T_UINT16,
    T_INT16,
    T_INT32,
    T_INT64,
    T_STRING,
    T_BOOL,
    T_FLOAT16,
    T_DOUBLE,
    T_UINT32,
    T_UINT64,
    T_COMPLEX64,
    T_COMPLEX128,
    T_BFLOAT16
};

static const struct {
    enum dtype dtype;
    enum stored stored;
    const char *name;
    bool known;
} types[] = {
    [T_FLOAT] = {DTYPE_F32, STORED_F32, "float", true},
    [T_UINT8] = {DTYPE_U8, STORED_U8, "uint8", true},
    [T_INT8] = {DTYPE_I64, STORED_I8, "int8", true},
    [T_UINT16] = {DTYPE_I64, STORED_U16, "uint16", true},
    [T_INT16] = {DTYPE_I64, STORED_I16, "int16", true},
    [T_INT32] = {DTYPE_I32, STORED_I32, "int32", true},
    [T_INT64] = {DTYPE_I64, STORED_I64, "int64", true},
    [T_STRING] = {DTYPE_I64, STORED_U8, "string", false},
    [T_BOOL] = {DTYPE_BOOL, STORED_BOOL, "bool", true},
    [T_FLOAT16] = {DTYPE_F32, STORED_F16, "float16", true},
    [T_DOUBLE] = {DTYPE_F32, STORED_F64, "double", true},
    [T_UINT32] = {DTYPE_I64, STORED_U32, "uint32", true},
    [T_UINT64] = {DTYPE_I64, STORED_I64, "uint64", true},
    [T_COMPLEX64] = {DTYPE_F32, STORED_F32, "complex64", false},
    [T_COMPLEX128] = {DTYPE_F32, STORED_F64, "complex128", false},
    [T_BFLOAT16] = {DTYPE_F32, STORED_BF16, "bfloat16", true},
};

int onnx_dtype(uint64_t data_type, enum dtype *out, const char *what, struct err *e)
{
    if (data_type == 0)
        return err_set(e, ERR_INVALID, "%s has no data type", what);
    if (data_type >= sizeof types / sizeof types[0])
        return err_set(e, ERR_UNSUPPORTED, "%s has data type %llu, which is not supported", what,
                       (unsigned long long)data_type);
    if (!types[data_type].known)
        return err_set(e, ERR_UNSUPPORTED, "%s has data type %s, which is not supported", what,
                       types[data_type].name);
    *out = types[data_type].dtype;
    return 0;
}

char *onnx_printable(struct span s, char *out, size_t size)
{
    size_t n = (size_t)s.n < size - 1 ? (size_t)s.n : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = s.p[i] >= 32 && s.p[i] < 127 ? (char)s.p[i] : '?';
    out[n] = '\0';
    return out;
}

/* --- external data ---------------------------------------------------------------------------- */

struct external {
    char location[512];
    int64_t offset, length; /* length -1: to be taken from the shape */
};

static int parse_number(struct span s, int64_t *out)
{
    if (s.n < 1 || s.n > 18)
        return ERR_INVALID;
    int64_t value = 0;
    for (int64_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return ERR_INVALID;
        value = value * 10 + (s.p[i] - '0');
    }
    *out = value;
    return 0;
}

/* One StringStringEntryProto of external_data. */
static int read_external_entry(struct reader *r, struct span message, struct external *x,
                               const char *what, struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    struct span key = {0}, text = {0};
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != 1 && f.number != 2)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "external data's entry", e)) != 0)
            return rc;
        *(f.number == 1 ? &key : &text) = f.bytes;
    }
    if (rc < 0)
        return rc;
    if (span_is(key, "location")) {
        if (text.n < 1 || text.n >= (int64_t)sizeof x->location ||
            memchr(text.p, 0, (size_t)text.n))
            return err_set(e, ERR_INVALID, "%s: external data's file name is empty or too long",
                           what);
        memcpy(x->location, text.p, (size_t)text.n);
        x->location[text.n] = '\0';
    } else if (span_is(key, "offset")) {
        if (parse_number(text, &x->offset) != 0)
            return err_set(e, ERR_INVALID, "%s: external data's offset is not a number", what);
    } else if (span_is(key, "length")) {
        if (parse_number(text, &x->length) != 0)
            return err_set(e, ERR_INVALID, "%s: external data's length is not a number", what);
    }
    return 0; /* checksum and unknown keys are not needed */
}

static bool goes_up(const char *path)
{
    for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
            return true;
    return false;
}

/* Opens a file beneath the model's folder once, however many tensors lie in it. */
static int open_external(struct reader *r, const char *location, const char *what, int *fd,
                         int64_t *size, struct err *e)
{
    struct source *s = r->g->source;
    char shown[128];
    onnx_printable((struct span){(const uint8_t *)location, (int64_t)strlen(location)}, shown,
                   sizeof shown);
    struct stat st;
    for (int i = 0; i < s->n_files; i++)
        if (strcmp(s->file_name[i], location) == 0) {
            if (fstat(s->file_fd[i], &st) != 0)
                return err_errno(e, errno, "%s: cannot look at '%s'", what, shown);
            *fd = s->file_fd[i];
            *size = st.st_size;
            return 0;
        }
    if (r->folder_fd < 0)
        return err_set(e, ERR_REFUSED, "%s lies in another file ('%s'), which is not allowed here",
                       what, shown);
    if (s->n_files == SOURCE_FILES_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d files with external data", what,
                       SOURCE_FILES_MAX);
    if (goes_up(location))
        return err_set(e, ERR_REFUSED,
                       "%s: external data '%s' has a '..' in its path: name the file from the "
                       "model's folder down",
                       what, shown);
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int opened = (int)syscall(SYS_openat2, r->folder_fd, location, &how, sizeof how);
    if (opened < 0 && (errno == EXDEV || errno == ELOOP))
        return err_set(
            e, ERR_REFUSED,
            "%s: external data '%s' is a link or lies outside the model's folder: put the "
            "file itself beside the model",
            what, shown);
    if (opened < 0)
        return err_errno(e, errno, "%s: cannot open external data '%s'", what, shown);
    if (fstat(opened, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(opened);
        return err_set(e, ERR_REFUSED, "%s: external data '%s' is not a regular file", what, shown);
    }
    char *name = strdup(location);
    if (name == NULL) {
        close(opened);
        return err_set(e, ERR_NOMEM, "no memory for the model");
    }
    s->file_fd[s->n_files] = opened;
    s->file_name[s->n_files++] = name;
    *fd = opened;
    *size = st.st_size;
    return 0;
}

static int place_external(struct reader *r, struct span tensor, int64_t bytes, struct constant *c,
                          const char *what, struct err *e)
{
    struct external entries = {.length = -1}, *x = &entries;
    struct wire w = wire_of(tensor, r->start);
    struct field f;
    int64_t size = 0, end;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0)
        if (f.number == 13 && ((rc = wire_expect(&f, WIRE_BYTES, what, e)) != 0 ||
                               (rc = read_external_entry(r, f.bytes, x, what, e)) != 0))
            return rc;
    if (rc < 0)
        return rc;
    if (x->location[0] == '\0')
        return err_set(e, ERR_INVALID, "%s has external data without a file name", what);
    if (x->length >= 0 && x->length != bytes)
        return err_set(e, ERR_INVALID, "%s: external data has %lld bytes, its shape needs %lld",
                       what, (long long)x->length, (long long)bytes);
    if ((rc = open_external(r, x->location, what, &c->fd, &size, e)) != 0)
        return rc;
    if (size > r->limits.file_bytes)
        return err_set(e, ERR_LIMIT, "%s: its external file is larger than %lld bytes", what,
                       (long long)r->limits.file_bytes);
    if (__builtin_add_overflow(x->offset, bytes, &end) || end > size)
        return err_set(e, ERR_INVALID,
                       "%s: external data ends at byte %lld of a file of %lld bytes", what,
                       (long long)x->offset + (long long)bytes, (long long)size);
    c->place = CONSTANT_FILE;
    c->offset = x->offset;
    return 0;
}

/* --- numbers in fields of their own ----------------------------------------------------------- */

/* Memory for the elements, of which all tensors together may have a limited amount. */
static uint8_t *decoded(struct reader *r, const struct constant *c, const char *what, struct err *e)
{
    int64_t bytes = c->count * stored_bytes(c->stored);
    if (bytes > ONNX_DECODED_MAX - r->decoded) {
        err_set(e, ERR_LIMIT,
                "%s: the model has more than %d MiB of numbers that are not raw data: store them "
                "as raw data",
                what, ONNX_DECODED_MAX >> 20);
        return NULL;
    }
    r->decoded += bytes;
    uint8_t *data = graph_alloc(r->g, (size_t)bytes);
    if (data == NULL)
        err_set(e, ERR_NOMEM, "no memory for %s", what);
    return data;
}

static int wrong_count(const struct constant *c, int64_t n, const char *what, struct err *e)
{
    if (n < 0)
        return (int)n;
    return err_set(e, ERR_INVALID, "%s has %lld elements, its shape needs %lld", what, (long long)n,
                   (long long)c->count);
}

/* int32_data (all small types, float16 as bits) and int64_data, decoded to the stored type. */
static int decode_varints(struct reader *r, struct span message, uint32_t number,
                          struct constant *c, const char *what, struct err *e)
{
    size_t size = (size_t)stored_bytes(c->stored);
    if (c->count > message.n) /* each takes a byte or more */
        return wrong_count(c, repeat_count(message, r->start, number, WIRE_VARINT, e), what, e);
    uint8_t *data = decoded(r, c, what, e);
    if (data == NULL)
        return e->code;
    struct repeat it = repeat_of(message, r->start, number, WIRE_VARINT);
    uint64_t bits;
    int64_t n = 0;
    int rc;
    for (; (rc = repeat_next(&it, &bits, e)) > 0; n++) {
        uint8_t flag = bits != 0;
        if (n < c->count)
            memcpy(data + (size_t)n * size,
                   c->stored == STORED_BOOL ? (void *)&flag : (void *)&bits, size);
    }
    if (rc == 0 && n != c->count)
        return wrong_count(c, n, what, e);
    c->place = CONSTANT_ARENA;
    c->bytes = data;
    return rc;
}

/* Elements that lie in the file as they are. */
static void place_stored(const struct reader *r, struct span s, struct constant *c)
{
    c->place = CONSTANT_SOURCE;
    c->bytes = s.p;
    if (r->g->source->fd >= 0 && onnx_is_left_out(s.n)) {
        c->place = CONSTANT_FILE;
        c->fd = r->g->source->fd;
        c->offset = s.p - r->start;
    }
}

static int copy_stored(const struct reader *r, struct span s, uint8_t *out, const char *what,
                       struct err *e)
{
    if (r->g->source->fd >= 0 && onnx_is_left_out(s.n))
        return source_read(r->g->source->fd, s.p - r->start, s.n, out, what, e);
    memcpy(out, s.p, (size_t)s.n);
    return 0;
}

static int decode_floats(struct reader *r, struct span message, uint32_t number,
                         enum wire_type type, struct constant *c, const char *what, struct err *e)
{
    int64_t size = type == WIRE_FIXED64 ? 8 : 4, at = 0;
    int64_t n = repeat_count(message, r->start, number, type, e);
    if (n != c->count)
        return wrong_count(c, n, what, e);
    /* One packed field is the usual form: its bytes are the elements. */
    struct wire w = wire_of(message, r->start);
    struct field f;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0)
        if (f.number == number && f.type == WIRE_BYTES && f.bytes.n == n * size) {
            place_stored(r, f.bytes, c);
            return 0;
        }
    uint8_t *data = rc < 0 ? NULL : decoded(r, c, what, e);
    if (data == NULL)
        return e->code;
    w = wire_of(message, r->start);
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != number)
            continue;
        struct span s = f.type == WIRE_BYTES ? f.bytes : (struct span){(uint8_t *)&f.value, size};
        if (s.n > 0 && (rc = copy_stored(r, s, data + at, what, e)) != 0)
            return rc;
        at += s.n;
    }
    c->place = CONSTANT_ARENA;
    c->bytes = data;
    return rc;
}

/* --- TensorProto ------------------------------------------------------------------------------ */

struct tensor_fields {
    uint64_t data_type;
    struct span name, raw;
    bool has_raw, segmented;
    uint64_t location;
};

static int read_fields(struct reader *r, struct span message, struct tensor_fields *t,
                       struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        switch (f.number) {
        case 2:
            if ((rc = wire_expect(&f, WIRE_VARINT, "a tensor's data type", e)) != 0)
                return rc;
            t->data_type = f.value;
            break;
        case 3:
            t->segmented = true;
            break;
        case 8:
            if ((rc = wire_expect(&f, WIRE_BYTES, "a tensor's name", e)) != 0)
                return rc;
            t->name = f.bytes;
            break;
        case 9:
            if ((rc = wire_expect(&f, WIRE_BYTES, "a tensor's raw data", e)) != 0)
                return rc;
            t->raw = f.bytes;
            t->has_raw = true;
            break;
        case 14:
            if ((rc = wire_expect(&f, WIRE_VARINT, "a tensor's data location", e)) != 0)
                return rc;
            t->location = f.value;
            break;
        default:
            break;
        }
    }
    return rc;
}

static int read_dims(struct reader *r, struct span message, const char *what, struct shape *s,
                     struct err *e)
{
    struct repeat it = repeat_of(message, r->start, 1, WIRE_VARINT);
    uint64_t dim;
    int rc;
    s->rank = 0;
    while ((rc = repeat_next(&it, &dim, e)) > 0) {
        if (s->rank == GRAPH_RANK_MAX)
            return err_set(e, ERR_LIMIT, "%s has more than %d dimensions", what, GRAPH_RANK_MAX);
        if (dim > (uint64_t)ONNX_DIM_MAX)
            return err_set(e, ERR_INVALID, "%s has a dimension that is negative or above 2^31",
                           what);
        s->dim[s->rank++] = (int64_t)dim;
    }
    return rc;
}

/* Which field holds the elements when there is no raw_data, and do they number c->count? */
static int place_numbers(struct reader *r, struct span message, uint64_t data_type,
                         struct constant *c, const char *what, struct err *e)
{
    uint32_t number;
    enum wire_type type = WIRE_VARINT;
    switch (data_type) {
    case T_FLOAT:
        number = 4;
        type = WIRE_FIXED32;
        break;
    case T_DOUBLE:
        number = 10;
        type = WIRE_FIXED64;
        break;
    case T_INT64:
        number = 7;
        break;
    case T_UINT32:
    case T_UINT64:
        number = 11;
        break;
    default:
        number = 5;
        break;
    }
    return type == WIRE_VARINT ? decode_varints(r, message, number, c, what, e)
                               : decode_floats(r, message, number, type, c, what, e);
}

int onnx_read_tensor(struct reader *r, struct span message, const char *context, struct span *name,
                     enum dtype *dtype, struct shape *shape, const struct constant **out,
                     struct err *e)
{
    struct tensor_fields t = {0};
    char what[160], shown[96];
    int rc = read_fields(r, message, &t, e);
    if (rc < 0)
        return rc;
    snprintf(what, sizeof what, "%s '%s'", context, onnx_printable(t.name, shown, sizeof shown));
    if ((rc = onnx_dtype(t.data_type, dtype, what, e)) != 0 ||
        (rc = read_dims(r, message, what, shape, e)) != 0)
        return rc;
    if (t.segmented)
        return err_set(e, ERR_UNSUPPORTED, "%s is stored in segments, which is not supported",
                       what);
    int64_t count = shape_count(shape), bytes;
    if (count < 0 || count > r->limits.tensor_elements)
        return err_set(e, ERR_LIMIT, "%s has more than %lld elements", what,
                       (long long)r->limits.tensor_elements);
    struct constant *c = graph_alloc(r->g, sizeof *c);
    if (c == NULL)
        return err_set(e, ERR_NOMEM, "no memory for %s", what);
    c->stored = types[t.data_type].stored;
    c->count = count;
    bytes = count * stored_bytes(c->stored);
    if (t.location > 1)
        return err_set(e, ERR_INVALID, "%s has an unknown data location", what);
    if (t.location == 1) {
        rc = place_external(r, message, bytes, c, what, e);
    } else if (t.has_raw) {
        if (t.raw.n != bytes)
            return err_set(e, ERR_INVALID, "%s has %lld bytes of data, its shape needs %lld", what,
                           (long long)t.raw.n, (long long)bytes);
        place_stored(r, t.raw, c);
    } else {
        rc = place_numbers(r, message, t.data_type, c, what, e);
    }
    if (rc != 0)
        return rc;
    if (name != NULL)
        *name = t.name;
    *out = c;
    return 0;
}
