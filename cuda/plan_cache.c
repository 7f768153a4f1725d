/* plan_cache.c - see plan_cache.h. An entry: "SPEC|FUSED|BYTES|SUM\n", so many bytes, a newline. */
#include "cuda/plan_cache.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

/* Another process writes for so long at most; then it is not waited for. */
#define LOCK_WAIT_MS 5000

struct kept {
    char spec[PLAN_SPEC_BYTES];
    enum convolution_fused fused;
    char *text;
    struct kept *next;
};

struct plan_cache {
    char folder[PATH_BYTES], path[PATH_BYTES]; /* path "": kept nowhere */
    struct kept *kept;
    bool changed;
};

void plan_spec_text(const struct convolution_spec *s, char out[PLAN_SPEC_BYTES])
{
    snprintf(out, PLAN_SPEC_BYTES,
             "n%" PRId64 " c%" PRId64 " h%" PRId64 " w%" PRId64 " k%" PRId64 " oh%" PRId64
             " ow%" PRId64 " kernel%" PRId64 "x%" PRId64 " stride%" PRId64 "x%" PRId64
             " dilation%" PRId64 "x%" PRId64 " pad%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
             " %s%s%s%s",
             s->n, s->c, s->h, s->w, s->k, s->oh, s->ow, s->kernel[0], s->kernel[1], s->stride[0],
             s->stride[1], s->dilation[0], s->dilation[1], s->pad_begin[0], s->pad_begin[1],
             s->pad_end[0], s->pad_end[1], s->half ? "half" : "float", s->tf32 ? "-tf32" : "",
             s->bias ? "-bias" : "", s->relu ? "-relu" : "");
    size_t n = strlen(out);
    if (convolution_wants_more(s))
        snprintf(out + n, PLAN_SPEC_BYTES - n, " leak%g second%" PRId64, (double)s->leak,
                 s->second_pitch);
}

/* FNV-1a, 64 bits, of all of an entry: against damage, not against malice. */
static uint64_t sum_of(const char *spec, int fused, const char *text, size_t n)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    const struct {
        const char *bytes;
        size_t n;
    } part[] = {{spec, strlen(spec) + 1}, {(const char[]){(char)fused}, 1}, {text, n}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        for (size_t k = 0; k < part[i].n; k++)
            sum = (sum ^ (unsigned char)part[i].bytes[k]) * UINT64_C(0x100000001b3);
    return sum;
}

/* Where the bytes of an entry begin, NULL if it is no whole entry. */
static const char *entry(const char *p, const char *end, char spec[PLAN_SPEC_BYTES], int *fused,
                         size_t *bytes)
{
    const char *line = memchr(p, '\n', (size_t)(end - p));
    const char *bar = line ? memchr(p, '|', (size_t)(line - p)) : NULL;
    char *after;
    if (!bar || bar - p >= PLAN_SPEC_BYTES)
        return NULL;
    memcpy(spec, p, (size_t)(bar - p));
    spec[bar - p] = '\0';
    long number = strtol(bar + 1, &after, 10);
    if (*after != '|' || number < CONVOLUTION_BARE || number > CONVOLUTION_ALL)
        return NULL;
    *fused = (int)number;
    *bytes = strtoul(after + 1, &after, 10);
    if (*after != '|')
        return NULL;
    uint64_t sum = strtoull(after + 1, &after, 16);
    /* the newline behind the bytes must be there, too */
    if (after != line || *bytes >= (size_t)(end - line) - 1 || line[1 + *bytes] != '\n')
        return NULL;
    return sum == sum_of(spec, *fused, line + 1, *bytes) ? line + 1 : NULL;
}

static struct kept *find(const struct plan_cache *c, const char *spec)
{
    for (struct kept *k = c->kept; k; k = k->next)
        if (strcmp(k->spec, spec) == 0)
            return k;
    return NULL;
}

/* What the file has of specs that are not kept yet. */

