/*
 * plancheck.c - the cuDNN plans of a network, made on a machine without a GPU
 *
 *     plancheck DEVICE.json MODEL.onnx AxBxCxD [f16|f32]
 *
 * Makes the CUDA program of the model for the GPU that DEVICE.json describes, has cuDNN plan every
 * convolution, writes each plan down and reads it back. Prints one JSON object. Exit 1: an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/convolution.h"
#include "cuda/device.h"
#include "cuda/program.h"
#include "model/onnx.h"
#include "model/passes.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

struct described {
    struct device device;
    struct convolution_target target;
    int plans, fused, reloaded;
};

static int plan(struct device *d, const struct convolution_spec *spec, struct convolution_made *out,
                struct err *e)
{
    struct described *self = (struct described *)d;
    struct convolution *made = NULL, *again = NULL;
    struct buf json;
    int rc = convolution_plan(&self->target, spec, &made, e);
    if (rc != 0)
        return rc;
    buf_init(&json, 16 << 20);
    rc = convolution_save(made, &json, e);
    if (rc == 0)
        rc = convolution_load(&self->target, spec, convolution_fused(made), buf_text(&json), &again,
                              e);
    if (rc == 0 && convolution_workspace(again) != convolution_workspace(made))
        rc = err_set(e, ERR_BUG, "a plan that was read back wants another workspace");
    self->reloaded += rc == 0;
    convolution_free(again);
    buf_fini(&json);
    if (rc != 0) {
        convolution_free(made);
        return rc;
    }
    self->plans++;
    self->fused += convolution_fused(made) != CONVOLUTION_BARE;
    *out = (struct convolution_made){made, convolution_fused(made), convolution_workspace(made)};
    return 0;
}

static void plan_free(struct device *d, void *p)
{
    (void)d;
    convolution_free(p);
}

static const struct device_ops ops = {.convolution_plan = plan, .convolution_free = plan_free};

static int parse_shape(const char *text, struct shape *s)
{
    char *end;
    s->rank = 0;
    do {
        s->dim[s->rank++] = strtoll(text, &end, 10);
        text = end + 1;
    } while (*end == 'x' && s->rank < GRAPH_RANK_MAX);
    return *end == '\0' ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct graph *g = NULL, *lowered = NULL;
    struct program p = {0};
    struct shape shape = {0};
    struct buf json;
    struct described d = {.device = {.ops = &ops}};
    if (argc < 4 || argc > 5 || parse_shape(argv[3], &shape) != 0) {
        fprintf(stderr, "plancheck: wrong arguments; see the top of plancheck.c\n");
        return 2;
    }
    bool half = argc < 5 || strcmp(argv[4], "f16") == 0;
    buf_init(&json, 1 << 16);
    int rc = file_read(argv[1], &json, &e);
    d.target.device_json = buf_text(&json);
    if (rc == 0)
        rc = onnx_open(argv[2], NULL, &g, &e);
    if (rc == 0)
        rc = graph_lower(g, &shape, (int64_t)64 << 30, &lowered, NULL, &e);
    if (rc == 0)
        rc = program_make(lowered, half, false, &d.device, &p, &e);
    if (rc == 0)
        printf("{\"cudnn\": \"%s\", \"steps\": %d, \"convolutions\": %d, \"plans\": %d, "
               "\"fused\": %d, \"reloaded\": %d, \"weight_bytes\": %lld, \"arena_bytes\": %lld, "
               "\"workspace_bytes\": %lld}\n",
               convolution_library(), p.n_steps, p.n_convolutions, d.plans, d.fused, d.reloaded,
               (long long)p.weight_bytes, (long long)p.arena_bytes, (long long)p.workspace_bytes);
    else
        fprintf(stderr, "plancheck: %s\n", e.text);
    program_fini(&p);
    graph_free(lowered);
    graph_free(g);
    buf_fini(&json);
    return rc == 0 ? 0 : 1;
}
