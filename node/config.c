/*
 * config.c - from the checked text to struct config
 *
 * What one key may be is checked in config_yaml.c; here is what several keys must agree on: names
 * that are used must exist, names that identify must differ, bounds must leave room.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "model/package.h"
#include "node/config.h"
#include "node/config_schema.h"
#include "node/network.h"
#include "node/store.h"

/* libcyaml's first message of a call; its log function has no closure of ours but this. */
struct cyaml_words {
    char text[200];
};

static void keep_first(cyaml_log_t level, void *closure, const char *format, va_list args)
{
    struct cyaml_words *words = closure;
    if (level < CYAML_LOG_ERROR || words->text[0] != '\0')
        return;
    vsnprintf(words->text, sizeof words->text, format, args);
    words->text[strcspn(words->text, "\n")] = '\0';
}

static cyaml_config_t cyaml_setup(struct cyaml_words *words)
{
    words->text[0] = '\0';
    return (cyaml_config_t){
        .log_fn = keep_first,
        .log_ctx = words,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
}

/* Replaces a relative path by the absolute one, from folder. */
static int make_absolute(char **path, const char *folder, struct err *e)
{
    if (**path == '/')
        return 0;
    char joined[PATH_BYTES];
    int rc = file_join(joined, folder, *path, e);
    if (rc != 0)
        return rc;
    /* "models/../x" is tidied when it exists; a path that is still to be made stays as it is. */
    char *tidy = realpath(joined, NULL);
    if (tidy == NULL)
        tidy = strdup(joined);
    if (tidy == NULL)
        return err_set(e, ERR_NOMEM, "reading the configuration: no memory");
    free(*path);
    *path = tidy;
    return 0;
}

static int make_absolute_if_given(char **path, const char *folder, struct err *e)
{
    return **path != '\0' ? make_absolute(path, folder, e) : 0;
}

static int resolve_paths(struct config *c, const char *path, struct err *e)
{
    c->path = realpath(path, NULL);
    if (c->path == NULL)
        return err_errno(e, errno, "finding %s", path);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", c->path);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = '\0';
    int rc = make_absolute(&c->node.spool, folder, e);
    if (rc == 0)
        rc = make_absolute(&c->node.database, folder, e);
    if (rc == 0)
        rc = make_absolute(&c->models.folder, folder, e);
    char **given[] = {&c->engine.cache, &c->node.tls.certificate, &c->node.tls.key,
                      &c->node.tls.authorities};
    for (size_t i = 0; rc == 0 && i < sizeof given / sizeof *given; i++)
        rc = make_absolute_if_given(given[i], folder, e);
    for (uint32_t i = 0; rc == 0 && i < c->destinations_count; i++) {
        struct config_destination_tls *tls = &c->destinations[i].tls;
        rc = make_absolute_if_given(&tls->authorities, folder, e);
        if (rc == 0)
            rc = make_absolute_if_given(&tls->certificate, folder, e);
        if (rc == 0)
            rc = make_absolute_if_given(&tls->key, folder, e);
    }
    return rc;
}

/* ---- what keys must agree on ---- */

static int check_folder(const struct config *c, struct config_text *t, struct err *e)
{
    struct stat st;
    if (stat(c->models.folder, &st) != 0)
        return config_text_error(t, e, "models.folder", "expected a folder of models, but %s: %s",
                                 c->models.folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return config_text_error(t, e, "models.folder",
                                 "expected a folder of models, but %s is no folder",
                                 c->models.folder);
    return 0;
}

static int check_addresses(const struct config_caller *caller, uint32_t at, struct config_text *t,
                           struct err *e)
{
    char key[CONFIG_KEY_BYTES];
    if (caller->addresses_count == 0) {
        snprintf(key, sizeof key, "callers[%u].addresses", at);
        return config_text_error(t, e, key,
                                 "expected at least one address or network; [any] = from anywhere, "
                                 "which trusts the AE title");
    }
    for (uint32_t i = 0; i < caller->addresses_count; i++) {
        struct network network;
        struct err why;
        snprintf(key, sizeof key, "callers[%u].addresses[%u]", at, i);
        if (network_parse(caller->addresses[i], &network, &why) != 0)
            return config_text_error(t, e, key, "%s", why.text);
        if (network.family == AF_UNSPEC && caller->addresses_count > 1)
            return config_text_error(t, e, key, "'any' stands alone: it makes the others needless");
    }
    return 0;
}

static int check_callers(const struct config *c, struct config_text *t, struct err *e)
{
    for (uint32_t i = 0; i < c->callers_count; i++) {
        int rc = check_addresses(&c->callers[i], i, t, e);
        if (rc != 0)
            return rc;
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(c->callers[i].ae_title, c->callers[j].ae_title) != 0)
                continue;
            char key[CONFIG_KEY_BYTES];
            snprintf(key, sizeof key, "callers[%u].ae_title", i);
            return config_text_error(
                t, e, key, "callers[%u] has this AE title; put all of its addresses there", j);
        }
    }
    return 0;
}

