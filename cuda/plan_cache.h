/*
 * plan_cache.h - tuned convolution plans, kept in a file between two starts
 *
 * One file for each (key, device, library): FOLDER/KEY-DEVICE-LIBRARY.plans. An entry is the spec
 * of a convolution, how much of the epilogue its plan fuses, the plan as text, and a checksum of
 * these. A file that cannot be read, or is damaged, gives the entries before the damage; one that
 * others than this user could have written gives none; one that cannot be written costs time at the
 * next start, nothing else. Written whole and renamed, with what others have written meanwhile, so
 * that several processes and threads may share a folder; a cache is one thread's at a time.
 */
#ifndef SPINENODE_CUDA_PLAN_CACHE_H
#define SPINENODE_CUDA_PLAN_CACHE_H

#include <stddef.h>

#include "cuda/convolution.h"

struct err;
struct plan_cache;

/* A spec as text, terminator included. */
#define PLAN_SPEC_BYTES 320
/* A plan's text, and a cache file, at most. */
#define PLAN_CACHE_MAX (64 << 20)

void plan_spec_text(const struct convolution_spec *s, char out[PLAN_SPEC_BYTES]);

/* folder or key NULL or "": an empty cache that is never written. Makes the folder when there is
 * something to write. key: the model's digest. ERR_NOMEM, ERR_LIMIT (path too long). */
int plan_cache_open(const char *folder, const char *key, const char *device, const char *library,
                    struct plan_cache **out, struct err *e);
/* Writes what is new, then frees. NULL is fine. */
void plan_cache_free(struct plan_cache *c);

/* Is there a file to keep plans in? */
bool plan_cache_keeps(const struct plan_cache *c);
/* The plan kept for this spec, or NULL; borrowed until the next plan_cache_keep() or free. */
const char *plan_cache_find(const struct plan_cache *c, const char *spec,
                            enum convolution_fused *fused);
/* Keeps a plan, instead of an earlier one of the spec. Without memory nothing is kept. */
void plan_cache_keep(struct plan_cache *c, const char *spec, enum convolution_fused fused,
                     const char *text, size_t n);
/* Writes what is new. */
void plan_cache_write(struct plan_cache *c);

#endif
