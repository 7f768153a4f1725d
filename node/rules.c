/* rules.c - see rules.h */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "dicom/series.h"
#include "node/catalogue.h"
#include "node/config.h"
#include "node/rules.h"
#include "node/synthesise.h"

/* Most values of one attribute that are compared. */
#define VALUES_MAX 64

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

bool rules_wildcard(const char *pattern, const char *text)
{
    /* Greedy, going back to the last star only: enough, since a later star covers an earlier one.
     */
    const char *star = NULL, *resume = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern != '\0' && (*pattern == '?' || same_letter(*pattern, *text))) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

static bool any_pattern(char *const *patterns, uint32_t count, const char *text)
{
    for (uint32_t i = 0; i < count; i++) {
        if (rules_wildcard(patterns[i], text))
            return true;
    }
    return false;
}

/* "T1, T2 or STIR" */
static const char *list_words(char *const *words, uint32_t count, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s",
                              i == 0           ? ""
                              : i + 1 == count ? " or "
                                               : ", ",
                              words[i]);
    return out;
}

static bool no_match(struct rule_decision *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool no_match(struct rule_decision *d, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->outcome = RULE_NO_MATCH;
    err_set(&d->reason, ERR_NOT_FOUND, "%s", text);
    return false;
}

static bool match_word(struct rule_decision *d, const char *name, char *const *patterns,
                       uint32_t count, const char *found)
{
    if (count == 0 || any_pattern(patterns, count, found))
        return true;
    char wanted[200];
    return no_match(d, "%s is %s, and the rule wants %s", name, found,
                    list_words(patterns, count, wanted, sizeof wanted));
}

static bool match_range(struct rule_decision *d, const char *name, const struct config_range *r,
                        unsigned found)
{
    if (found >= (unsigned)r->min && (r->max == 0 || found <= (unsigned)r->max))
        return true;
    if (r->max == 0)
        return no_match(d, "it has %u %s, and the rule wants at least %d", found, name, r->min);
    return no_match(d, "it has %u %s, and the rule wants %d to %d", found, name, r->min, r->max);
}

/* The values of a tag in the first image; an absent or empty attribute has one value "". */
static unsigned read_values(const struct item *it, uint32_t tag, char values[][DATASET_TEXT_BYTES])
{
    unsigned count = it != NULL ? item_count(it, tag) : 0;
    count = count > VALUES_MAX ? VALUES_MAX : count;
    if (count == 0) {
        values[0][0] = '\0';
        return 1;
    }
    for (unsigned i = 0; i < count; i++)
        item_text(it, tag, i, values[i], DATASET_TEXT_BYTES);
    return count;
}

static bool match_tag(struct rule_decision *d, const struct config_tag_match *m,
                      const struct item *it, char values[][DATASET_TEXT_BYTES])
{
    uint32_t tag = 0;
    tag_from_text(m->tag, &tag);
    unsigned count = read_values(it, tag, values);
    bool wanted = m->is_count == 0, unwanted = false;
    for (unsigned i = 0; i < count; i++) {
        wanted = wanted || any_pattern(m->is, m->is_count, values[i]);
        unwanted = unwanted || any_pattern(m->is_not, m->is_not_count, values[i]);
    }
    char patterns[200];
    /* The value itself may be about the patient: it stays out of the reason. */
    if (!wanted)
        return no_match(d, "%s is not %s", m->tag,
                        list_words(m->is, m->is_count, patterns, sizeof patterns));
    if (unwanted)
        return no_match(d, "%s is %s, which the rule shuts out", m->tag,
                        list_words(m->is_not, m->is_not_count, patterns, sizeof patterns));
    return true;
}

/* What one decision needs of the series, read when first asked for. */
struct subject {
    const struct series *series;
    struct dataset *first;
    char (*values)[DATASET_TEXT_BYTES];
};

static int open_first(struct subject *s, struct err *e)
{
    if (s->first != NULL || s->series->slices == 0)
        return 0;
    if (s->values == NULL)
        s->values = malloc(VALUES_MAX * sizeof *s->values);
    if (s->values == NULL)
        return err_set(e, ERR_NOMEM, "matching the rules: no memory");
    return dataset_open(s->series->slice[0].path, NULL, &s->first, e);
}

static int match_tags(struct subject *s, const struct config_match *m, struct rule_decision *d,
                      bool *matched, struct err *e)
{
    *matched = true;
    if (m->tags_count == 0)
        return 0;
    int rc = open_first(s, e);
    if (rc != 0)
        return rc;
    const struct item *it = s->first != NULL ? dataset_root(s->first) : NULL;
    for (uint32_t i = 0; *matched && i < m->tags_count; i++)
        *matched = s->values != NULL && match_tag(d, &m->tags[i], it, s->values);
    return 0;
}

static bool match_recognised(const struct series *s, const struct recognition *r,
                             const struct config_match *m, struct rule_decision *d)
{
    return match_word(d, "the contrast", m->contrast, m->contrast_count, r->contrast) &&
           match_word(d, "the plane", m->plane, m->plane_count, r->plane) &&
           match_word(d, "the body part", m->body_part, m->body_part_count, r->body_part) &&
           match_range(d, "images", &m->slices, s->slices) &&
           match_range(d, "rows", &m->rows, s->rows) &&
           match_range(d, "columns", &m->columns, s->columns);
}

static void choose_model(const struct catalogue *models, const struct series *s,
                         const struct recognition *r, struct rule_decision *d)
{
    int rc = catalogue_choose(models, d->rule, &d->model, &d->reason);
    if (rc != 0) {
        d->outcome = d->rule->optional && rc == ERR_NOT_FOUND ? RULE_NO_MATCH : RULE_NO_MODEL;
        return;
    }
    rc = synthesise_fits(&d->model->facts, s, r->contrast, &d->reason);
    d->outcome = rc == 0 ? RULE_MATCHED : RULE_REFUSED;
}

static int decide(const struct config *c, const struct catalogue *models, struct subject *s,
                  const struct recognition *plain, struct rule_decision *d, struct err *e)
{
    bool matched;
    const struct config_match *m = &d->rule->match;
    int rc = match_tags(s, m, d, &matched, e);
    if (rc != 0 || !matched)
        return rc;
    struct recognition assumed;
    const struct recognition *r = plain;
    if (*d->rule->assume_contrast != '\0') {
        struct recognise_options options;
        config_recognise_options(c, &options);
        options.assume_contrast = d->rule->assume_contrast;
        recognise(s->series, &options, &assumed);
        r = &assumed;
    }
    if (r->refusal.code != 0) {
        no_match(d, "%s", r->refusal.text);
        return 0;
    }
    if (match_recognised(s->series, r, m, d))
        choose_model(models, s->series, r, d);
    return 0;
}

int rules_decide(const struct config *config, const struct catalogue *models,
                 const struct series *series, struct rule_decisions **out, struct err *e)
{
    struct subject subject = {.series = series};
    int rc = 0;
    struct rule_decisions *all = calloc(1, sizeof *all);
    if (all == NULL ||
        (all->decision = calloc(config->rules_count + 1u, sizeof *all->decision)) == NULL) {
        rc = err_set(e, ERR_NOMEM, "matching the rules: no memory");
        goto out;
    }
    struct recognise_options options;
    config_recognise_options(config, &options);
    recognise(series, &options, &all->recognition);
    for (uint32_t i = 0; rc == 0 && i < config->rules_count; i++) {
        struct rule_decision *d = &all->decision[all->count++];
        d->rule = &config->rules[i];
        rc = decide(config, models, &subject, &all->recognition, d, e);
        all->matched += rc == 0 && d->outcome == RULE_MATCHED;
    }
    if (rc == 0) {
        *out = all;
        all = NULL;
    }
out:
    dataset_free(subject.first);
    free(subject.values);
    rules_free(all);
    return rc;
}

void rules_free(struct rule_decisions *d)
{
    if (d == NULL)
        return;
    free(d->decision);
    free(d);
}

const char *rule_outcome_word(enum rule_outcome outcome)
{
    static const char *const words[] = {[RULE_NO_MATCH] = "no_match",
                                        [RULE_MATCHED] = "matched",
                                        [RULE_REFUSED] = "refused",
                                        [RULE_NO_MODEL] = "no_model"};
    return words[outcome];
}
