/* passes_patterns.c - see passes.h */
#include <math.h>

#include "node/base/err.h"

#include "model/passes.h"
#include "model/passes_util.h"

int pass_patterns(struct graph *g, struct err *e)
{
    (void)e;
    graph_index(g);
    return 0;
}
