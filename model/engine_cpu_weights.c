/*
 * engine_cpu_weights.c - what the packed weights of a network may take, and where each lies
 *
 * Larger Winograd tiles are faster and store more. Memory is spent where it saves most: on the
 * changes that save the most cycles for a float, while all weights together stay below twice the
 * model's own, which is what a runtime holds that keeps a model beside its packed copy.
 */
#include "model/engine_cpu_plan.h"

#include <stdlib.h>

#include "model/cpu_conv_plan.h"
#include "node/base/err.h"

/* Beyond that, for all of a network (32 MiB): small models may always be fast. */
#define SPARE_FLOATS (8 * 1024 * 1024)

/* Larger layers are read as they are packed (32 MiB). */
#define STAGE_FLOATS (8 * 1024 * 1024)

/* A step from one way to another. */
struct change {
    int step;
    enum cpu_way from, to;
    size_t floats;
    double worth; /* cycles saved for a float */
};

static int by_worth(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    if (x->worth != y->worth)
        return x->worth < y->worth ? 1 : -1;
    return x->step != y->step ? x->step - y->step : (int)x->to - (int)y->to;
}

/* All changes of a step: from what it is, and on from there. Returns how many. */
static int changes_of(const struct cpu_plan *p, int step, struct change *to)
{
    struct cpu_other_way other[CPU_OTHER_WAYS];
    const struct step *s = &p->step[step];
    int others = s->kind == STEP_CONV ? cpu_conv_faster(s->conv, other) : 0, count = 0;
    for (int i = 0; i < others; i++) {
        to[count++] = (struct change){step, cpu_conv_way(s->conv), other[i].way, other[i].floats,
                                      other[i].cycles / (double)other[i].floats};
        for (int k = 0; k < i; k++) {
            double cycles = other[i].cycles - other[k].cycles;
            if (cycles > 0 && other[i].floats > other[k].floats) {
                size_t floats = other[i].floats - other[k].floats;
                to[count++] = (struct change){step, other[k].way, other[i].way, floats,
                                              cycles / (double)floats};
            }
        }
    }
    return count;
}

/* Takes changes, the one that is worth most first, while they fit into `room` floats. */
static int spend(struct cpu_plan *p, size_t room, struct err *e)
{
    size_t most = (size_t)p->steps * CPU_OTHER_WAYS * CPU_OTHER_WAYS;
    struct change *all = malloc((most + 1) * sizeof *all);
    size_t count = 0;
    int rc = 0;
    if (!all)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    for (int i = 0; i < p->steps; i++)
        count += (size_t)changes_of(p, i, all + count);
    qsort(all, count, sizeof *all, by_worth);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct step *s = &p->step[all[i].step];
        if (all[i].floats > room || cpu_conv_way(s->conv) != all[i].from)
            continue;
        rc = cpu_conv_change(&s->conv, all[i].to, e);
        room -= all[i].floats;
    }
    free(all);
    return rc;
}

size_t cpu_stage_floats(const struct cpu_conv *c)
{
    size_t n = cpu_conv_weights(c);
    return cpu_conv_pack_floats(c) == 0 && n <= STAGE_FLOATS ? n : 0;
}

int cpu_plan_weights(struct cpu_plan *p, bool low_memory, struct err *e)
{
    size_t most = SPARE_FLOATS, all = 0;
    for (int i = 0; i < p->steps; i++)
        if (p->step[i].kind == STEP_CONV) {
            most += 2 * cpu_conv_weights(p->step[i].conv);
            all += cpu_conv_packed_floats(p->step[i].conv);
        }
    int rc = low_memory || all >= most ? 0 : spend(p, most - all, e);
    if (rc != 0)
        return rc;
    for (int i = 0; i < p->steps; i++) {
        struct step *s = &p->step[i];
        if (s->kind != STEP_CONV)
            continue;
        s->packed = p->packed_floats;
        p->packed_floats += cpu_round16(cpu_conv_packed_floats(s->conv));
        size_t bytes = (cpu_conv_pack_floats(s->conv) + cpu_stage_floats(s->conv)) * sizeof(float);
        if (bytes > p->compile_bytes)
            p->compile_bytes = bytes;
    }
    return 0;
}
