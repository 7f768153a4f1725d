/* synthesiser.c - see synthesiser.h; synthesiser_new() and its like: synthesise.h */
#include "node/synthesiser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/series.h"
#include "model/package.h"
#include "node/config.h"
#include "node/engines.h"
#include "node/synthesise.h"

/* Images at once on a GPU, where the configuration does not say. */
#define BATCH 8

int synthesiser_grid(const struct package *p, const struct series *s, int *rows, int *columns,
                     struct err *e)
{
    return package_grid(p, s->rows, s->columns, s->row_spacing_mm, s->column_spacing_mm, rows,
                        columns, e);
}

/* The engine that is asked for, and what may stand in for it. */
static int choose(const struct config_engine *engine, struct synthesiser *s, struct err *e)
{
    bool automatic = strcmp(engine->name, "auto") == 0;
    struct err why = {0};
    int rc = engines_choose(engine->name, &s->engine, &why);
    if (engine->fallback == CONFIG_FALLBACK_CPU ||
        (engine->fallback == CONFIG_FALLBACK_AUTO && automatic))
        s->fallback = engine_find("cpu");
    if (rc == ERR_DEVICE && s->fallback != NULL) {
        s->engine = s->fallback;
        snprintf(s->fallback_reason, sizeof s->fallback_reason, "%s", why.text);
        rc = 0;
    }
    if (rc != 0)
        return err_set(e, rc, "%s", why.text);
    if (s->fallback == s->engine || strcmp(s->engine->name, "cuda") != 0)
        s->fallback = NULL;
    return 0;
}

int synthesiser_new(const struct config_engine *engine, int number, struct synthesiser **out,
                    struct err *e)
{
    static const char *const isas[] = {[CONFIG_ISA_AUTO] = NULL,
                                       [CONFIG_ISA_BASE] = "base",
                                       [CONFIG_ISA_AVX2] = "avx2",
                                       [CONFIG_ISA_AVX512] = "avx512"};
    static const enum engine_precision precisions[] = {[CONFIG_PRECISION_F16] = ENGINE_F16,
                                                       [CONFIG_PRECISION_TF32] = ENGINE_TF32,
                                                       [CONFIG_PRECISION_F32] = ENGINE_F32};
    struct synthesiser *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(e, ERR_NOMEM, "starting the engine: no memory");
    int rc = choose(engine, s, e);
    if (rc != 0) {
        free(s);
        return rc;
    }
    s->options.threads = engine->threads;
    s->options.isa = isas[engine->isa];
    s->options.low_memory = engine->low_memory;
    s->options.precision = precisions[engine->precision];
    s->options.cache_folder = engine->cache;
    if (engine->devices_count > 0)
        s->options.device =
            engine->devices[(unsigned)(number > 0 ? number - 1 : 0) % engine->devices_count];
    s->batch = engine->batch > 0 ? engine->batch : BATCH;
    s->crosscheck = engine->crosscheck;
    s->kept_max = engine->low_memory ? 1 : KEPT_MODELS;
    *out = s;
    return 0;
}

void synthesiser_give(struct synthesiser *s, const char *path, const char *digest,
                      struct package *package)
{
    package_free(s->opened);
    s->opened = package;
    snprintf(s->opened_path, sizeof s->opened_path, "%s", path);
    snprintf(s->opened_digest, sizeof s->opened_digest, "%s", digest);
}

struct package *synthesiser_take_opened(struct synthesiser *s, const char *path, const char *digest)
{
    struct package *p = s->opened;
    if (p == NULL || strcmp(s->opened_path, path) != 0 || strcmp(s->opened_digest, digest) != 0)
        return NULL;
    s->opened = NULL;
    return p;
}

void synthesiser_settle(struct synthesiser *s)
{
    for (unsigned i = 0; i < KEPT_MODELS; i++) {
        struct kept *k = &s->kept[i];
        if (k->plan != NULL && !k->settled)
            engine_plan_settle(k->plan);
        k->settled = k->plan != NULL;
    }
}

bool synthesiser_may_fall_back(const struct synthesiser *s)
{
    return s != NULL && s->fallback != NULL;
}

void kept_fini(struct kept *k)
{
    engine_workspace_free(k->workspace);
    engine_plan_free(k->plan);
    package_free(k->package);
    *k = (struct kept){0};
}

void synthesiser_free(struct synthesiser *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < KEPT_MODELS; i++)
        kept_fini(&s->kept[i]);
    package_free(s->opened);
    free(s);
}

struct kept *kept_find(struct synthesiser *s, const char *digest, const struct series *series,
                       const struct engine *engine)
{
    for (unsigned i = 0; i < KEPT_MODELS; i++) {
        struct kept *k = &s->kept[i];
        int rows, columns;
        if (k->plan != NULL && strcmp(k->digest, digest) == 0 && k->engine == engine &&
            synthesiser_grid(k->package, series, &rows, &columns, NULL) == 0 && k->rows == rows &&
            k->columns == columns)
            return k;
    }
    return NULL;
}

int kept_free_others(struct synthesiser *s, const struct kept *but)
{
    int n = 0;
    for (unsigned i = 0; i < KEPT_MODELS; i++) {
        if (&s->kept[i] == but || s->kept[i].plan == NULL)
            continue;
        kept_fini(&s->kept[i]);
        n++;
    }
    return n;
}

static int64_t kept_bytes(const struct kept *k)
{
    return k->plan_bytes + (k->workspace != NULL ? k->work_bytes : 0);
}

/* What is held beside `but`: bytes, and the one used longest ago; work: of those with a workspace.
 */
static int64_t kept_total(struct synthesiser *s, const struct kept *but, bool work,
                          struct kept **oldest)
{
    int64_t total = 0;
    *oldest = NULL;
    for (unsigned i = 0; i < KEPT_MODELS; i++) {
        struct kept *k = &s->kept[i];
        if (k == but || k->plan == NULL)
            continue;
        total += kept_bytes(k);
        if ((k->workspace != NULL || !work) && (*oldest == NULL || k->used < (*oldest)->used))
            *oldest = k;
    }
    return total;
}

/* Frees workspaces of others than `but` until so many bytes fit, or none is left. */
static void kept_free_work(struct synthesiser *s, const struct kept *but, int64_t bytes)
{
    struct kept *oldest;
    while (kept_total(s, but, true, &oldest) + bytes > KEPT_BYTES && oldest != NULL) {
        engine_workspace_free(oldest->workspace);
        oldest->workspace = NULL;
    }
}

struct kept *kept_make_room(struct synthesiser *s, const struct kept *another)
{
    int64_t bytes = another->plan_bytes + another->work_bytes;
    kept_free_work(s, NULL, bytes);
    for (;;) {
        struct kept *empty = NULL, *oldest;
        unsigned count = 1;
        for (unsigned i = 0; i < KEPT_MODELS; i++) {
            if (s->kept[i].plan == NULL)
                empty = &s->kept[i];
            count += s->kept[i].plan != NULL;
        }
        int64_t total = kept_total(s, NULL, false, &oldest) + bytes;
        if (oldest == NULL || (empty != NULL && count <= s->kept_max && total <= KEPT_BYTES))
            return empty;
        kept_fini(oldest);
    }
}

int kept_wake(struct synthesiser *s, struct kept *k, struct err *e)
{
    if (k->workspace != NULL)
        return 0;
    kept_free_work(s, k, k->plan_bytes + k->work_bytes);
    int rc = engine_workspace_new(k->plan, &k->workspace, e);
    if (rc == ERR_NOMEM && kept_free_others(s, k) > 0)
        rc = engine_workspace_new(k->plan, &k->workspace, e);
    return rc;
}
