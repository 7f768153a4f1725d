/*
 * engine_cpu_weights.c - what the packed weights of a network may take, and where each lies
 *
 * Larger Winograd tiles are faster and store more. Memory is spent where it saves most: step by
 * step on the change that saves the most cycles for a float, while all weights together stay below
 * twice the model's own, which is what a runtime holds that keeps a model beside its packed copy.
 */
#include "model/engine_cpu_plan.h"

#include "model/cpu_conv_plan.h"

/* Beyond that, for all of a network (32 MiB): small models may always be fast. */
#define SPARE_FLOATS (8 * 1024 * 1024)

/* The change that saves most for a float within `room`; NULL: none. */
static struct step *best_change(struct cpu_plan *p, size_t room, struct cpu_other_way *best)
{
    struct step *at = NULL;
    for (int i = 0; i < p->steps; i++) {
        struct cpu_other_way other[CPU_OTHER_WAYS];
        struct step *s = &p->step[i];
        int count = s->kind == STEP_CONV ? cpu_conv_faster(s->conv, other) : 0;
        for (int k = 0; k < count; k++) {
            if (other[k].floats > room)
                continue;
            if (!at ||
                other[k].cycles * (double)best->floats > best->cycles * (double)other[k].floats) {
                at = s;
                *best = other[k];
            }
        }
    }
    return at;
}

int cpu_plan_weights(struct cpu_plan *p, bool low_memory, struct err *e)
{
    size_t most = SPARE_FLOATS, all = 0;
    for (int i = 0; i < p->steps; i++)
        if (p->step[i].kind == STEP_CONV) {
            most += 2 * cpu_conv_weights(p->step[i].conv);
            all += cpu_conv_packed_floats(p->step[i].conv);
        }
    struct cpu_other_way way;
    struct step *s;
    while (!low_memory && all < most && (s = best_change(p, most - all, &way))) {
        int rc = cpu_conv_change(&s->conv, way.way, e);
        if (rc < 0)
            return rc;
        all += way.floats;
    }
    for (int i = 0; i < p->steps; i++) {
        s = &p->step[i];
        if (s->kind != STEP_CONV)
            continue;
        s->packed = p->packed_floats;
        p->packed_floats += cpu_round16(cpu_conv_packed_floats(s->conv));
        size_t bytes = cpu_conv_pack_floats(s->conv) * sizeof(float);
        if (bytes > p->compile_bytes)
            p->compile_bytes = bytes;
    }
    return 0;
}
