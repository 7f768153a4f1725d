/* passes_util.h - small things that several rewrites need */
#ifndef SPINENODE_MODEL_PASSES_UTIL_H
#define SPINENODE_MODEL_PASSES_UTIL_H

#include "model/graph.h"

struct err;

/* The node that makes a value if it is of this kind, else NULL. */
struct node *pass_producer(struct graph *g, int value, enum op op);

bool pass_is_output(const struct graph *g, int value);

/* A constant of one element: *out; false if it is none. */
bool pass_scalar(const struct graph *g, int value, double *out);

/* The same of any number of elements that are all equal. */
bool pass_all_equal(const struct graph *g, int value, double *out);

/* Is a value constant, and one number per channel (axis 1) of a tensor of shape x, or one for all,
 * when broadcast against it? Then out[0 ... C) are the numbers. 1, 0 or an error. */
int pass_channels(const struct graph *g, int value, const struct shape *x, double *out,
                  struct err *e);

/* A new constant [C] of float32; the value or an error (set). */
int pass_new_channels(struct graph *g, const char *name, const double *data, int64_t C,
                      struct err *e);

int pass_no_memory(struct err *e);

/* Values to be read in place of others, applied at the end of a pass. */
struct replace {
    int *by; /* value → value */
    int n;
};
int replace_init(struct replace *r, const struct graph *g, struct err *e);
int replace_find(const struct replace *r, int value);
void replace_apply(struct replace *r, struct graph *g); /* and frees */

#endif
