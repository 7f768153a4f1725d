/*
 * intake.h - makes received instances durable, many at once, and enters them into the store
 *
 * An instance is durable when its file is fsync'd, its name is (the folder is fsync'd) and its row
 * is committed. The three run side by side; the second and third are shared by all instances that
 * wait at that moment (group commit), so sixteen associations cost hardly more syncs than one.
 * Side by side, because on restart a row is believed only if its file is what it says (spool.h).
 */
#ifndef SPINENODE_INTAKE_H
#define SPINENODE_INTAKE_H

#include "node/store.h"

struct err;
struct intake;
struct spool;

/* Starts its two threads. Both borrowed. */
int intake_new(struct intake **out, struct store *s, const struct spool *sp, struct err *e);
void intake_free(struct intake *in); /* when nobody is inside any more; NULL is fine */

/* Returns when instance, whose file is open as fd, is durable: 0, with instance->outcome. Any other
 * outcome than STORE_ADDED: the file was not needed and is removed. On failure nothing is left.
 * Any number of threads. */
int intake_commit(struct intake *in, int fd, struct store_instance *instance, struct err *e);

#endif
