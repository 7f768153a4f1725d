/* quality_gate.c - reads spinenode.gate, the limits that come with a model; see quality.h */
#include "model/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX    40
#define NUMBER_MOST 1e6

struct words {
    const char *at;
    char word[WORD_MAX]; /* the last one read; "" at the end */
    struct err *e;
    int rc; /* the first error sticks */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\n';
}

static void next(struct words *w)
{
    size_t n = 0;
    w->at += strspn(w->at, " \n");
    for (; *w->at != '\0' && !is_blank(*w->at); w->at++, n++) {
        if (w->rc == 0 && (n + 1 >= WORD_MAX || *w->at < 33 || *w->at > 126))
            w->rc = err_set(w->e, ERR_INVALID,
                            "metadata spinenode.gate holds a word that is no key and no number");
        if (n + 1 < WORD_MAX)
            w->word[n] = *w->at;
    }
    w->word[n < WORD_MAX ? n : WORD_MAX - 1] = '\0';
}

static void wrong(struct words *w, const char *key, const char *expected)
{
    if (w->rc == 0)
        w->rc = err_set(w->e, ERR_INVALID, "metadata spinenode.gate: %s is \"%s\", must be %s", key,
                        w->word, expected);
}

static double number(struct words *w, const char *key, double least, double most)
{
    char *end = w->word;
    next(w);
    double value = 0;
    if (w->word[strspn(w->word, "0123456789+-.e")] == '\0')
        value = strtod(w->word, &end);
    if (end == w->word || *end != '\0' || !(value >= least) || !(value <= most)) {
        wrong(w, key, "a number within its bounds");
        return least;
    }
    return value;
}

static void numbers(struct words *w, const char *key, double least, float *out, int count)
{
    for (int i = 0; w->rc == 0 && i < count; i++)
        out[i] = (float)number(w, key, least, NUMBER_MOST);
}

static void counted(struct words *w, const char *key, double least, float *out)
{
    if (number(w, key, 0, NUMBER_MOST) != QUALITY_FEATURES)
        wrong(w, key, "as many numbers as there are features");
    numbers(w, key, least, out, QUALITY_FEATURES);
}

static void limit(struct words *w, const char *key, struct quality_limit *out)
{
    out->mark = number(w, key, -NUMBER_MOST, NUMBER_MOST);
    out->refuse = number(w, key, -NUMBER_MOST, NUMBER_MOST);
    if (out->refuse < out->mark)
        wrong(w, key, "two limits, to mark and to refuse, the second not below the first");
}

static void read_limit(struct words *w, struct quality_gate *g)
{
    next(w);
    for (int i = 0; i < QUALITY_FIGURE_COUNT; i++) {
        if (strcmp(w->word, quality_figure_name((enum quality_figure)i)) != 0)
            continue;
        if (g->limit[i].refuse != INFINITY)
            wrong(w, "limit", "given once");
        limit(w, "limit", &g->limit[i]);
        return;
    }
    wrong(w, "limit", "followed by the name of a figure");
}

static void read_class(struct words *w, struct quality_gate *g)
{
    next(w);
    size_t n = strlen(w->word);
    if (n == 0 || n >= QUALITY_CLASS_NAME ||
        w->word[strspn(w->word, "abcdefghijklmnopqrstuvwxyz0123456789-")])
        wrong(w, "class", "followed by a name of at most 23 small letters, digits and dashes");
    else if (g->classes == QUALITY_CLASSES_MAX)
        wrong(w, "class", "there twelve times at most");
    if (w->rc != 0)
        return;
    struct quality_class *c = &g->class[g->classes++];
    memcpy(c->name, w->word, n + 1);
    for (int i = 0; i + 1 < g->classes; i++)
        if (strcmp(g->class[i].name, c->name) == 0)
            wrong(w, "class", "given once");
    limit(w, "class", &c->limit);
    counted(w, "class", -NUMBER_MOST, c->weight);
}

