/*
 * convolution.c - see convolution.h; the one file that knows cuDNN
 *
 * By the backend descriptor API (cuDNN 9): tensors, operations and an operation graph are
 * described, the heuristics propose engine configurations for it, the first that gives a plan (or
 * the fastest, where they can be timed) is kept. Tried in this order: everything fused, bias fused,
 * bare. Engines that are compiled at run time take a second each: they are taken when nothing else
 * convolves at all, or when more is wanted than ready ones fuse and it pays.
 */
#include "cuda/convolution.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cudnn.h>

#include "cuda/plan_text.h"
#include "node/base/buf.h"
#include "node/base/err.h"

/* Most configurations of one heuristic that are looked at, and that are timed. */
#define CONFIGS_MAX 24
#define TIMED_MAX   12
#define THREADS_MAX 16

#define DESCRIPTORS_MAX 48

/* Which tensors a plan is bound to beside x, w and y. */
struct bound {
    bool bias, second;
};

struct convolution {
    cudnnBackendDescriptor_t plan;
    enum convolution_fused fused;
    struct bound bound;
    int64_t workspace;
    double us;
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

static struct bound bound_of(const struct convolution_spec *s, enum convolution_fused fused)
{
    return (struct bound){s->bias && fused != CONVOLUTION_BARE,
                          s->second_pitch != 0 && fused == CONVOLUTION_ALL};
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

/* step: between images, rows, pixels. */
static int tensor_of(struct convolution *c, int64_t uid, bool half, bool virtual_, int64_t n,
                     int64_t channels, int64_t h, int64_t w, const int64_t step[3],
                     cudnnBackendDescriptor_t *out, struct err *e)
{
    cudnnDataType_t type = half ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
    int64_t dim[4] = {n, channels, h, w};
    int64_t stride[4] = {step[0], 1, step[1], step[2]}, align = 16;
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

static int tensor(struct convolution *c, int64_t uid, bool half, bool virtual_, int64_t n,
                  int64_t channels, int64_t h, int64_t w, cudnnBackendDescriptor_t *out,
                  struct err *e)
{
    const int64_t step[3] = {h * w * channels, w * channels, channels};
    return tensor_of(c, uid, half, virtual_, n, channels, h, w, step, out, e);
}

static int pointwise(struct convolution *c, cudnnPointwiseMode_t mode, double leak,
                     cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b,
                     cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t *out, struct err *e)
{
    cudnnBackendDescriptor_t how;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    int rc = create(c, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &how, e);
    if (rc != 0)
        return rc;
    set(&rc, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, e);
    set(&rc, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type, e);
    if (leak != 0)
        set(&rc, how, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE, 1, &leak, e);
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

/* The operations of a graph while it is described. */
struct chain {
    struct convolution *c;
    const struct convolution_spec *s;
    cudnnBackendDescriptor_t op[4];
    int n_ops, n_virtual;
    cudnnBackendDescriptor_t at; /* what the next operation reads */
    struct err *e;
};

/* One more operation on what is there, to y or (NULL) to a virtual tensor, which is read next. */
static int chain_pointwise(struct chain *k, cudnnPointwiseMode_t mode, double leak,
                           cudnnBackendDescriptor_t other, cudnnBackendDescriptor_t y)
{
    const struct convolution_spec *s = k->s;
    cudnnBackendDescriptor_t to = y;
    int rc = y ? 0
               : tensor(k->c, PLAN_VIRTUAL + ++k->n_virtual, false, true, s->n, s->k, s->oh, s->ow,
                        &to, k->e);
    if (rc == 0)
        rc = pointwise(k->c, mode, leak, k->at, other, to, &k->op[k->n_ops++], k->e);
    k->at = to;
    return rc;
}

/* Behind the convolution: bias, activation, the rectified copy. */
static int describe_epilogue(struct chain *k, struct bound bound, bool relu,
                             cudnnBackendDescriptor_t y)
{
    const struct convolution_spec *s = k->s;
    cudnnBackendDescriptor_t b, second, before;
    int rc = 0;
    if (bound.bias) {
        rc = tensor(k->c, PLAN_BIAS, s->half, false, 1, s->k, 1, 1, &b, k->e);
        if (rc == 0)
            rc = chain_pointwise(k, CUDNN_POINTWISE_ADD, 0, b, relu ? NULL : y);
    }
    before = k->at;
    if (rc == 0 && relu)
        rc = chain_pointwise(k, CUDNN_POINTWISE_RELU_FWD, (double)s->leak, NULL, y);
    if (rc == 0 && bound.second) {
        const int64_t step[3] = {s->oh * s->ow * s->second_pitch, s->ow * s->second_pitch,
                                 s->second_pitch};
        rc = tensor_of(k->c, PLAN_SECOND, s->half, false, s->n, s->k, s->oh, s->ow, step, &second,
                       k->e);
        k->at = before; /* relu(leaky(v)) is relu(v) */
        if (rc == 0)
            rc = chain_pointwise(k, CUDNN_POINTWISE_RELU_FWD, 0, NULL, second);
    }
    return rc;
}

/* Convolution and as much of the rest as is to be fused, as an operation graph. */
static int describe(struct convolution *c, const struct convolution_spec *s,
                    enum convolution_fused fused, void *handle, cudnnBackendDescriptor_t *out,
                    struct err *e)
{
    struct bound bound = bound_of(s, fused);
    bool relu = s->relu && fused == CONVOLUTION_ALL;
    struct chain k = {.c = c, .s = s, .e = e};
    cudnnBackendDescriptor_t x, w, y = NULL;
    int rc = tensor(c, PLAN_X, s->half, false, s->n, s->c, s->h, s->w, &x, e);
    if (rc == 0)
        rc = tensor(c, PLAN_W, s->half, false, s->k, s->c, s->kernel[0], s->kernel[1], &w, e);
    if (rc == 0)
        rc = tensor(c, PLAN_Y, s->half, false, s->n, s->k, s->oh, s->ow, &y, e);
    k.at = y;
    if (rc == 0 && (bound.bias || relu))
        rc = tensor(c, PLAN_VIRTUAL, false, true, s->n, s->k, s->oh, s->ow, &k.at, e);
    if (rc == 0)
        rc = convolve(c, s, x, w, k.at, &k.op[k.n_ops++], e);
    if (rc == 0)
        rc = describe_epilogue(&k, bound, relu, y);
    if (rc == 0)
        rc = create(c, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, out, e);
    if (rc != 0)
        return rc;
    set(&rc, *out, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, k.n_ops, k.op, e);
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
    cudnnBackendDescriptor_t plan; /* NULL: not made, or not to be made: */
    int rc;
    struct bound bound;
    int64_t workspace;
};

/* What to say of several failures: less memory can be asked for, another engine cannot. */
static int gravity(int rc)
{
    return rc == ERR_NOMEM ? 2 : rc == ERR_UNSUPPORTED ? 0 : 1;
}

static int graver(int a, int b)
{
    return gravity(b) > gravity(a) ? b : a;
}

/* A plan of one configuration. ERR_UNSUPPORTED: it gives none. */
static int plan_of(void *handle, cudnnBackendDescriptor_t config,
                   cudnnBackendDescriptor_t properties, struct candidate *out)
{
    cudnnBackendDescriptor_t plan = NULL;
    int64_t got = 0;
    int rc = 0;
    cudnnStatus_t status =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (status != CUDNN_STATUS_SUCCESS)
        return failed(NULL, "create a plan", status);
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
                                 1, &got, &out->workspace) != CUDNN_STATUS_SUCCESS)
        rc = ERR_DEVICE;
    if (rc == 0)
        out->plan = plan;
    else
        cudnnBackendDestroyDescriptor(plan);
    return rc;
}

/* Configurations that become plans, one by one or by several threads. */
struct making {
    const struct convolution_target *t;
    cudnnBackendDescriptor_t properties, config[CONFIGS_MAX];
    struct candidate made[CONFIGS_MAX];
    int n;
    atomic_int next, next_thread;
};

static void make_one(struct making *m, int i, void *handle)
{
    m->made[i].rc = plan_of(handle, m->config[i], m->properties, &m->made[i]);
}

static void make_rest(struct making *m, void *handle)
{
    for (int i; (i = atomic_fetch_add(&m->next, 1)) < m->n;)
        make_one(m, i, handle);
}

static void *make_some(void *arg)
{
    struct making *m = arg;
    void *handle = m->t->another(m->t->ctx, atomic_fetch_add(&m->next_thread, 1));
    if (handle)
        make_rest(m, handle);
    return NULL;
}

/* All of them at once: the compiler is the host's work. What threads that did not start, or got no
 * handle, leave is made here. */
static void make_all(struct making *m)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t thread[THREADS_MAX];
    int started = 0;
    for (int i = 0; i < THREADS_MAX && i < processors && i < m->n; i++)
        if (pthread_create(&thread[started], NULL, make_some, m) == 0)
            started++;
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    make_rest(m, m->t->handle);
}

/* What a heuristic offers that is fit, compiled at run time or not. */
static int offers(struct convolution *c, const struct convolution_spec *s,
                  cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode, bool allow_compiled,
                  struct making *m, struct err *e)
{
    cudnnBackendDescriptor_t heuristic, config[CONFIGS_MAX];
    int64_t count = 0, offered = 0;
    int rc = create(c, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic, e);
    if (rc != 0)
        return rc;
    set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &graph, e);
    set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, e);
    if (m->properties)
        set(&rc, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            &m->properties, e);
    finish(&rc, heuristic, "ask for engines", e);
    if (rc != 0)
        return rc;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    for (; count < CONFIGS_MAX && status == CUDNN_STATUS_SUCCESS; count++)
        status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[count]);
    /* The first query may name an upper bound; the number that was filled in is the truth. */
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &offered, config);
    else
        count--; /* that one is not there */
    if (status != CUDNN_STATUS_SUCCESS) {
        rc = failed(e, "name its engines", status);
        offered = 0;
    }
    for (int64_t i = 0; i < count; i++) {
        bool compiled;
        if (i < offered && !unfit(config[i], s, &compiled) && (allow_compiled || !compiled))
            m->config[m->n++] = config[i];
        else
            cudnnBackendDestroyDescriptor(config[i]);
    }
    return rc;
}