static void read_entries(struct plan_cache *c)
{
    struct buf b;
    buf_init(&b, PLAN_CACHE_MAX);
    if (file_read_own(c->path, &b, NULL) == 0) {
        const char *p = buf_text(&b), *end = p + b.len;
        while (p < end) {
            char spec[PLAN_SPEC_BYTES];
            int fused;
            size_t bytes;
            const char *body = entry(p, end, spec, &fused, &bytes);
            if (!body)
                break;
            if (!find(c, spec))
                plan_cache_keep(c, spec, (enum convolution_fused)fused, body, bytes);
            p = body + bytes + 1;
        }
    }
    buf_fini(&b);
}

int plan_cache_open(const char *folder, const char *key, const char *device, const char *library,
                    struct plan_cache **out, struct err *e)
{
    struct plan_cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a cache of plans");
    if (folder && folder[0] && key && key[0]) {
        char name[256];
        int n = snprintf(name, sizeof name, "%.64s-%.64s-%.32s.plans", key, device, library);
        for (int i = 0; i < n && i < (int)sizeof name; i++)
            if (name[i] == ' ' || name[i] == '/')
                name[i] = '_';
        int rc = file_join(c->path, folder, name, e);
        if (rc != 0) {
            free(c);
            return rc;
        }
        snprintf(c->folder, sizeof c->folder, "%s", folder);
        read_entries(c);
        c->changed = false;
    }
    *out = c;
    return 0;
}

/* The folder, locked against other writers if that can be had; -1 if not even opened. */
static int lock(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int ms = 0; fd >= 0 && ms < LOCK_WAIT_MS && flock(fd, LOCK_EX | LOCK_NB) != 0; ms += 10)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return fd;
}

void plan_cache_write(struct plan_cache *c)
{
    struct buf b;
    if (!c->changed || !c->path[0])
        return;
    buf_init(&b, PLAN_CACHE_MAX);
    if (file_make_folders(c->folder, 0777, NULL) == 0) {
        int locked = lock(c->folder);
        read_entries(c); /* what others have written since */
        for (const struct kept *k = c->kept; k; k = k->next) {
            size_t n = strlen(k->text);
            buf_printf(&b, "%s|%d|%zu|%016" PRIx64 "\n", k->spec, (int)k->fused, n,
                       sum_of(k->spec, (int)k->fused, k->text, n));
            buf_add(&b, k->text, n);
            buf_puts(&b, "\n");
        }
        if (buf_error(&b) == 0)
            file_write_durable(c->path, buf_text(&b), b.len, NULL);
        if (locked >= 0)
            close(locked);
    }
    buf_fini(&b);
    c->changed = false;
}

void plan_cache_free(struct plan_cache *c)
{
    if (!c)
        return;
    plan_cache_write(c);
    while (c->kept) {
        struct kept *next = c->kept->next;
        free(c->kept->text);
        free(c->kept);
        c->kept = next;
    }
    free(c);
}

bool plan_cache_keeps(const struct plan_cache *c)
{
    return c->path[0] != '\0';
}

const char *plan_cache_find(const struct plan_cache *c, const char *spec,
                            enum convolution_fused *fused)
{
    const struct kept *k = find(c, spec);
    if (k)
        *fused = k->fused;
    return k ? k->text : NULL;
}

void plan_cache_keep(struct plan_cache *c, const char *spec, enum convolution_fused fused,
                     const char *text, size_t n)
{
    struct kept *k = find(c, spec);
    char *copy = malloc(n + 1);
    if (!k && copy) {
        k = calloc(1, sizeof *k);
        if (k) {
            snprintf(k->spec, sizeof k->spec, "%s", spec);
            k->next = c->kept;
            c->kept = k;
        }
    }
    if (!k || !copy) {
        free(copy);
        return;
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    free(k->text);
    k->text = copy;
    k->fused = fused;
    c->changed = true;
}
