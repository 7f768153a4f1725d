/*
 * load.h - series from their files, within the limits of the configuration
 *
 * Whoever plans a series and whoever works on it must see the same one, so both load it here.
 */
#ifndef SPINENODE_LOAD_H
#define SPINENODE_LOAD_H

#include <stddef.h>
#include <stdint.h>

struct config_limits;
struct err;
struct series;
struct spool;
struct store;

/* Reads n files as series_read() does, with its errors. *out is to be freed with series_free(). */
int load_series(const char *const *paths, size_t n, const struct config_limits *limits,
                struct series **out, struct err *e);

/* The same for a series of the store up to and including a revision, from the files in the spool.
 * Also ERR_REFUSED: its instances name different studies. */
int load_spooled(const struct spool *sp, struct store *s, const struct config_limits *limits,
                 int64_t series_id, int64_t revision, struct series **out, struct err *e);

#endif
