/* percentile.c - see percentile.h */
#include "model/percentile.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "model/clones.h"

/* Floats as integers in the same order: negative ones reversed, below the positive ones. */
static uint32_t order_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | UINT32_C(0x80000000));
}

static float value_of(uint32_t order)
{
    uint32_t bits = order & UINT32_C(0x80000000) ? order & UINT32_C(0x7fffffff) : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define HALF (1u << 16)
/* Percentiles that are found in one go; each lies between two values. */
#define TOGETHER 2
#define RANKS    (2 * TOGETHER)
/* Fewer values than this are counted by one thread. */
#define TASK_LEAST (1 << 18)

/* Values counted by the upper half of their order and, of the few upper halves that hold a rank
 * that is looked for, by the lower one. */
struct counts {
    uint32_t upper[HALF], lower[RANKS][HALF];
};

/* In the first pass upper counts whole numbers from 0 on by themselves, as long as all are such; so
 * do some of lower, of every fourth value each: a number that comes many times in a row (air) is
 * then not added to before it has been stored. */
struct search {
    const float *values;
    size_t n;
    int tasks;
    struct counts *counts; /* [tasks], of which the first takes up the others */
    bool *whole;           /* [tasks] every value is a whole number below HALF */
    uint32_t *most;        /* [tasks] then: none is larger */
    bool *finite;          /* [tasks] */
    uint32_t of[RANKS];    /* upper half that counts.lower[i] is of */
    int halves;
};

static size_t task_begin(const struct search *s, int task)
{
    return (size_t)((uint64_t)s->n * (uint64_t)task / (uint64_t)s->tasks);
}

/* How many values are looked at together. */
#define PIECE 64

/* The numbers of a piece; false: not all are whole and below HALF. most: none is larger. */
CLONES static bool whole_numbers(const float *from, int32_t *restrict number, uint32_t *most)
{
    float near[PIECE];
    int32_t bad = 0, all = 0;
    for (int k = 0; k < PIECE; k++)
        near[k] = from[k] > 0 ? from[k] : 0; /* NaN, too */
    for (int k = 0; k < PIECE; k++)
        near[k] = near[k] < HALF - 1 ? near[k] : HALF - 1;
    for (int k = 0; k < PIECE; k++) {
        number[k] = (int32_t)near[k];
        bad |= (float)number[k] != from[k];
        all |= number[k];
    }
    *most |= (uint32_t)all;
    return bad == 0;
}

/* Pixels of most scanners are whole numbers, and then one pass is enough. */
static void count_whole(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    struct counts *c = &s->counts[task];
    uint32_t *const counts[4] = {c->upper, c->lower[0], c->lower[1], c->lower[2]}, most = 0;
    float last[PIECE] = {0};
    bool whole = true;
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i += PIECE) {
        size_t m = end - i < PIECE ? end - i : PIECE;
        int32_t number[PIECE];
        const float *from = s->values + i;
        if (m < PIECE)
            from = memcpy(last, from, m * sizeof *from);
        whole = whole_numbers(from, number, &most);
        if (!whole)
            break;
        for (size_t k = 0; k + 4 <= m; k += 4)
            for (size_t j = 0; j < 4; j++)
                counts[j][number[k + j]]++;
        for (size_t k = m / 4 * 4; k < m; k++)
            counts[0][number[k]]++;
    }
    s->whole[task] = whole;
    s->most[task] = most;
    for (uint32_t i = 0; whole && i <= most; i++)
        counts[0][i] += counts[1][i] + counts[2][i] + counts[3][i];
}

static void count_upper(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    uint32_t *upper = s->counts[task].upper;
    bool finite = true;
    memset(upper, 0, sizeof s->counts->upper);
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i++) {
        finite &= isfinite(s->values[i]) != 0;
        upper[order_of(s->values[i]) >> 16]++;
    }
    s->finite[task] = finite;
}

/* By pieces: most values are of no half that counts. */
static void count_lower(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    struct counts *c = &s->counts[task];
    uint32_t of[RANKS]; /* some of them twice: a loop of known length */
    for (int i = 0; i < RANKS; i++)
        of[i] = s->of[i < s->halves ? i : 0];
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i += PIECE) {
        size_t m = end - i < PIECE ? end - i : PIECE;
        uint32_t order[PIECE], any = 0;
        for (size_t k = 0; k < m; k++) {
            order[k] = order_of(s->values[i + k]);
            uint32_t half = order[k] >> 16;
            any |= (half == of[0]) | (half == of[1]) | (half == of[2]) | (half == of[3]);
        }
        for (size_t k = 0; any && k < m; k++)
            for (int h = 0; h < s->halves; h++)
                if (order[k] >> 16 == of[h])
                    c->lower[h][order[k] & (HALF - 1)]++;
    }
}

