/*
 * constant.c - constants: where their elements lie and how they are read
 *
 * Elements are copied out on request, converted to float or int64 and checked to be finite, so
 * that weights are never held twice and never trusted.
 */
#include "model/constant.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node/base/err.h"

int stored_bytes(enum stored s)
{
    switch (s) {
    case STORED_F64:
    case STORED_I64:
        return 8;
    case STORED_F32:
    case STORED_I32:
    case STORED_U32:
        return 4;
    case STORED_F16:
    case STORED_BF16:
    case STORED_I16:
    case STORED_U16:
        return 2;
    case STORED_I8:
    case STORED_U8:
    case STORED_BOOL:
        return 1;
    }
    return 1;
}

struct source *source_new(void)
{
    struct source *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->refs = 1;
        s->fd = -1;
    }
    return s;
}

void source_hold(struct source *s)
{
    if (s != NULL)
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
}

void source_drop(struct source *s)
{
    if (s == NULL || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (s->memory != NULL)
        munmap(s->memory, (size_t)s->bytes);
    if (s->fd >= 0)
        close(s->fd);
    for (int i = 0; i < s->n_files; i++) {
        close(s->file_fd[i]);
        free(s->file_name[i]);
    }
    free(s);
}

/* --- conversion ------------------------------------------------------------------------------- */

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
    uint32_t bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float f = ldexpf((float)fraction, -24);
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float from_bfloat(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Fills out[0 ... n) with elements of a type, which may lie unaligned at p, each read by `from`. */
#define CONVERT_AS(type, from)                                                                     \
    for (int64_t i = 0; i < n; i++) {                                                              \
        type stored;                                                                               \
        memcpy(&stored, p + (size_t)i * sizeof stored, sizeof stored);                             \
        out[i] = (__typeof__(*out))from(stored);                                                   \
    }                                                                                              \
    break

#define CONVERT                                                                                    \
    switch (c->stored) {                                                                           \
    case STORED_F32:                                                                               \
        CONVERT_AS(float, );                                                                       \
    case STORED_F64:                                                                               \
        CONVERT_AS(double, );                                                                      \
    case STORED_F16:                                                                               \
        CONVERT_AS(uint16_t, from_half);                                                           \
    case STORED_BF16:                                                                              \
        CONVERT_AS(uint16_t, from_bfloat);                                                         \
    case STORED_I64:                                                                               \
        CONVERT_AS(int64_t, );                                                                     \
    case STORED_I32:                                                                               \
        CONVERT_AS(int32_t, );                                                                     \
    case STORED_I16:                                                                               \
        CONVERT_AS(int16_t, );                                                                     \
    case STORED_I8:                                                                                \
        CONVERT_AS(int8_t, );                                                                      \
    case STORED_U32:                                                                               \
        CONVERT_AS(uint32_t, );                                                                    \
    case STORED_U16:                                                                               \
        CONVERT_AS(uint16_t, );                                                                    \
    case STORED_U8:                                                                                \
        CONVERT_AS(uint8_t, );                                                                     \
    case STORED_BOOL:                                                                              \
        CONVERT_AS(uint8_t, 0 !=);                                                                 \
    }

/* Multiplies elements at ... at+n by their scales, run by run: a division per element would cost
 * more than reading the file. */
#define SCALE(out, at, n)                                                                          \
    do {                                                                                           \
        int64_t factor_ = (at) / c->scale_inner % c->scale_count;                                  \
        int64_t run_ = c->scale_inner - (at) % c->scale_inner;                                     \
        for (int64_t done_ = 0; done_ < (n); done_ += run_, run_ = c->scale_inner) {               \
            double by_ = c->scale[factor_];                                                        \
            run_ = run_ < (n)-done_ ? run_ : (n)-done_;                                            \
            for (int64_t k_ = done_; k_ < done_ + run_; k_++)                                      \
                (out)[k_] = (__typeof__(*(out)))((out)[k_] * by_);                                 \
            factor_ = factor_ + 1 < c->scale_count ? factor_ + 1 : 0;                              \
        }                                                                                          \
    } while (0);

static void convert_f32(const struct constant *c, const uint8_t *p, int64_t n, float *out)
{
    if (c->stored == STORED_F32) {
        memcpy(out, p, (size_t)n * sizeof *out);
        return;
    }
    CONVERT
}

static void convert_f64(const struct constant *c, const uint8_t *p, int64_t n, double *out)
{
    CONVERT
}

/* Integer elements only: a double may not fit an int64. */
static void convert_i64(const struct constant *c, const uint8_t *p, int64_t n, int64_t *out)
{
    switch (c->stored) {
    case STORED_F32:
    case STORED_F64:
    case STORED_F16:
    case STORED_BF16:
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    default:
        break;
    }
    CONVERT
}

int source_read(int fd, int64_t offset, int64_t n, void *out, const char *what, struct err *e)
{
    for (int64_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)out + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, errno, "cannot read the data of %s", what);
        if (got == 0)
            return err_set(e, ERR_IO,
                           "the data of %s end early: its file was cut while it was read", what);
        done += got;
    }
    return 0;
}

static int read_file(const struct value *v, int64_t first, int64_t n, void *out, struct err *e)
{
    const struct constant *c = v->constant;
    int64_t size = stored_bytes(c->stored);
    char what[160];
    snprintf(what, sizeof what, "tensor '%.140s'", v->name);
    return source_read(c->fd, c->offset + first * size, n * size, out, what, e);
}

#define PIECE 4096 /* elements converted at a time */