/* Asks one heuristic; keeps the best plan in c. ERR_UNSUPPORTED: it has none that is fit.
 * ERR_NOMEM, ERR_DEVICE: so failed one of them, and none is left. */
static int choose(struct convolution *c, const struct convolution_target *t,
                  const struct convolution_spec *s, cudnnBackendDescriptor_t graph,
                  cudnnBackendDescriptor_t properties, cudnnBackendHeurMode_t mode,
                  bool allow_compiled, struct err *e)
{
    struct making m = {.t = t, .properties = properties};
    bool at_once = allow_compiled && t->handle && t->another;
    int best = -1, tried = 0, why = ERR_UNSUPPORTED;
    int rc = offers(c, s, graph, mode, allow_compiled, &m, e);
    if (rc != 0)
        return rc;
    if (at_once)
        make_all(&m);
    for (int i = 0; i < m.n; i++) {
        struct candidate *one = &m.made[i];
        bool enough = best >= 0 && (!t->time || tried >= TIMED_MAX);
        if (!at_once && !enough)
            make_one(&m, i, t->handle);
        if (enough)
            continue;
        double us = 0;
        if (one->plan && t->handle && t->time) {
            one->bound = bound_of(s, c->fused);
            one->rc = t->time(t->ctx, one, one->workspace, &us);
        }
        tried += one->plan != NULL;
        if (one->rc != 0) {
            why = graver(why, one->rc);
        } else if (best < 0 || us < c->us) {
            best = i;
            c->us = us;
        }
    }
    for (int i = 0; i < m.n; i++) {
        if (i == best && c->n_kept < DESCRIPTORS_MAX) {
            c->kept[c->n_kept++] = m.config[i];
            c->plan = m.made[i].plan;
            c->workspace = m.made[i].workspace;
            continue;
        }
        if (m.made[i].plan)
            cudnnBackendDestroyDescriptor(m.made[i].plan);
        cudnnBackendDestroyDescriptor(m.config[i]);
    }
    return c->plan ? 0
                   : err_set(e, why,
                             why == ERR_NOMEM    ? "no memory for any engine that cuDNN offers"
                             : why == ERR_DEVICE ? "every engine that cuDNN offers fails"
                                                 : "cuDNN offers no engine");
}

