/* engine_cpu_lower.h - shared by engine_cpu_lower.c (graph, convolutions, norms) and
 * engine_cpu_plain.c (all other operators) */
#ifndef SPINENODE_MODEL_ENGINE_CPU_LOWER_H
#define SPINENODE_MODEL_ENGINE_CPU_LOWER_H

#include "model/engine_cpu_plan.h"

struct lower {
    const struct graph *g;
    struct cpu_plan *p;
    struct fusion f;
    struct place *place; /* [values] where it lies; root −1: nowhere yet */
    struct place *nhwc;  /* [values] its copy as NHWC, if one was made */
    int constants;       /* the root of the plan's constants */
    bool low_memory;
    struct err *e;
    int failed; /* why lower_step() gave NULL */
};

/* All return 0 or more, or a negative ERR_* with l->e set. A step pointer is good until the next.
 */
int lower_root(struct lower *l, enum root_kind kind, int index, size_t floats);
/* NULL: l->failed says why. */
struct step *lower_step(struct lower *l, enum step_kind kind, const struct node *n);
size_t lower_count(const struct place *t);
int lower_memory(struct lower *l, struct place *t, bool dense);
int lower_constant(struct lower *l, int value, size_t *at);
int lower_read(struct lower *l, int value, struct place *t);
int lower_read_nhwc(struct lower *l, int value, const struct node *n, struct place *t);
int lower_write(struct lower *l, int value, struct place *t);
int lower_copy(struct lower *l, const struct node *n, const struct place *in,
               const struct place *out, const struct act *act);
int lower_reshape(struct lower *l, const struct node *n, const struct place *in,
                  const struct place *out);

/* Any operator but convolutions, norms and Affine. ERR_UNSUPPORTED. */
int lower_plain(struct lower *l, const struct node *n);

#endif
