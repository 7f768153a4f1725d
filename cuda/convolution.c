/*
 * convolution.c - see convolution.h; the one file that knows cuDNN
 *
 * By the backend descriptor API (cuDNN 9): tensors, operations and an operation graph are
 * described, the heuristics propose engine configurations for it, the first that gives a plan (or
 * the fastest, where they can be timed) is kept. Tried in this order: everything fused, bias fused,
 * bare. Engines that are compiled at run time take seconds each and are only taken when nothing
 * else convolves at all.
 */
#include "cuda/convolution.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cudnn.h>

#include "node/base/buf.h"
#include "node/base/err.h"

/* Most configurations of one heuristic that are looked at, and that are timed. */
#define CONFIGS_MAX 24
#define TIMED_MAX   8

#define DESCRIPTORS_MAX 48

enum uid { UID_X = 1, UID_W, UID_B, UID_Y, UID_CONVOLVED, UID_BIASED };

struct convolution {
    cudnnBackendDescriptor_t plan;
    enum convolution_fused fused;
    bool has_bias;
    int64_t workspace;
    /* What a plan stands on lives as long as it does. */
    cudnnBackendDescriptor_t kept[DESCRIPTORS_MAX];
    int n_kept;
};

static int failed(struct err *e, const char *what, cudnnStatus_t status)
{
    int code = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                       status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
                   ? ERR_NOMEM
               : status >= CUDNN_STATUS_NOT_SUPPORTED && status < CUDNN_STATUS_INTERNAL_ERROR
                   ? ERR_UNSUPPORTED
                   : ERR_DEVICE;
    return err_set(e, code, "cuDNN cannot %s: %s", what, cudnnGetErrorString(status));
}