static void drop_descriptors(struct convolution *c)
{
    while (c->n_kept > 0)
        cudnnBackendDestroyDescriptor(c->kept[--c->n_kept]);
}

/* Of two failures the graver, with its text; *rc 0: there was none before. */
static void keep_graver(int *rc, struct err *e, int now_rc, const struct err *now)
{
    if (*rc != 0 && graver(*rc, now_rc) == *rc)
        return;
    *rc = now_rc;
    if (e)
        *e = *now;
}

/* A failure that no other engine would make good. */
static bool is_lost(const struct convolution_target *t)
{
    return t->handle && t->lost && t->lost(t->ctx);
}

/* The best plan that fuses so much, by either heuristic. */
static int plan_fused(const struct convolution_target *target, const struct convolution_spec *spec,
                      enum convolution_fused fused, bool compiled, struct convolution **out,
                      struct err *e)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct convolution *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a convolution");
    int rc = ERR_UNSUPPORTED, why = 0;
    for (size_t m = 0; rc != 0 && m < sizeof modes / sizeof modes[0]; m++) {
        cudnnBackendDescriptor_t graph, properties;
        struct err now = {0};
        drop_descriptors(c);
        c->fused = fused;
        rc = device_properties(c, target, &properties, &now);
        if (rc == 0)
            rc = describe(c, spec, fused, target->handle, &graph, &now);
        if (rc == 0)
            rc = choose(c, target, spec, graph, properties, modes[m], compiled, &now);
        if (rc != 0)
            keep_graver(&why, e, rc, &now);
    }
    if (rc != 0) {
        convolution_free(c);
        return why;
    }
    c->bound = bound_of(spec, fused);
    *out = c;
    return 0;
}

