/*
 * engine_cpu_memory.c - where tensors lie: memory of those that are done is used again
 *
 * Greedy by size (Pisarchyk & Lee, Efficient Memory Management for Deep Neural Net Inference,
 * 2020): the largest first, each at the lowest place that is free while it lives.
 */
#include "model/engine_cpu_plan.h"

#include <stdlib.h>
#include <string.h>

#include "model/cpu_conv_plan.h"
#include "node/base/err.h"

static void touch(struct cpu_plan *p, const struct place *t, int step)
{
    if (t->root < 0)
        return;
    struct root *r = &p->root[t->root];
    r->first = step < r->first ? step : r->first;
    r->last = step > r->last ? step : r->last;
}

static int by_size(const void *a, const void *b)
{
    const struct root *x = *(struct root *const *)a, *y = *(struct root *const *)b;
    if (x->floats != y->floats)
        return x->floats < y->floats ? 1 : -1;
    return x < y ? -1 : x > y;
}

int cpu_plan_memory(struct cpu_plan *p, struct err *e)
{
    for (int i = 0; i < p->steps; i++) {
        const struct step *s = &p->step[i];
        touch(p, &s->in[0], i);
        touch(p, &s->in[1], i);
        touch(p, &s->out, i);
        bool conv = s->kind == STEP_CONV;
        size_t thread = conv ? cpu_round16(cpu_conv_thread_floats(s->conv)) : 0;
        size_t alone = conv ? cpu_round16(cpu_conv_alone_floats(s->conv)) : 0;
        size_t shared = cpu_round16(cpu_step_shared_floats(s, p));
        p->thread_floats = thread > p->thread_floats ? thread : p->thread_floats;
        p->alone_floats = alone > p->alone_floats ? alone : p->alone_floats;
        p->shared_floats = shared > p->shared_floats ? shared : p->shared_floats;
    }
    struct root **order = malloc(((size_t)p->roots + 1) * 2 * sizeof *order);
    if (!order)
        return err_set(e, ERR_NOMEM, "no memory to plan %d tensors", p->roots);
    struct root **placed = order + p->roots + 1; /* by place */
    int n = 0;
    for (int i = 0; i < p->roots; i++)
        if (p->root[i].kind == ROOT_ARENA && p->root[i].last >= 0)
            order[n++] = &p->root[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int i = 0; i < n; i++) {
        struct root *r = order[i];
        size_t at = 0;
        int before = 0; /* of those that are placed */
        for (int j = 0; j < i && placed[j]->at < at + r->floats; j++) {
            const struct root *other = placed[j];
            bool together = other->first <= r->last && r->first <= other->last;
            if (together && other->at + other->floats > at)
                at = other->at + other->floats;
        }
        r->at = at;
        if (at + r->floats > p->arena_floats)
            p->arena_floats = at + r->floats;
        while (before < i && placed[before]->at <= at)
            before++;
        memmove(placed + before + 1, placed + before, (size_t)(i - before) * sizeof *placed);
        placed[before] = r;
    }
    free(order);
    return 0;
}
