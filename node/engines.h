/*
 * engines.h - which engine runs: the one that was asked for, or the fastest that works here
 *
 * main.c alone knows whether CUDA was built, and registers its engine; whether there is a GPU is
 * asked without touching it: the CUDA engine must first be used by the process that computes.
 */
#ifndef SPINENODE_ENGINES_H
#define SPINENODE_ENGINES_H

#include <stdbool.h>

struct engine;
struct err;

/* Is there a GPU that this build could use (its driver's device file)? */
bool engines_have_gpu(void);

/* "ref", "cpu", "cuda"; "auto" or NULL: cuda where there is a GPU, else cpu, else ref.
 * ERR_UNSUPPORTED: not in this build, with what is; ERR_DEVICE: cuda, and there is no GPU. */
int engines_choose(const char *name, const struct engine **out, struct err *e);

#endif
