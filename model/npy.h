/*
 * npy.h - NumPy array files (format 1.0 and 2.0), float32, for tensors on disk
 *
 * Read: little-endian '<f4', C order, rank 1-8, every dimension >= 1; refused: anything else
 * (other types, Fortran order, pickled objects, a file longer or shorter than its shape says). Any
 * thread.
 */
#ifndef SPINENODE_MODEL_NPY_H
#define SPINENODE_MODEL_NPY_H

#include <stdint.h>

#include "model/graph.h"

struct err;

struct npy {
    struct shape shape;
    float *data; /* owned; shape_count() elements */
};

/* max_bytes bounds the data. *out is to be given to npy_fini(). ERR_NOT_FOUND, ERR_IO, ERR_INVALID,
 * ERR_UNSUPPORTED (type), ERR_LIMIT. */
int npy_read(const char *path, int64_t max_bytes, struct npy *out, struct err *e);
void npy_fini(struct npy *a);

/* Format 1.0. Replaces the file whole or not at all. */
int npy_write(const char *path, const struct shape *shape, const float *data, struct err *e);

#endif