const char *convolution_library(void)
{
    static char text[32];
    size_t v = cudnnGetVersion();
    snprintf(text, sizeof text, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    return text;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static int create(struct convolution *c, cudnnBackendDescriptorType_t type,
                  cudnnBackendDescriptor_t *out, struct err *e)
{
    if (c->n_kept == DESCRIPTORS_MAX)
        return err_set(e, ERR_BUG, "too many cuDNN descriptors");
    cudnnStatus_t status = cudnnBackendCreateDescriptor(type, out);
    if (status != CUDNN_STATUS_SUCCESS)
        return failed(e, "create a descriptor", status);
    c->kept[c->n_kept++] = *out;
    return 0;
}

/* One attribute; once *rc is not 0, nothing. */
static void set(int *rc, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *value, struct err *e)
{
    if (*rc != 0)
        return;
    cudnnStatus_t status = cudnnBackendSetAttribute(d, name, type, count, value);
    if (status != CUDNN_STATUS_SUCCESS) {
        char what[48];
        snprintf(what, sizeof what, "set attribute %d", (int)name);
        *rc = failed(e, what, status);
    }
}

static void finish(int *rc, cudnnBackendDescriptor_t d, const char *what, struct err *e)
{
    if (*rc != 0)
        return;
    cudnnStatus_t status = cudnnBackendFinalize(d);
    if (status != CUDNN_STATUS_SUCCESS)
        *rc = failed(e, what, status);
}

static int tensor(struct convolution *c, int64_t uid, bool half, bool virtual_, int64_t n,
                  int64_t channels, int64_t h, int64_t w, cudnnBackendDescriptor_t *out,
                  struct err *e)
{
    cudnnDataType_t type = half ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
    int64_t dim[4] = {n, channels, h, w};
    int64_t stride[4] = {h * w * channels, 1, w * channels, channels}, align = 16;
    int rc = create(c, CUDNN_BACKEND_TENSOR_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, e);
    set(&rc, *out, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, e);
    set(&rc, *out, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, e);
    set(&rc, *out, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, e);
    set(&rc, *out, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, e);
    set(&rc, *out, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &virtual_, e);
    finish(&rc, *out, "describe a tensor", e);
    return rc;
}

static int pointwise(struct convolution *c, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                     cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y,
                     cudnnBackendDescriptor_t *out, struct err *e)
{
    cudnnBackendDescriptor_t how;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    int rc = create(c, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &how, e);
    if (rc != 0)
        return rc;
    set(&rc, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, e);
    set(&rc, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type, e);
    finish(&rc, how, "describe a pointwise operation", e);
    if (rc == 0)
        rc = create(c, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &how, e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x, e);
    if (b)
        set(&rc, *out, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b,
            e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y, e);
    finish(&rc, *out, "describe a pointwise operation", e);
    return rc;
}

static int convolve(struct convolution *c, const struct convolution_spec *s,
                    cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                    cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t *out, struct err *e)
{
    cudnnBackendDescriptor_t how;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t rank = 2;
    float one = 1, zero = 0;
    int rc = create(c, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &how, e);
    if (rc != 0)
        return rc;
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &rank, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, s->pad_begin, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, s->pad_end, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, s->stride, e);
    set(&rc, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, s->dilation, e);
    finish(&rc, how, "describe a convolution", e);
    if (rc == 0)
        rc = create(c, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how, e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x,
        e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w,
        e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y,
        e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one, e);
    set(&rc, *out, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero, e);
    finish(&rc, *out, "describe a convolution", e);
    return rc;
}

/* Convolution [+ bias [+ relu]] as an operation graph. */
static int describe(struct convolution *c, const struct convolution_spec *s,
                    enum convolution_fused fused, void *handle, cudnnBackendDescriptor_t *out,
                    struct err *e)
{
    bool bias = s->bias && fused >= CONVOLUTION_BIAS, relu = s->relu && fused == CONVOLUTION_ALL;
    cudnnBackendDescriptor_t x, w, b, y, step[2], op[3];
    int n_ops = 0;
    int rc = tensor(c, UID_X, s->half, false, s->n, s->c, s->h, s->w, &x, e);
    if (rc == 0)
        rc = tensor(c, UID_W, s->half, false, s->k, s->c, s->kernel[0], s->kernel[1], &w, e);
    if (rc == 0)
        rc = tensor(c, UID_Y, s->half, false, s->n, s->k, s->oh, s->ow, &y, e);
    if (rc == 0 && bias)
        rc = tensor(c, UID_B, s->half, false, 1, s->k, 1, 1, &b, e);
    if (rc == 0 && (bias || relu))
        rc = tensor(c, UID_CONVOLVED, false, true, s->n, s->k, s->oh, s->ow, &step[0], e);
    if (rc == 0 && bias && relu)
        rc = tensor(c, UID_BIASED, false, true, s->n, s->k, s->oh, s->ow, &step[1], e);
    if (rc == 0)
        rc = convolve(c, s, x, w, bias || relu ? step[0] : y, &op[n_ops++], e);
    if (rc == 0 && bias)
        rc = pointwise(c, CUDNN_POINTWISE_ADD, step[0], b, relu ? step[1] : y, &op[n_ops++], e);
    if (rc == 0 && relu)
        rc = pointwise(c, CUDNN_POINTWISE_RELU_FWD, bias ? step[1] : step[0], NULL, y, &op[n_ops++],
                       e);
    if (rc == 0)
        rc = create(c, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n_ops, op, e);
    if (handle) {
        /* deprecated, and still what older 9.x want beside a real device */
        set(&rc, *out, (cudnnBackendAttributeName_t)800, CUDNN_TYPE_HANDLE, 1, &handle, e);
    }
    finish(&rc, *out, "describe an operation graph", e);
    return rc;
}

/* A description of the device; NULL beside a handle. */
static int device_properties(struct convolution *c, const struct convolution_target *t,
                             cudnnBackendDescriptor_t *out, struct err *e)
{
    *out = NULL;
    if (t->handle)
        return 0;
    int rc = create(c, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
        (int64_t)strlen(t->device_json) + 1, t->device_json, e);
    finish(&rc, *out, "read the description of a device", e);
    return rc;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* Must this engine not be used? *compiled: it is compiled at run time. */
static bool unfit(cudnnBackendDescriptor_t config, const struct convolution_spec *s, bool *compiled)
{
    cudnnBackendDescriptor_t engine = NULL;
    cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t how[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t got = 0;
    bool bad = true;
    *compiled = false;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS)
        return true;
    if (cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &got, &engine) != CUDNN_STATUS_SUCCESS)
        goto out;
    bad = false;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &got,
                                 note) != CUDNN_STATUS_SUCCESS)
        got = 0;
    for (int64_t i = 0; i < got; i++)
        bad |= note[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
               note[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
               note[i] == CUDNN_NUMERICAL_NOTE_FFT ||
               note[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 ||
               note[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13 ||
               (!s->half && !s->tf32 &&
                (note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                 note[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &got, how) != CUDNN_STATUS_SUCCESS)
        got = 0;
    for (int64_t i = 0; i < got; i++)
        *compiled |= how[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
out:
    cudnnBackendDestroyDescriptor(engine);
    return bad;
}

struct candidate {
    cudnnBackendDescriptor_t plan;
    bool has_bias;
};

/* A plan of one configuration; NULL if it gives none. */
static cudnnBackendDescriptor_t plan_of(const struct convolution_target *t,
                                        cudnnBackendDescriptor_t config,
                                        cudnnBackendDescriptor_t properties, int64_t *workspace)
{
    cudnnBackendDescriptor_t plan = NULL;
    void *handle = t->handle;
    int64_t got = 0;
    int rc = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) !=
        CUDNN_STATUS_SUCCESS)
        return NULL;
    if (properties)
        set(&rc, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            &properties, NULL);
    else
        set(&rc, plan, (cudnnBackendAttributeName_t)400, CUDNN_TYPE_HANDLE, 1, &handle, NULL);
    set(&rc, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &config, NULL);
    finish(&rc, plan, "make a plan", NULL);
    if (rc == 0 &&
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &got, workspace) != CUDNN_STATUS_SUCCESS)
        rc = ERR_DEVICE;
    if (rc != 0) {
        cudnnBackendDestroyDescriptor(plan);
        return NULL;
    }
    return plan;
}

/* Asks one heuristic; keeps the best plan in c. ERR_UNSUPPORTED: it has none that is fit. */
static int choose(struct convolution *c, const struct convolution_target *t,
                  const struct convolution_spec *s, cudnnBackendDescriptor_t graph,
                  cudnnBackendDescriptor_t properties, cudnnBackendHeurMode_t mode,
                  bool allow_compiled, struct err *e)
{
    cudnnBackendDescriptor_t heuristic, config[CONFIGS_MAX];
    int64_t count = 0, offered = 0;
    double best = -1;
    int timed = 0;
    int rc = create(c, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic, e);
    if (rc != 0)
        return rc;
    set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &graph, e);
    set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, e);
    if (properties)
        set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            &properties, e);
    finish(&rc, heuristic, "ask for engines", e);
    if (rc != 0)
        return rc;
    for (; count < CONFIGS_MAX; count++)
        if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[count]) !=
            CUDNN_STATUS_SUCCESS)
            break;
    /* The first query may name an upper bound; the number that was filled in is the truth. */
    if (cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &offered,
                                 config) != CUDNN_STATUS_SUCCESS)
        offered = 0;
    if (offered > count)
        offered = count;
    int kept_config = -1;
    for (int64_t i = 0; i < offered; i++) {
        bool compiled;
        int64_t workspace = 0;
        if (unfit(config[i], s, &compiled) || (compiled && !allow_compiled))
            continue;
        cudnnBackendDescriptor_t plan = plan_of(t, config[i], properties, &workspace);
        if (!plan)
            continue;
        struct candidate tried = {plan, s->bias && c->fused != CONVOLUTION_BARE};
        double us = t->handle && t->time ? t->time(t->ctx, &tried, workspace) : 0;
        if (us < 0 || (best >= 0 && us >= best)) {
            cudnnBackendDestroyDescriptor(plan);
        } else {
            if (c->plan)
                cudnnBackendDestroyDescriptor(c->plan);
            c->plan = plan;
            c->workspace = workspace;
            kept_config = (int)i;
            best = us;
        }
        if (c->plan && (!t->time || ++timed == TIMED_MAX))
            break;
    }
    for (int64_t i = 0; i < count; i++) {
        if (i == kept_config && c->n_kept < DESCRIPTORS_MAX)
            c->kept[c->n_kept++] = config[i];
        else
            cudnnBackendDestroyDescriptor(config[i]);
    }
    return c->plan ? 0 : err_set(e, ERR_UNSUPPORTED, "cuDNN offers no engine");
}