static int check_destinations(const struct config *c, struct config_text *t, struct err *e)
{
    for (uint32_t i = 0; i < c->destinations_count; i++) {
        const struct config_destination *d = &c->destinations[i];
        char key[CONFIG_KEY_BYTES];
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(d->name, c->destinations[j].name) != 0)
                continue;
            snprintf(key, sizeof key, "destinations[%u].name", i);
            return config_text_error(t, e, key,
                                     "expected a name of its own; destinations[%u] is "
                                     "called '%s', too",
                                     j, d->name);
        }
        if (strcmp(d->ae_title, c->node.ae_title) == 0) {
            snprintf(key, sizeof key, "destinations[%u].ae_title", i);
            return config_text_error(t, e, key,
                                     "'%s' is this node's own AE title; results would come back",
                                     d->ae_title);
        }
        if (d->retry.longest_ms < d->retry.first_ms) {
            snprintf(key, sizeof key, "destinations[%u].retry.longest_ms", i);
            return config_text_error(t, e, key, "expected at least first_ms (%d), found %d",
                                     d->retry.first_ms, d->retry.longest_ms);
        }
    }
    return 0;
}

static int check_range(const struct config_range *r, const char *rule, const char *name,
                       struct config_text *t, struct err *e)
{
    if (r->max == 0 || r->min <= r->max)
        return 0;
    char key[CONFIG_KEY_BYTES];
    snprintf(key, sizeof key, "%s.match.%s", rule, name);
    return config_text_error(t, e, key, "min is %d and max is %d, so that nothing matches", r->min,
                             r->max);
}

/* A model for T1 behind a rule for T2 can only ever fail. */
static int check_rule_contrast(const struct config_rule *r, const char *rule, struct config_text *t,
                               struct err *e)
{
    static const char *const input[TASK_COUNT] = {
        [TASK_T1_TO_T2] = "T1",   [TASK_T2_TO_T1] = "T2",   [TASK_T2_TO_STIR] = "T2",
        [TASK_T2_TO_TIRM] = "T2", [TASK_XRAY_TO_T2] = "XR",
    };
    int task = model_task_parse(r->task);
    if (task < 0 || input[task] == NULL)
        return 0;
    char key[CONFIG_KEY_BYTES];
    if (*r->assume_contrast != '\0' && strcmp(r->assume_contrast, input[task]) != 0) {
        snprintf(key, sizeof key, "%s.assume_contrast", rule);
        return config_text_error(t, e, key, "task %s needs %s, found %s", r->task, input[task],
                                 r->assume_contrast);
    }
    for (uint32_t i = 0; i < r->match.contrast_count; i++) {
        if (strcmp(r->match.contrast[i], input[task]) == 0)
            continue;
        snprintf(key, sizeof key, "%s.match.contrast[%u]", rule, i);
        return config_text_error(t, e, key, "task %s needs %s, found %s", r->task, input[task],
                                 r->match.contrast[i]);
    }
    if (task == TASK_XRAY_TO_T2 && r->result == CONFIG_RESULT_MR_IMAGE) {
        snprintf(key, sizeof key, "%s.result", rule);
        return config_text_error(
            t, e, key, "expected secondary-capture: an x-ray does not become an MR image");
    }
    return 0;
}

static int check_rule_destinations(const struct config *c, const struct config_rule *r,
                                   const char *rule, struct config_text *t, struct err *e)
{
    char key[CONFIG_KEY_BYTES];
    snprintf(key, sizeof key, "%s.destinations", rule);
    if (r->destinations_count == 0)
        return config_text_error(t, e, key, "expected the name of at least one destination");
    if (r->destinations_count > STORE_JOB_DESTINATIONS)
        return config_text_error(t, e, key, "expected at most %d destinations, found %u",
                                 STORE_JOB_DESTINATIONS, r->destinations_count);
    for (uint32_t i = 0; i < r->destinations_count; i++) {
        snprintf(key, sizeof key, "%s.destinations[%u]", rule, i);
        if (config_destination_find(c, r->destinations[i]) == NULL)
            return config_text_error(t, e, key,
                                     "expected the name of one of the destinations, found '%s'",
                                     r->destinations[i]);
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(r->destinations[i], r->destinations[j]) == 0)
                return config_text_error(t, e, key, "'%s' is given twice", r->destinations[i]);
        }
    }
    return 0;
}