static void add_up(const struct search *s, size_t first, size_t n)
{
    uint32_t *to = (uint32_t *)s->counts + first;
    for (int t = 1; t < s->tasks; t++) {
        const uint32_t *from = (const uint32_t *)(s->counts + t) + first;
        for (size_t i = 0; i < n; i++)
            to[i] += from[i];
    }
}

/* The upper half of the order that the rank-th smallest (from 0) has, its place among those. */
static int find_half(struct search *s, size_t rank, size_t *left)
{
    uint32_t upper = 0;
    while (rank >= s->counts->upper[upper])
        rank -= s->counts->upper[upper++];
    *left = rank;
    for (int i = 0; i < s->halves; i++)
        if (s->of[i] == upper)
            return i;
    s->of[s->halves] = upper;
    return s->halves++;
}

static float value_at(const struct search *s, int half, size_t left)
{
    uint32_t lower = 0;
    while (left >= s->counts->lower[half][lower])
        left -= s->counts->lower[half][lower++];
    return value_of(s->of[half] << 16 | lower);
}

/* Where the percentile lies: the rank below, and how far it is to the next. */
static size_t rank_of(const struct search *s, double p, double *part)
{
    double at = (double)(s->n - 1) * p / 100.0;
    size_t below = (size_t)floor(at);
    below = below > s->n - 1 ? s->n - 1 : below;
    *part = at - (double)below;
    return below;
}

static void find_whole(const struct search *s, const double *p, int count, double *out)
{
    for (int i = 0; i < count; i++) {
        const uint32_t *counts = s->counts->upper;
        double part;
        size_t left = rank_of(s, p[i], &part);
        uint32_t a = 0;
        while (left >= counts[a])
            left -= counts[a++];
        uint32_t b = a; /* what the next rank holds */
        if (part > 0 && left + 1 == counts[a])
            while (counts[++b] == 0)
                ;
        out[i] = a + (double)(b - a) * part;
    }
}

/* At most TOGETHER of them. */
static void find(struct search *s, struct pool *pool, const double *p, int count, double *out)
{
    double part[TOGETHER];
    int half[RANKS];
    size_t left[RANKS];
    s->halves = 0;
    for (int i = 0; i < count; i++) {
        size_t below = rank_of(s, p[i], &part[i]);
        half[2 * i] = find_half(s, below, &left[2 * i]);
        half[2 * i + 1] = find_half(s, below + 1 < s->n ? below + 1 : below, &left[2 * i + 1]);
    }
    for (int i = 0; i < s->tasks; i++)
        memset(s->counts[i].lower, 0, (size_t)s->halves * sizeof s->counts->lower[0]);
    pool_run(pool, s->tasks, count_lower, s);
    add_up(s, HALF, (size_t)s->halves * HALF);
    for (int i = 0; i < count; i++) {
        double a = value_at(s, half[2 * i], left[2 * i]);
        double b = part[i] > 0 ? value_at(s, half[2 * i + 1], left[2 * i + 1]) : a;
        out[i] = a + (b - a) * part[i];
    }
}

int percentiles(const float *values, size_t n, const double *p, int count, double *out,
                struct pool *pool, struct err *e)
{
    if (n == 0 || n > UINT32_MAX)
        return err_set(e, ERR_INVALID, "percentile of %s",
                       n == 0 ? "no values" : "too many values");
    int tasks = n < TASK_LEAST ? 1 : pool_threads(pool), rc = 0;
    struct search s = {.values = values, .n = n, .tasks = tasks};
    s.counts = calloc((size_t)tasks, sizeof *s.counts);
    s.whole = calloc((size_t)tasks, sizeof *s.whole);
    s.most = calloc((size_t)tasks, sizeof *s.most);
    s.finite = calloc((size_t)tasks, sizeof *s.finite);
    if (s.counts == NULL || s.whole == NULL || s.most == NULL || s.finite == NULL) {
        rc = err_set(e, ERR_NOMEM, "percentile: no memory");
        goto out;
    }
    pool_run(pool, tasks, count_whole, &s);
    bool whole = true;
    uint32_t most = 0;
    for (int i = 0; i < tasks; i++) {
        whole &= s.whole[i];
        most = s.most[i] > most ? s.most[i] : most;
    }
    if (whole) {
        add_up(&s, 0, (size_t)most + 1);
        find_whole(&s, p, count, out);
        goto out;
    }
    pool_run(pool, tasks, count_upper, &s);
    add_up(&s, 0, HALF);
    for (int i = 0; rc == 0 && i < tasks; i++)
        if (!s.finite[i])
            rc = err_set(e, ERR_NUMERIC, "a pixel value is not a finite number");
    for (int i = 0; rc == 0 && i < count; i += TOGETHER)
        find(&s, pool, p + i, count - i < TOGETHER ? count - i : TOGETHER, out + i);
out:
    free(s.counts);
    free(s.whole);
    free(s.most);
    free(s.finite);
    return rc;
}
