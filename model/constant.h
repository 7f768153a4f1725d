/*
 * constant.h - how constants are stored; for the reader, graph.c and the passes only
 *
 * Everybody else reads elements through constant_load_f32() and constant_load_i64().
 */
#ifndef SPINENODE_MODEL_CONSTANT_H
#define SPINENODE_MODEL_CONSTANT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/graph.h"

/* Little-endian elements, at any alignment. */
enum stored {
    STORED_F32,
    STORED_F64,
    STORED_F16,
    STORED_BF16,
    STORED_I64,
    STORED_I32,
    STORED_I16,
    STORED_I8,
    STORED_U32,
    STORED_U16,
    STORED_U8,
    STORED_BOOL
};
int stored_bytes(enum stored s); /* of one element */

enum constant_place {
    CONSTANT_ARENA,  /* in the graph's own memory */
    CONSTANT_SOURCE, /* in that of its source, or of who called onnx_parse() */
    CONSTANT_FILE    /* in the model's file or another, read when asked for */
};

struct constant {
    enum stored stored;
    enum constant_place place;
    const uint8_t *bytes; /* arena and source */
    int fd;               /* file: owned by the graph's source */
    int64_t offset;       /* file */
    int64_t count;
    /* If scale is set, element i stands for stored[i] · scale[(i / scale_inner) % scale_count]. */
    const double *scale;
    int64_t scale_count, scale_inner;
};

#define SOURCE_FILES_MAX 64 /* external files of one model */

/* What graphs made from one file share. Counted; the last graph frees and closes. */
struct source {
    int refs;      /* atomic */
    int fd;        /* the model's; -1: it was parsed from memory */
    void *memory;  /* what was read of it, at the offsets that it has there */
    int64_t bytes; /* of the file */
    int n_files;   /* with external data */
    int file_fd[SOURCE_FILES_MAX];
    char *file_name[SOURCE_FILES_MAX];
};
struct source *source_new(void);
void source_hold(struct source *s);
void source_drop(struct source *s);

/* A copy of a constant of another graph of the same source, owned by g; NULL: no memory. */
const struct constant *constant_copy(struct graph *g, const struct constant *c);

/* The same elements seen through a scale (multiplied with one that is there already).
 * scale: count doubles that live as long as the graph. NULL: no memory. */
const struct constant *constant_scaled(struct graph *g, const struct constant *c,
                                       const double *scale, int64_t count, int64_t inner);

/* Reads n bytes of a file. Never maps it, so that one that is cut meanwhile is an error and not a
 * signal. ERR_IO; what: "tensor 'w'", for messages. */
int source_read(int fd, int64_t offset, int64_t n, void *out, const char *what, struct err *e);

/* As constant_load_f32(), in double and with NaN and Inf let through. */
int constant_load_f64(const struct value *v, int64_t first, int64_t n, double *out, struct err *e);

#endif
