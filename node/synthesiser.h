/*
 * synthesiser.h - the engine of a worker and the models that it ran last, compiled
 *
 * Between node/synthesise.c, which makes a series, and node/synthesiser.c. A model is kept for one
 * size of source; several may be, as long as they fit into KEPT_BYTES. One thread at a time.
 */
#ifndef SPINENODE_SYNTHESISER_H
#define SPINENODE_SYNTHESISER_H

#include <stdint.h>

#include "model/engine.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/file.h"

struct package;
struct series;

/* Compiled models that are kept, and the memory that they may take together (the last one used is
 * kept whatever it takes). */
#define KEPT_MODELS 4
#define KEPT_BYTES  (INT64_C(1) << 30)

/* A model compiled for one size of source. */
struct kept {
    char digest[DIGEST_HEX];
    int rows, columns;           /* package_grid() of the source */
    const struct engine *engine; /* for which it was asked; it may have come to be another */
    const struct engine *ran;
    char fallback_reason[ERR_TEXT_MAX];
    int batch;
    struct package *package;
    struct plan *plan;
    struct workspace *workspace; /* NULL: its memory was needed; kept_wake() */
    int64_t plan_bytes, work_bytes;
    bool checked; /* crosscheck() has seen a result of it */
    bool settled;
    uint64_t used; /* of synthesiser.uses */
};

struct synthesiser {
    const struct engine *engine, *fallback; /* fallback: where engine cannot; NULL: nowhere */
    char fallback_reason[ERR_TEXT_MAX];     /* when engine already is the fallback */
    struct engine_options options;
    int batch; /* images at once, on a GPU */
    bool crosscheck;
    unsigned kept_max;
    struct kept kept[KEPT_MODELS];
    uint64_t uses;
    /* By synthesiser_give(), until it is used; package NULL: none. */
    char opened_path[PATH_BYTES], opened_digest[DIGEST_HEX];
    struct package *opened;
};

/* package_grid() of a series. */
int synthesiser_grid(const struct package *p, const struct series *s, int *rows, int *columns,
                     struct err *e);

/* The model that was opened ahead, if it is this one: the caller's from now on. NULL: it is not. */
struct package *synthesiser_take_opened(struct synthesiser *s, const char *path,
                                        const char *digest);

/* Frees what a place holds; it is empty afterwards. */
void kept_fini(struct kept *k);
/* The model that has been compiled for this series by an engine; NULL: none. */
struct kept *kept_find(struct synthesiser *s, const char *digest, const struct series *series,
                       const struct engine *engine);
/* Frees all but `but`. How many there were. */
int kept_free_others(struct synthesiser *s, const struct kept *but);
/* Until another one fits, frees the workspaces, then the models, that were used longest ago;
 * returns its place. */
struct kept *kept_make_room(struct synthesiser *s, const struct kept *another);
/* Makes sure that it has its workspace, at the cost of others. ERR_NOMEM, ERR_DEVICE. */
int kept_wake(struct synthesiser *s, struct kept *k, struct err *e);

#endif