/* The stored bytes of a piece; b holds one of a file. */
static int piece(const struct value *v, int64_t first, int64_t n, uint8_t *b, const uint8_t **p,
                 struct err *e)
{
    const struct constant *c = v->constant;
    if (c->place != CONSTANT_FILE) {
        *p = c->bytes + first * stored_bytes(c->stored);
        return 0;
    }
    *p = b;
    return read_file(v, first, n, b, e);
}

static int check_range(const struct value *v, int64_t first, int64_t n, struct err *e)
{
    if (v->constant == NULL || first < 0 || n < 0 || first > v->constant->count - n)
        return err_set(e, ERR_BUG, "elements %lld+%lld of '%s' asked for", (long long)first,
                       (long long)n, v->name);
    return 0;
}

static bool all_finite(const float *x, int64_t n)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

/* Calls `convert` for each piece of elements first ... first+n−1; scales them; `check`: refuses a
 * piece that is not finite. */
#define LOAD(convert, scaled, check)                                                               \
    int rc = check_range(v, first, n, e);                                                          \
    const struct constant *c = v->constant;                                                        \
    uint8_t b[PIECE * 8];                                                                          \
    for (int64_t i = 0; rc == 0 && i < n; i += PIECE) {                                            \
        int64_t m = n - i < PIECE ? n - i : PIECE;                                                 \
        const uint8_t *p;                                                                          \
        if ((rc = piece(v, first + i, m, b, &p, e)) != 0)                                          \
            break;                                                                                 \
        convert(c, p, m, out + i);                                                                 \
        if (scaled && c->scale != NULL)                                                            \
            SCALE(out + i, first + i, m)                                                           \
        rc = check;                                                                                \
    }                                                                                              \
    return rc

static int check_finite(const struct value *v, const float *x, int64_t n, struct err *e)
{
    if (all_finite(x, n))
        return 0;
    return err_set(e, ERR_NUMERIC,
                   "weights '%s' hold NaN or infinity: the model file is damaged or its training "
                   "diverged",
                   v->name);
}

int constant_load_f32(const struct value *v, int64_t first, int64_t n, float *out, struct err *e)
{
    if (v->constant != NULL && v->constant->place == CONSTANT_FILE &&
        v->constant->stored == STORED_F32 && v->constant->scale == NULL) {
        int rc = check_range(v, first, n, e);
        if (rc == 0)
            rc = read_file(v, first, n, out, e); /* nothing to convert: at once, to its place */
        return rc ? rc : check_finite(v, out, n, e);
    }
    LOAD(convert_f32, true, check_finite(v, out + i, m, e));
}

int constant_load_f64(const struct value *v, int64_t first, int64_t n, double *out, struct err *e)
{
    LOAD(convert_f64, true, 0);
}

int constant_load_i64(const struct value *v, int64_t first, int64_t n, int64_t *out, struct err *e)
{
    LOAD(convert_i64, false, 0);
}

/* --- making constants ------------------------------------------------------------------------- */

const struct constant *constant_copy(struct graph *g, const struct constant *c)
{
    struct constant *copy = graph_alloc(g, sizeof *copy);
    if (copy == NULL)
        return NULL;
    *copy = *c;
    if (c->place == CONSTANT_ARENA) {
        size_t bytes = (size_t)c->count * (size_t)stored_bytes(c->stored);
        uint8_t *data = graph_alloc(g, bytes);
        if (data == NULL)
            return NULL;
        memcpy(data, c->bytes, bytes);
        copy->bytes = data;
    }
    if (c->scale != NULL) {
        double *scale = graph_alloc(g, (size_t)c->scale_count * sizeof *scale);
        if (scale == NULL)
            return NULL;
        memcpy(scale, c->scale, (size_t)c->scale_count * sizeof *scale);
        copy->scale = scale;
    }
    return copy;
}

const struct constant *constant_scaled(struct graph *g, const struct constant *c,
                                       const double *scale, int64_t count, int64_t inner)
{
    struct constant *scaled = graph_alloc(g, sizeof *scaled);
    double *product = graph_alloc(g, (size_t)count * sizeof *product);
    if (scaled == NULL || product == NULL)
        return NULL;
    for (int64_t i = 0; i < count; i++)
        product[i] =
            scale[i] * (c->scale ? c->scale[i * inner / c->scale_inner % c->scale_count] : 1);
    *scaled = *c;
    scaled->scale = product;
    scaled->scale_count = count;
    scaled->scale_inner = inner;
    return scaled;
}

static int set(struct graph *g, int value, const struct shape *s, enum stored stored,
               const void *data)
{
    int64_t count = shape_count(s);
    struct constant *c = graph_alloc(g, sizeof *c);
    if (c == NULL || count < 0)
        return ERR_NOMEM;
    size_t bytes = (size_t)count * (size_t)stored_bytes(stored);
    uint8_t *copy = graph_alloc(g, bytes);
    if (copy == NULL)
        return ERR_NOMEM;
    if (bytes > 0)
        memcpy(copy, data, bytes);
    c->stored = stored;
    c->place = CONSTANT_ARENA;
    c->bytes = copy;
    c->count = count;
    g->value[value].constant = c;
    g->value[value].shape = *s;
    return 0;
}

int graph_set_f32(struct graph *g, int value, const struct shape *s, const float *data)
{
    return set(g, value, s, STORED_F32, data);
}

int graph_set_i64(struct graph *g, int value, const struct shape *s, const int64_t *data)
{
    return set(g, value, s, STORED_I64, data);
}
