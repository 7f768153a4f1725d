/* crosscheck.c - see crosscheck.h */
#include "node/crosscheck.h"

#include <math.h>
#include <stdlib.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "model/package.h"
#include "model/prepare.h"
#include "node/engines.h"
#include "node/gate.h"

/* The CPU's result of the slice. */
static int ask_cpu(struct gate *g, int slice, const struct engine_options *o, uint16_t *stored,
                   struct err *e)
{
    const struct engine_options options = {
        .threads = o->threads, .isa = o->isa, .low_memory = o->low_memory};
    const struct package *p = g->package;
    const struct engine *cpu;
    struct plan *plan = NULL;
    struct workspace *workspace = NULL;
    struct shape shape;
    int64_t fixed = p->graph->value[p->graph->input[0]].shape.dim[0];
    int batch = fixed > 0 ? (int)fixed : 1;
    int rc = engines_choose("cpu", &cpu, e);
    if (rc == 0)
        rc = package_input_shape(p, g->rows, g->columns, batch, &shape, e);
    if (rc != 0)
        return rc;
    int made = engine_compile_batch(cpu, p->graph, &shape, batch, &options, &plan, &workspace, e);
    g->plan = plan;
    g->workspace = workspace;
    rc = made < 0 ? made : gate_run(g, slice, stored, e);
    engine_workspace_free(workspace);
    engine_plan_free(plan);
    return rc;
}

int crosscheck(const struct gate *g, int slice, const uint16_t *stored,
               const struct engine_options *o, struct err *e)
{
    struct gate by_cpu = *g;
    int64_t n = (int64_t)prepare_rows(g->prepare) * prepare_columns(g->prepare);
    uint16_t *other = malloc((size_t)n * sizeof *other);
    float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b), far = 0;
    int rc = other && a && b ? 0 : err_set(e, ERR_NOMEM, "no memory");
    if (rc == 0)
        rc = ask_cpu(&by_cpu, slice, o, other, e);
    if (rc != 0) {
        err_context(e, "checking the GPU's result by the CPU");
    } else {
        gate_unit(g, stored, a);
        gate_unit(g, other, b);
        for (int64_t i = 0; i < n; i++)
            far = fmaxf(far, fabsf(a[i] - b[i]));
        if (far > CROSSCHECK_MAX)
            rc = err_set(e, ERR_DEVICE,
                         "the GPU's result of image %d is %.0f %% of the grey range from the CPU's",
                         slice + 1, (double)far * 100);
    }
    free(other);
    free(a);
    free(b);
    return rc;
}