static int check_rules(const struct config *c, struct config_text *t, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < c->rules_count; i++) {
        const struct config_rule *r = &c->rules[i];
        char rule[CONFIG_KEY_BYTES / 2], key[CONFIG_KEY_BYTES];
        snprintf(rule, sizeof rule, "rules[%u]", i);
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(r->name, c->rules[j].name) != 0)
                continue;
            snprintf(key, sizeof key, "%s.name", rule);
            return config_text_error(
                t, e, key, "expected a name of its own; rules[%u] is called '%s', too", j, r->name);
        }
        if (*r->task == '\0' && *r->model == '\0')
            return config_text_error(t, e, rule, "expected the key task or model, found neither");
        for (uint32_t j = 0; j < r->match.tags_count; j++) {
            const struct config_tag_match *m = &r->match.tags[j];
            if (m->is_count > 0 || m->is_not_count > 0)
                continue;
            snprintf(key, sizeof key, "%s.match.tags[%u]", rule, j);
            return config_text_error(t, e, key,
                                     "expected the key is or is_not with at least one value");
        }
        rc = check_range(&r->match.slices, rule, "slices", t, e);
        if (rc == 0)
            rc = check_range(&r->match.rows, rule, "rows", t, e);
        if (rc == 0)
            rc = check_range(&r->match.columns, rule, "columns", t, e);
        if (rc == 0)
            rc = check_rule_contrast(r, rule, t, e);
        if (rc == 0)
            rc = check_rule_destinations(c, r, rule, t, e);
    }
    return rc;
}

static int check_completeness(const struct config *c, struct config_text *t, struct err *e)
{
    const struct config_completeness *k = &c->completeness;
    if (*k->ask_pacs != '\0' && config_destination_find(c, k->ask_pacs) == NULL)
        return config_text_error(t, e, "completeness.ask_pacs",
                                 "expected the name of one of the destinations, found '%s'",
                                 k->ask_pacs);
    if (k->max_wait_ms < k->quiet_ms)
        return config_text_error(t, e, "completeness.max_wait_ms",
                                 "expected at least quiet_ms (%d), found %d", k->quiet_ms,
                                 k->max_wait_ms);
    return 0;
}

static int check_recognition(const struct config *c, struct config_text *t, struct err *e)
{
    const struct config_recognition *r = &c->recognition;
    const struct {
        const char *key, *other;
        double value, at_least;
    } order[] = {
        {"stir_max_ti_ms", "stir_min_ti_ms", r->stir_max_ti_ms, r->stir_min_ti_ms},
        {"t1_flair_max_ti_ms", "t1_flair_min_ti_ms", r->t1_flair_max_ti_ms, r->t1_flair_min_ti_ms},
        {"t1_flair_min_ti_ms", "stir_max_ti_ms", r->t1_flair_min_ti_ms, r->stir_max_ti_ms},
        {"t2_min_tr_ms", "t1_max_tr_ms", r->t2_min_tr_ms, r->t1_max_tr_ms},
        {"t2_min_te_ms", "t1_max_te_ms", r->t2_min_te_ms, r->t1_max_te_ms},
        {"t2_min_te_ms", "pd_max_te_ms", r->t2_min_te_ms, r->pd_max_te_ms},
    };
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (order[i].value >= order[i].at_least)
            continue;
        char key[CONFIG_KEY_BYTES];
        snprintf(key, sizeof key, "recognition.%s", order[i].key);
        return config_text_error(t, e, key, "expected at least %s (%g), found %g", order[i].other,
                                 order[i].at_least, order[i].value);
    }
    return 0;
}

static int check(const struct config *c, struct config_text *t, struct err *e)
{
    int rc = check_folder(c, t, e);
    if (rc == 0)
        rc = check_callers(c, t, e);
    if (rc == 0)
        rc = check_destinations(c, t, e);
    if (rc == 0)
        rc = config_tls_check(c, t, e);
    if (rc == 0)
        rc = check_rules(c, t, e);
    if (rc == 0)
        rc = check_completeness(c, t, e);
    if (rc == 0)
        rc = check_recognition(c, t, e);
    return rc;
}