static void drop_descriptors(struct convolution *c)
{
    while (c->n_kept > 0)
        cudnnBackendDestroyDescriptor(c->kept[--c->n_kept]);
}

int convolution_plan(const struct convolution_target *target, const struct convolution_spec *spec,
                     struct convolution **out, struct err *e)
{
    struct convolution *c = calloc(1, sizeof *c);
    struct err why = {0};
    int rc = ERR_UNSUPPORTED;
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a convolution");
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    /* Ready engines first: fused ones, then bare; then what must be compiled. */
    for (int compiled = 0; rc != 0 && compiled < 2; compiled++) {
        for (int fused = CONVOLUTION_ALL; rc != 0 && fused >= CONVOLUTION_BARE; fused--) {
            if ((fused == CONVOLUTION_ALL && !spec->relu) ||
                (fused == CONVOLUTION_BIAS && !spec->bias))
                continue;
            for (size_t m = 0; rc != 0 && m < sizeof modes / sizeof modes[0]; m++) {
                cudnnBackendDescriptor_t graph, properties;
                drop_descriptors(c);
                c->fused = (enum convolution_fused)fused;
                rc = device_properties(c, target, &properties, &why);
                if (rc == 0)
                    rc = describe(c, spec, (enum convolution_fused)fused, target->handle, &graph,
                                  &why);
                if (rc == 0)
                    rc = choose(c, target, spec, graph, properties, modes[m], compiled == 1, &why);
            }
        }
    }
    if (rc != 0) {
        convolution_free(c);
        return err_set(e, rc,
                       "no plan for a convolution %lldx%lld of %lldx%lldx%lldx%lld to %lld "
                       "channels: %s",
                       (long long)spec->kernel[0], (long long)spec->kernel[1], (long long)spec->n,
                       (long long)spec->h, (long long)spec->w, (long long)spec->c,
                       (long long)spec->k, why.text);
    }
    if (c->fused == CONVOLUTION_BIAS && !spec->relu)
        c->fused = CONVOLUTION_ALL;
    c->has_bias = spec->bias && c->fused != CONVOLUTION_BARE;
    *out = c;
    return 0;
}

