/*
 * parameters.h - what decides a job's result besides its inputs and its model, as one text
 *
 * Part of the job's key, so the text is canonical: one "name=value" line each, in a fixed order.
 * The last, quality, is left out where it is what the node does by default.
 */
#ifndef SPINENODE_PARAMETERS_H
#define SPINENODE_PARAMETERS_H

#include <stdbool.h>

#include "node/store.h"

struct config;
struct config_gate;
struct config_rule;
struct err;

struct parameters {
    char contrast[16]; /* what the series was taken for */
    char result[32];   /* "secondary-capture" or "mr-image" */
    bool mr_image;     /* the latter */
    char qualification[17];
    char description[65];
    char quality[32]; /* "input,result,uncalibrated": the most that the gate may do */
};

/* contrast: what the series was recognised as; the rule's own word goes before it. ERR_LIMIT: a
 * value does not fit; ERR_INVALID: one has a line end. */
int parameters_encode(const struct config *config, const struct config_rule *rule,
                      const char *contrast, char out[STORE_LONG], struct err *e);
int parameters_decode(const char *text, struct parameters *out, struct err *e);

/* What the gate may do, from `quality`. ERR_INVALID. */
int parameters_gate_read(const struct parameters *p, struct config_gate *out, struct err *e);

#endif
