/* catalogue.c - see catalogue.h */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/catalogue.h"
#include "node/config.h"

struct catalogue *catalogue_new(const char *folder)
{
    struct catalogue *c = calloc(1, sizeof *c);
    if (c == NULL || strlen(folder) >= sizeof c->folder) {
        free(c);
        return NULL;
    }
    memcpy(c->folder, folder, strlen(folder) + 1);
    return c;
}

/* The texts of facts are copies of ours, while those of an open package are its graph's. */
static const char **fact_texts(struct package *facts, unsigned i)
{
    const char **all[] = {&facts->version,      &facts->name,   &facts->training_data,
                          &facts->intended_use, &facts->limits, &facts->licence,
                          &facts->figures};
    return i < sizeof all / sizeof *all ? all[i] : NULL;
}

static void model_fini(struct catalogue_model *m)
{
    const char **text;
    for (unsigned i = 0; (text = fact_texts(&m->facts, i)) != NULL; i++)
        free((char *)(uintptr_t)*text);
    free(m->file);
    *m = (struct catalogue_model){0};
}

static void models_free(struct catalogue_model *models, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        model_fini(&models[i]);
    free(models);
}

void catalogue_free(struct catalogue *c)
{
    if (c == NULL)
        return;
    models_free(c->models, c->models_count);
    free(c);
}

static int copy_facts(struct catalogue_model *m, const struct package *p)
{
    m->facts = *p;
    m->facts.graph = NULL;
    m->facts.gate = NULL;
    const char **text;
    bool complete = true;
    for (unsigned i = 0; (text = fact_texts(&m->facts, i)) != NULL; i++) {
        *text = strdup(*text != NULL ? *text : "");
        complete = complete && *text != NULL;
    }
    return complete ? 0 : err_set(&m->problem, ERR_NOMEM, "reading %s: no memory", m->path);
}

static void read_model(struct catalogue_model *m)
{
    struct package *p = NULL;
    if (package_open(m->path, NULL, &p, &m->problem) != 0)
        return;
    if (copy_facts(m, p) == 0)
        digest_file(m->path, m->digest, &m->problem);
    package_free(p);
}

static bool is_same_file(const struct catalogue_model *a, const struct catalogue_model *b)
{
    return strcmp(a->file, b->file) == 0 && a->bytes == b->bytes && a->inode == b->inode &&
           a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec;
}

/* Moves what is known of an unchanged file from the old list. */
static bool take_known(struct catalogue *c, struct catalogue_model *m)
{
    for (unsigned i = 0; i < c->models_count; i++) {
        if (c->models[i].file == NULL || !is_same_file(&c->models[i], m))
            continue;
        free(m->file);
        *m = c->models[i];
        c->models[i] = (struct catalogue_model){0};
        return true;
    }
    return false;
}

static int compare_names(const void *a, const void *b)
{
    const struct catalogue_model *x = a, *y = b;
    return strcmp(x->file, y->file);
}

static bool is_model_name(const char *name)
{
    size_t n = strlen(name);
    return name[0] != '.' && n > 5 && strcmp(name + n - 5, ".onnx") == 0;
}

/* One entry of the folder into m; 1: it is no regular file. */
static int look_at(const char *folder, const char *name, struct catalogue_model *m, struct err *e)
{
    *m = (struct catalogue_model){0};
    int rc = file_join(m->path, folder, name, e);
    if (rc != 0)
        return rc;
    struct stat st;
    if (stat(m->path, &st) != 0 || !S_ISREG(st.st_mode))
        return 1;
    m->file = strdup(name);
    if (m->file == NULL)
        return err_set(e, ERR_NOMEM, "listing %s: no memory", folder);
    m->bytes = st.st_size;
    m->modified = st.st_mtim;
    m->inode = st.st_ino;
    return 0;
}

int catalogue_refresh(struct catalogue *c, struct err *e)
{
    DIR *dir = opendir(c->folder);
    if (dir == NULL)
        return err_errno(e, errno, "opening the models folder %s", c->folder);
    int rc = 0;
    unsigned count = 0;
    struct catalogue_model *models = calloc(CATALOGUE_MODELS_MAX, sizeof *models);
    if (models == NULL)
        rc = err_set(e, ERR_NOMEM, "listing %s: no memory", c->folder);
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        if (!is_model_name(entry->d_name))
            continue;
        if (count == CATALOGUE_MODELS_MAX) {
            rc = err_set(e, ERR_LIMIT, "more than %d models in %s; remove some",
                         CATALOGUE_MODELS_MAX, c->folder);
            break;
        }
        rc = look_at(c->folder, entry->d_name, &models[count], e);
        count += rc == 0;
        rc = rc > 0 ? 0 : rc;
    }
    closedir(dir);
    if (rc != 0) {
        models_free(models, count);
        return rc;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!take_known(c, &models[i]))
            read_model(&models[i]);
    }
    qsort(models, count, sizeof *models, compare_names);
    models_free(c->models, c->models_count);
    c->models = models;
    c->models_count = count;
    return 0;
}

/* ---- choosing ---- */

static const struct catalogue_model *find_file(const struct catalogue *c, const char *file)
{
    for (unsigned i = 0; i < c->models_count; i++) {
        if (strcmp(c->models[i].file, file) == 0)
            return &c->models[i];
    }
    return NULL;
}

/* Semantic versions by their three numbers, then a release above its pre-releases, then the text.
 */
static int compare_versions(const char *a, const char *b)
{
    const char *x = a, *y = b;
    for (int part = 0; part < 3; part++) {
        char *x_end, *y_end;
        unsigned long m = strtoul(x, &x_end, 10), n = strtoul(y, &y_end, 10);
        if (m != n)
            return m < n ? -1 : 1;
        x = *x_end == '.' ? x_end + 1 : x_end;
        y = *y_end == '.' ? y_end + 1 : y_end;
    }
    if ((*x == '-') != (*y == '-'))
        return *x == '-' ? -1 : 1;
    return strcmp(x, y);
}

int catalogue_choose(const struct catalogue *c, const struct config_rule *rule,
                     const struct catalogue_model **out, struct err *e)
{
    int task = model_task_parse(rule->task);
    if (*rule->model != '\0') {
        const struct catalogue_model *m = find_file(c, rule->model);
        if (m == NULL)
            return err_set(e, ERR_NOT_FOUND, "there is no model %s in %s", rule->model, c->folder);
        if (m->problem.code != 0)
            return err_set(e, ERR_NOT_FOUND, "the model cannot be used: %s", m->problem.text);
        if (task >= 0 && m->facts.task != (enum model_task)task)
            return err_set(e, ERR_REFUSED, "%s is a model for %s, and the rule wants %s",
                           rule->model, model_task_name(m->facts.task), rule->task);
        *out = m;
        return 0;
    }
    const struct catalogue_model *best = NULL, *broken = NULL;
    for (unsigned i = 0; i < c->models_count; i++) {
        const struct catalogue_model *m = &c->models[i];
        if (m->problem.code != 0)
            broken = m;
        else if (task >= 0 && m->facts.task == (enum model_task)task &&
                 (best == NULL || compare_versions(m->facts.version, best->facts.version) >= 0))
            best = m;
    }
    if (best == NULL)
        return err_set(e, ERR_NOT_FOUND, "no model for %s in %s%s%s", rule->task, c->folder,
                       broken != NULL ? "; one there cannot be used: " : "",
                       broken != NULL ? broken->problem.text : "");
    *out = best;
    return 0;
}