void convolution_free(struct convolution *c)
{
    if (!c)
        return;
    if (c->plan)
        cudnnBackendDestroyDescriptor(c->plan);
    drop_descriptors(c);
    free(c);
}

enum convolution_fused convolution_fused(const struct convolution *c)
{
    return c->fused;
}

int64_t convolution_workspace(const struct convolution *c)
{
    return c->workspace;
}

/* ---- running --------------------------------------------------------------------------------- */

static int execute(cudnnBackendDescriptor_t plan, bool has_bias, void *handle, const void *x,
                   const void *w, const void *bias, void *y, void *workspace, struct err *e)
{
    int64_t uid[4] = {UID_X, UID_W, UID_Y, UID_B};
    const void *pointer[4] = {x, w, y, bias};
    cudnnBackendDescriptor_t pack;
    int rc = 0;
    cudnnStatus_t status =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status != CUDNN_STATUS_SUCCESS)
        return failed(e, "bind tensors", status);
    set(&rc, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, has_bias ? 4 : 3, uid, e);
    set(&rc, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, has_bias ? 4 : 3,
        pointer, e);
    set(&rc, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace, e);
    finish(&rc, pack, "bind tensors", e);
    if (rc == 0) {
        status = cudnnBackendExecute(handle, plan, pack);
        if (status != CUDNN_STATUS_SUCCESS)
            rc = failed(e, "run a convolution", status);
    }
    cudnnBackendDestroyDescriptor(pack);
    return rc;
}