/* Bytes that the passes behind a plan which fuses less would move. */
static int64_t bytes_left(const struct convolution_spec *s)
{
    int64_t tensor = s->n * s->oh * s->ow * s->k * (s->half ? 2 : 4);
    return tensor * (2 + (s->second_pitch != 0));
}

int convolution_plan(const struct convolution_target *target, const struct convolution_spec *spec,
                     struct convolution **out, struct err *e)
{
    struct convolution *c = NULL, *more = NULL;
    struct err why = {0};
    bool wants_more = convolution_wants_more(spec);
    int rc = ERR_UNSUPPORTED, worst = 0;
    /* Ready engines first: fused ones, then bare; then what must be compiled. */
    for (int compiled = 0; rc != 0 && compiled < 2; compiled++) {
        for (int fused = CONVOLUTION_ALL; rc != 0 && fused >= CONVOLUTION_BARE; fused--) {
            struct err now = {0};
            if ((fused == CONVOLUTION_ALL && (!spec->relu || wants_more)) ||
                (fused == CONVOLUTION_BIAS && !spec->bias))
                continue;
            rc = plan_fused(target, spec, (enum convolution_fused)fused, compiled == 1, &c, &now);
            if (rc != 0)
                keep_graver(&worst, &why, rc, &now);
            if (rc != 0 && is_lost(target))
                return err_set(e, ERR_DEVICE, "the GPU failed while convolutions were planned");
        }
    }
    if (rc != 0)
        return err_set(e, worst,
                       "no plan for a convolution %lldx%lld of %lldx%lldx%lldx%lld to %lld "
                       "channels: %s",
                       (long long)spec->kernel[0], (long long)spec->kernel[1], (long long)spec->n,
                       (long long)spec->h, (long long)spec->w, (long long)spec->c,
                       (long long)spec->k, why.text);
    if (c->fused == CONVOLUTION_BIAS && !spec->relu && !wants_more)
        c->fused = CONVOLUTION_ALL;
    bool can = target->handle && target->time && target->pass && target->another;
    double left = wants_more && can ? target->pass(target->ctx, bytes_left(spec)) : 0;
    /* A pass that takes little longer than its launch is not worth compiling for, nor one that
     * nobody knows the time of. */
    if (left > 0 && left >= 2 * target->pass(target->ctx, 0) &&
        plan_fused(target, spec, CONVOLUTION_ALL, true, &more, NULL) == 0) {
        bool pays = more->us < c->us + left;
        convolution_free(pays ? c : more);
        c = pays ? more : c;
    }
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

static int execute(cudnnBackendDescriptor_t plan, struct bound bound, void *handle,
                   const struct convolution_memory *m, struct err *e)
{
    int64_t uid[5] = {PLAN_X, PLAN_W, PLAN_Y}, n = 3;
    const void *pointer[5] = {m->x, m->w, m->y};
    void *workspace = m->workspace;
    cudnnBackendDescriptor_t pack;
    int rc = 0;
    if (bound.bias) {
        uid[n] = PLAN_BIAS;
        pointer[n++] = m->bias;
    }
    if (bound.second) {
        uid[n] = PLAN_SECOND;
        pointer[n++] = m->second;
    }
    cudnnStatus_t status =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status != CUDNN_STATUS_SUCCESS)
        return failed(e, "bind tensors", status);
    set(&rc, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid, e);
    set(&rc, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointer, e);
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

int convolution_run(const struct convolution *c, void *handle, const struct convolution_memory *m,
                    struct err *e)
{
    return execute(c->plan, c->bound, handle, m, e);
}

int convolution_try(const void *candidate, void *handle, const struct convolution_memory *m)
{
    const struct candidate *c = candidate;
    return execute(c->plan, c->bound, handle, m, NULL);
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

/* unfit() of a plan that was read back, or whose engine cannot be told. */
static bool plan_is_unfit(cudnnBackendDescriptor_t plan, const struct convolution_spec *s)
{
    cudnnBackendDescriptor_t config = NULL;
    int64_t got = 0;
    bool bad = true, compiled;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config) !=
        CUDNN_STATUS_SUCCESS)
        return true;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &got,
                                 &config) == CUDNN_STATUS_SUCCESS)
        bad = unfit(config, s, &compiled);
    cudnnBackendDestroyDescriptor(config);
    return bad;
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
    if (!plan_text_is_of(json, spec, fused)) {
        free(c);
        return err_set(e, ERR_INVALID, "a kept plan is one of another convolution");
    }
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
    if (rc == 0 && plan_is_unfit(c->plan, spec))
        rc = err_set(e, ERR_INVALID, "a kept plan has an engine that must not be used");
    if (rc != 0) {
        convolution_free(c);
        return rc;
    }
    c->fused = fused;
    c->bound = bound_of(spec, fused);
    *out = c;
    return 0;
}
