/*
 * rules.h - which rules match a series, with which model, and why the others do not
 *
 * One decision for each rule of the configuration, each with its reason in words, so that
 * `spinenode route` and the node itself tell the same story. Reads the headers of the series' first
 * image when a rule asks for tags. Reasons name attributes and patterns, never values of the data
 * set that may be about a person.
 */
#ifndef SPINENODE_RULES_H
#define SPINENODE_RULES_H

#include "dicom/recognise.h"
#include "node/base/err.h"

struct catalogue;
struct catalogue_model;
struct config;
struct config_rule;
struct series;

enum rule_outcome {
    RULE_NO_MATCH, /* the series is not what the rule is for; or no model, and the rule optional */
    RULE_MATCHED,  /* make a job */
    RULE_REFUSED,  /* it matches, but the model does not take this series */
    RULE_NO_MODEL  /* it matches, but there is no such model: the admin has to act */
};

struct rule_decision {
    const struct config_rule *rule; /* borrowed from the configuration */
    enum rule_outcome outcome;
    const struct catalogue_model *model; /* matched and refused; borrowed from the catalogue */
    struct err reason; /* code 0 with text "" when matched; else code and why not, in one line */
};

struct rule_decisions {
    struct recognition recognition; /* without any rule's word */
    struct rule_decision *decision; /* in the order of the rules */
    unsigned count;
    unsigned matched; /* how many are RULE_MATCHED */
};

/* Decides. Every pointer in *out is valid as long as config and catalogue stay. ERR_NOMEM, and the
 * errors of dataset_open(); then *out is left alone. */
int rules_decide(const struct config *config, const struct catalogue *models,
                 const struct series *series, struct rule_decisions **out, struct err *e);
void rules_free(struct rule_decisions *d); /* NULL is fine */

/* "no_match", "matched", "refused", "no_model". */
const char *rule_outcome_word(enum rule_outcome outcome);

/* Does text match pattern: * is any text, ? any one byte, case ignored (ASCII). Time bounded by
 * the product of the lengths. */
bool rules_wildcard(const char *pattern, const char *text);

#endif