int convolution_run(const struct convolution *c, void *handle, const void *x, const void *w,
                    const void *bias, void *y, void *workspace, struct err *e)
{
    return execute(c->plan, c->has_bias, handle, x, w, bias, y, workspace, e);
}

int convolution_try(const void *candidate, const struct convolution_spec *spec, void *handle,
                    const void *x, const void *w, const void *bias, void *y, void *workspace)
{
    const struct candidate *c = candidate;
    (void)spec;
    return execute(c->plan, c->has_bias, handle, x, w, bias, y, workspace, NULL);
}

/* ---- keeping --------------------------------------------------------------------------------- */

int convolution_save(const struct convolution *c, struct buf *out, struct err *e)
{
    int64_t size = 0;
    cudnnStatus_t status = cudnnBackendGetAttribute(
        c->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &size, NULL);
    if (status != CUDNN_STATUS_SUCCESS || size <= 0)
        return failed(e, "write a plan down", status);
    char *text = calloc(1, (size_t)size + 1);
    if (!text)
        return err_set(e, ERR_NOMEM, "no memory for a plan's text");
    status = cudnnBackendGetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                      CUDNN_TYPE_CHAR, size, &size, text);
    int rc = 0;
    if (status != CUDNN_STATUS_SUCCESS)
        rc = failed(e, "write a plan down", status);
    else
        buf_puts(out, text);
    free(text);
    return rc == 0 && buf_error(out) ? err_set(e, buf_error(out), "a plan's text is too long") : rc;
}

int convolution_load(const struct convolution_target *target, const struct convolution_spec *spec,
                     enum convolution_fused fused, const char *json, struct convolution **out,
                     struct err *e)
{
    struct convolution *c = calloc(1, sizeof *c);
    cudnnBackendDescriptor_t properties;
    void *handle = target->handle;
    int64_t got = 0;
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a convolution");
    /* Without either, cuDNN 9.19 crashes. */
    int rc = device_properties(c, target, &properties, e);
    if (rc == 0) {
        cudnnStatus_t status =
            cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &c->plan);
        if (status != CUDNN_STATUS_SUCCESS)
            rc = failed(e, "create a plan", status);
    }
    if (rc == 0 && properties)
        set(&rc, c->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            &properties, e);
    else if (rc == 0)
        set(&rc, c->plan, (cudnnBackendAttributeName_t)400, CUDNN_TYPE_HANDLE, 1, &handle, e);
    set(&rc, c->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
        (int64_t)strlen(json) + 1, json, e);
    if (rc == 0)
        finish(&rc, c->plan, "read a plan back", e);
    if (rc == 0 &&
        cudnnBackendGetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                 CUDNN_TYPE_INT64, 1, &got, &c->workspace) != CUDNN_STATUS_SUCCESS)
        rc = err_set(e, ERR_DEVICE, "cuDNN does not say what a plan needs");
    if (rc != 0) {
        convolution_free(c);
        return rc;
    }
    c->fused = fused;
    c->has_bias = spec->bias && fused != CONVOLUTION_BARE;
    *out = c;
    return 0;
}
