/*
 * catalogue.h - the model files in the models folder: what each says of itself, and its SHA-256
 *
 * A file that is no model of ours stays in the list with the reason. Files are read when they are
 * new or changed, so refreshing costs one stat() for each that is not.
 */
#ifndef SPINENODE_CATALOGUE_H
#define SPINENODE_CATALOGUE_H

#include <stdint.h>
#include <time.h>

#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/file.h"

#include "model/package.h"

struct config_rule;

/* Most files ending in ".onnx" that a folder may hold. */
#define CATALOGUE_MODELS_MAX 256

struct catalogue_model {
    char *file;              /* name in the folder */
    char path[PATH_BYTES];   /* of the file */
    char digest[DIGEST_HEX]; /* SHA-256 of the file; "" with a problem */
    struct package facts;    /* its texts are the catalogue's; graph is NULL */
    struct err problem;      /* code 0: facts and digest are set */
    int64_t bytes;           /* with modified and inode: has the file changed? */
    struct timespec modified;
    uint64_t inode;
};

struct catalogue {
    char folder[PATH_BYTES];
    struct catalogue_model *models; /* sorted by file name */
    unsigned models_count;
};

/* An empty catalogue of folder: call catalogue_refresh(). NULL: no memory. */
struct catalogue *catalogue_new(const char *folder);
void catalogue_free(struct catalogue *c); /* NULL is fine */

/* Makes the catalogue what the folder holds now. Pointers into it are invalid afterwards. ERR_IO,
 * ERR_NOT_FOUND (the folder), ERR_LIMIT; then the catalogue is as it was. */
int catalogue_refresh(struct catalogue *c, struct err *e);

/* The model that a rule names: its file, or the highest version (then the last file name) that
 * does its task. Borrowed. ERR_NOT_FOUND: there is none, the reason says which files were looked
 * at in vain; ERR_REFUSED: the rule's file does another task. */
int catalogue_choose(const struct catalogue *c, const struct config_rule *rule,
                     const struct catalogue_model **out, struct err *e);

#endif
