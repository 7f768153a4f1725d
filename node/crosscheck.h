/*
 * crosscheck.h - what a GPU made of a slice, held against what the CPU makes of it
 *
 * A GPU runs plans that its libraries make for it, some compiled on the spot, and a plan may be
 * wrong: a network was seen to come out wrong, and no call had failed. So the first series of a
 * freshly compiled model is looked at once, by an engine that shares nothing with the GPU's but the
 * model.
 */
#ifndef SPINENODE_CROSSCHECK_H
#define SPINENODE_CROSSCHECK_H

#include <stdint.h>

struct engine_options;
struct err;
struct gate;

/* Of the grey range, at most: the tests hold halfs to a tenth of it; what was seen to be wrong was
 * wrong by most of the range. */
#define CROSSCHECK_MAX 0.05F

/* stored: the result of a slice, as from gate_run(); of *g the plan is not used. o: the threads and
 * the instruction set. ERR_DEVICE: another result; what engine_compile() and engine_run() return,
 * where the CPU cannot be asked. */
int crosscheck(const struct gate *g, int slice, const uint16_t *stored,
               const struct engine_options *o, struct err *e);

#endif