/* Does a rule ask for a private attribute? */
static bool names_private(const struct config *c)
{
    for (uint32_t i = 0; i < c->rules_count; i++) {
        const struct config_match *m = &c->rules[i].match;
        for (uint32_t j = 0; j < m->tags_count; j++) {
            uint32_t tag = 0;
            if (tag_from_text(m->tags[j].tag, &tag) && (tag >> 16 & 1) != 0)
                return true;
        }
    }
    return false;
}

/* ---- the interface ---- */

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    struct cyaml_words words;
    cyaml_config_t setup = cyaml_setup(&words);
    free(c->path);
    cyaml_free(&setup, &config_schema, c, 0);
}

/* transport: NULL if the files for TLS do not matter. */
static int load(const char *path, struct config **out, struct transport **transport, struct err *e)
{
    struct buf bytes, whole;
    buf_init(&bytes, CONFIG_FILE_MAX);
    buf_init(&whole, 16 * CONFIG_FILE_MAX);
    struct config_text text;
    bool have_text = false;
    struct config *c = NULL;

    /* Tags are looked up by keyword in DCMTK's dictionary. */
    int rc = dicom_init(e);
    if (rc == 0)
        rc = file_read(path, &bytes, e);
    if (rc == 0)
        rc = config_text_init(&text, path, buf_text(&bytes), bytes.len, e);
    if (rc != 0)
        goto out;
    have_text = true;
    rc = config_text_emit(&text, &whole, e);
    if (rc != 0)
        goto out;

    struct cyaml_words words;
    cyaml_config_t setup = cyaml_setup(&words);
    cyaml_err_t problem = cyaml_load_data((const uint8_t *)buf_text(&whole), whole.len, &setup,
                                          &config_schema, (cyaml_data_t **)&c, NULL);
    if (problem != CYAML_OK) {
        c = NULL;
        rc = problem == CYAML_ERR_OOM
                 ? err_set(e, ERR_NOMEM, "reading %s: no memory", path)
                 : err_set(e, ERR_CONFIG, "%s: %s (%s)", path, cyaml_strerror(problem), words.text);
        goto out;
    }
    rc = resolve_paths(c, path, e);
    if (rc == 0)
        rc = check(c, &text, e);
    /* What a private attribute holds stands in the vendors' dictionaries, for some files only
     * there. */
    if (rc == 0 && names_private(c))
        rc = dicom_add_vendors(e);
    if (rc == 0 && transport != NULL)
        rc = config_tls_check_files(c, &text, transport, e);
    if (rc == 0) {
        *out = c;
        c = NULL;
    }
out:
    config_free(c);
    if (have_text)
        config_text_fini(&text);
    buf_fini(&whole);
    buf_fini(&bytes);
    return rc;
}

int config_load(const char *path, struct config **out, struct err *e)
{
    return load(path, out, NULL, e);
}

int config_load_to_run(const char *path, struct config **out, struct transport **transport,
                       struct err *e)
{
    return load(path, out, transport, e);
}

const struct config_destination *config_destination_find(const struct config *c, const char *name)
{
    for (uint32_t i = 0; i < c->destinations_count; i++) {
        if (strcmp(c->destinations[i].name, name) == 0)
            return &c->destinations[i];
    }
    return NULL;
}

void config_recognise_options(const struct config *c, struct recognise_options *out)
{
    const struct config_recognition *r = &c->recognition;
    *out = recognise_defaults;
    out->t1_max_tr_ms = r->t1_max_tr_ms;
    out->t1_max_te_ms = r->t1_max_te_ms;
    out->t2_min_tr_ms = r->t2_min_tr_ms;
    out->t2_min_te_ms = r->t2_min_te_ms;
    out->pd_min_tr_ms = r->pd_min_tr_ms;
    out->pd_max_te_ms = r->pd_max_te_ms;
    out->stir_min_ti_ms = r->stir_min_ti_ms;
    out->stir_max_ti_ms = r->stir_max_ti_ms;
    out->stir_min_tr_ms = r->stir_min_tr_ms;
    out->t1_flair_min_ti_ms = r->t1_flair_min_ti_ms;
    out->t1_flair_max_ti_ms = r->t1_flair_max_ti_ms;
    out->plane_min_cosine = r->plane_min_cosine;
    out->allow_3d = r->allow_3d;
    out->allow_body_part_by_name = r->allow_body_part_by_name;
    out->allow_unknown_body_part = r->allow_unknown_body_part;
}