/* Those before OPTIONAL must be there, those before OFTEN once at most. */
enum key {
    GATE,
    FEATURES,
    REFUSAL,
    FIELD,
    MEAN,
    SCALE,
    WHITEN,
    OPTIONAL,
    TOWARDS = OPTIONAL,
    OFTEN,
    LIMIT = OFTEN,
    CLASS,
    KEYS
};
static const char *const keys[KEYS] = {"gate",  "features", "refusal", "field_mm", "mean",
                                       "scale", "whiten",   "towards", "limit",    "class"};

static void read_key(struct words *w, enum key key, struct quality_gate *g)
{
    switch (key) {
    case GATE:
        if (number(w, keys[key], 0, NUMBER_MOST) != 1)
            wrong(w, keys[key], "1: this build reads no other format");
        break;
    case FEATURES:
        if (number(w, keys[key], 0, NUMBER_MOST) != QUALITY_VERSION ||
            number(w, keys[key], 0, NUMBER_MOST) != QUALITY_FEATURES) {
            if (w->rc == 0)
                w->rc = err_set(w->e, ERR_UNSUPPORTED,
                                "metadata spinenode.gate was calibrated with other features than "
                                "this build computes: run scripts/calibrate on the model");
        }
        break;
    case REFUSAL:
        g->refusal = number(w, keys[key], 0, 1);
        g->series = (int)number(w, keys[key], 1, NUMBER_MOST);
        break;
    case FIELD:
        g->field_mm_min = number(w, keys[key], 0, NUMBER_MOST);
        g->field_mm_max = number(w, keys[key], 1, NUMBER_MOST);
        if (g->field_mm_max < g->field_mm_min)
            wrong(w, keys[key], "two lengths, the second not below the first");
        break;
    case MEAN:
        counted(w, keys[key], -NUMBER_MOST, g->mean);
        break;
    case SCALE:
        counted(w, keys[key], 1e-6, g->scale);
        break;
    case WHITEN:
        numbers(w, keys[key], -NUMBER_MOST, g->whiten, QUALITY_SHAPE * (QUALITY_SHAPE + 1) / 2);
        break;
    case TOWARDS:
        next(w);
        if (strlen(w->word) != 2 || w->word[strspn(w->word, "LRAPHF")] != '\0')
            wrong(w, keys[key], "two of the letters L R A P H F");
        else
            memcpy(g->towards, w->word, sizeof g->towards);
        break;
    case LIMIT:
        read_limit(w, g);
        break;
    default:
        read_class(w, g);
        break;
    }
}

int quality_gate_parse(const char *text, struct quality_gate **out, struct err *e)
{
    bool seen[KEYS] = {false};
    struct words w = {.at = text, .e = e};
    if (strlen(text) > QUALITY_TEXT_MAX)
        return err_set(e, ERR_LIMIT, "metadata spinenode.gate is longer than %d bytes",
                       QUALITY_TEXT_MAX);
    struct quality_gate *g = calloc(1, sizeof *g);
    if (g == NULL)
        return err_set(e, ERR_NOMEM, "reading a model's limits: no memory");
    for (int i = 0; i < QUALITY_FIGURE_COUNT; i++)
        g->limit[i] = (struct quality_limit){INFINITY, INFINITY};
    for (next(&w); w.rc == 0 && w.word[0] != '\0'; next(&w)) {
        int key = 0;
        while (key < KEYS && strcmp(keys[key], w.word) != 0)
            key++;
        if (key == KEYS || (key < OFTEN && seen[key])) {
            wrong(&w, "a key", "one of those that there are, once");
            break;
        }
        seen[key] = true;
        read_key(&w, (enum key)key, g);
    }
    for (int i = 0; w.rc == 0 && i < OPTIONAL; i++)
        if (!seen[i])
            w.rc = err_set(e, ERR_INVALID, "metadata spinenode.gate lacks \"%s\"", keys[i]);
    if (w.rc == 0)
        *out = g;
    else
        free(g);
    return w.rc;
}
