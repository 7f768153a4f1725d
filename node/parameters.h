/*
 * parameters.h - what decides a job's result besides its inputs and its model, as one text
 *
 * Part of the job's key, so the text is canonical: one "name=value" line each, in a fixed order.
 */
#ifndef SPINENODE_PARAMETERS_H
#define SPINENODE_PARAMETERS_H

#include <stdbool.h>

#include "node/store.h"

struct config;
struct config_rule;
struct err;

struct parameters {
    char contrast[16]; /* what the series was taken for */
    char result[32];   /* "secondary-capture" or "mr-image" */
    bool mr_image;     /* the latter */
    char qualification[17];
    char description[65];
};

/* contrast: what the series was recognised as; the rule's own word goes before it. ERR_LIMIT: a
 * value does not fit; ERR_INVALID: one has a line end. */
int parameters_encode(const struct config *config, const struct config_rule *rule,
                      const char *contrast, char out[STORE_LONG], struct err *e);
int parameters_decode(const char *text, struct parameters *out, struct err *e);

#endif
