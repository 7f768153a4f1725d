/*
 * graph.h - a neural network as values and nodes, as every engine sees it
 *
 * A graph is born from an ONNX file (onnx.h), where shapes may be unknown and any operator of
 * enum op may occur. graph_lower() (passes.h) turns it into a lowered graph, and
 * only lowered graphs reach an engine. In a lowered graph
 *   - every value has a concrete shape, and every dimension is >= 1;
 *   - every value that is not constant is float32;
 *   - nodes stand in an order in which they can be executed;
 *   - operands that are not data (shape of Reshape, starts of Slice, pads, scales, axes ...) are in
 *     the node's attributes, resolved: no negative axis, no auto_pad, no absent default;
 *   - only operators before OP_LOWERED_END occur;
 *   - n_uses and producer of every value are right.
 * A graph is changed only by passes; once lowered it is read-only and may be shared by threads.
 */
#ifndef SPINENODE_MODEL_GRAPH_H
#define SPINENODE_MODEL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define GRAPH_RANK_MAX    8
#define GRAPH_INPUTS_MAX  16 /* inputs of a whole graph; outputs likewise */
#define GRAPH_DIM_UNKNOWN (-1)

/* float16, bfloat16 and float64 are held and computed as float32; all integers as int64. */
enum dtype { DTYPE_F32, DTYPE_I64, DTYPE_I32, DTYPE_U8, DTYPE_BOOL };
bool dtype_is_integer(enum dtype t);

struct shape {
    int rank; /* 0 scalar ... GRAPH_RANK_MAX; -1 unknown */
    int64_t dim[GRAPH_RANK_MAX];
};

/* Product of the dimensions; -1 if one is unknown or the product, leaving out those that are 0,
 * passes INT64_MAX / 8: so no product of some of them overflows. */
int64_t shape_count(const struct shape *s);
bool shape_equal(const struct shape *a, const struct shape *b);
/* "1x3x256x256", "?" where unknown, "scalar" for rank 0. Returns out. */
char *shape_text(const struct shape *s, char *out, size_t size);

/*
 * Operators. Names are those of ONNX unless a comment says otherwise; [in] lists the inputs.
 */
enum op {
    /* Lowered: what engines run. Layouts are NCHW where an operator knows channels. */
    OP_CONV,           /* [X, W, B?] 2-D. X N,C,H,W; W M,C/group,kh,kw; B M. attributes conv, act */
    OP_CONV_TRANSPOSE, /* [X, W, B?] 2-D. W C,M/group,kh,kw; B M. attributes conv, act */
    OP_AFFINE,         /* ours: [X, S, T] X·S[c] + T[c], S and T constant of C elements; act */
    OP_INSTANCE_NORM,  /* [X, S, B] statistics over every dimension after C, biased variance,
                          S and B of C elements; attributes norm, act */
    OP_ACT,            /* ours: [X] Relu, LeakyRelu, Tanh, Sigmoid, Clip by attribute act */
    OP_PRELU,          /* [X, slope] slope broadcast to X in one direction */
    OP_ABS,
    OP_SQRT,
    OP_NEG,
    OP_EXP,
    OP_ADD, /* [A, B] and the next six: broadcast in both directions (NumPy rules) */
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_POW,
    OP_MAX,
    OP_MIN,
    OP_CONCAT,         /* [A, B, ...] axis */
    OP_SPLIT,          /* [X] n_out outputs, axis; sizes are the outputs' shapes */
    OP_SLICE,          /* [X] attributes slice: one entry per dimension */
    OP_PAD,            /* [X] attributes pad: one entry per dimension */
    OP_RESIZE,         /* [X] attributes resize: one entry per dimension */
    OP_DEPTH_TO_SPACE, /* [X] attributes depth */
    OP_RESHAPE,        /* [X] same elements in the same order, the output's shape */
    OP_TRANSPOSE,      /* [X] attributes transpose */
    OP_GATHER,         /* [X] attributes gather: constant indices */
    OP_REDUCE_MEAN,    /* [X] attributes reduce, and the next three */
    OP_REDUCE_SUM,
    OP_REDUCE_SUM_SQUARE,
    OP_REDUCE_PROD,
    OP_AVERAGE_POOL, /* [X] 2-D. attributes pool */
    OP_MAX_POOL,     /* [X] 2-D. attributes pool */
    OP_LOWERED_END,

    /* Gone after lowering. */
    OP_BATCH_NORM, /* [X, S, B, mean, var] */
    OP_CLIP,       /* [X, min?, max?] */
    OP_GLOBAL_AVERAGE_POOL,
    OP_UPSAMPLE, /* [X, scales] */
    OP_FLATTEN,
    OP_SQUEEZE,
    OP_UNSQUEEZE,
    OP_IDENTITY,
    OP_DROPOUT,
    OP_CAST,
    OP_CONSTANT,
    OP_CONSTANT_OF_SHAPE,
    OP_SHAPE,
    OP_SIZE,
    OP_EXPAND,
    OP_TILE, /* [X, repeats] */
    OP_RANGE,
    OP_EQUAL,
    OP_GREATER,
    OP_LESS,
    OP_NOT,
    OP_WHERE,
    OP_FLOOR,
    OP_CEIL,
    OP_RECIPROCAL,
    OP_COUNT
};

/* "Conv"; ours are "Affine" and "Activation". */
const char *op_name(enum op op);

enum act_kind { ACT_NONE, ACT_RELU, ACT_LEAKY_RELU, ACT_TANH, ACT_SIGMOID, ACT_CLIP };
struct act {
    enum act_kind kind;
    float alpha;  /* leaky: y = x < 0 ? alpha·x : x */
    float lo, hi; /* clip: min(max(x, lo), hi); either may be infinite */
};

enum auto_pad { AUTO_PAD_NOTSET, AUTO_PAD_SAME_UPPER, AUTO_PAD_SAME_LOWER, AUTO_PAD_VALID };

/* 2-D windows: [0] rows, [1] columns. In a lowered graph pads are explicit.
 *
 *   Conv           Y[n,m,y,x] = act(B[m] + sum W[m,c,i,j] · X[n,c, y·stride−pad_begin+i·dilation,
 * …]) ConvTranspose  Y[n,m, y·stride−pad_begin+i·dilation, …] += W[c,m,i,j] · X[n,c,y,x]; then B,
 * act
 *
 * The size of a ConvTranspose's Y is the output's shape (output_padding and output_shape are
 * already in it), and pad_begin may then be negative. */
struct conv_attr {
    int64_t kernel[2], stride[2], dilation[2], pad_begin[2], pad_end[2], output_padding[2];
    int64_t output_shape[2]; /* before lowering: 0 if absent, as are kernel, pool's too */
    int64_t group;
    enum auto_pad auto_pad;
    int rank; /* spatial dimensions that the attributes name, 0 if none did */
};
struct pool_attr {
    int64_t kernel[2], stride[2], dilation[2], pad_begin[2], pad_end[2];
    bool ceil_mode;
    bool count_include_pad; /* average: divide by the kernel's size, and not by what it covers */
    enum auto_pad auto_pad;
    int rank;
};
/* How many of the window's taps come before row (axis 0) or column (1) `limit` of the input, for
 * output row or column `at`. Those that meet an input of size n: from pool_taps(…, 0) up to,
 * without it, pool_taps(…, n). */
int64_t pool_taps(const struct pool_attr *a, int axis, int64_t at, int64_t limit);

struct norm_attr {
    double epsilon;
    bool training; /* BatchNormalization with batch statistics; lowered to OP_INSTANCE_NORM, so
                      that samples of one batch (patients) never mix */
};
struct slice_attr {
    int64_t start[GRAPH_RANK_MAX], step[GRAPH_RANK_MAX]; /* element i of an axis: start + i·step */
};
enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE };
struct pad_attr {
    enum pad_mode mode;
    float value;
    int64_t begin[GRAPH_RANK_MAX], end[GRAPH_RANK_MAX]; /* negative: crop */
};
enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC };
enum resize_coord {
    COORD_HALF_PIXEL,
    COORD_HALF_PIXEL_SYMMETRIC,
    COORD_PYTORCH_HALF_PIXEL,
    COORD_ALIGN_CORNERS,
    COORD_ASYMMETRIC,
    COORD_TF_HALF_PIXEL_FOR_NN /* gone from opset 13 on, but tf2onnx goes on writing it */
};
enum resize_nearest {
    NEAREST_PREFER_FLOOR,
    NEAREST_PREFER_CEIL,
    NEAREST_FLOOR,
    NEAREST_CEIL,
    NEAREST_BY_SCALE /* Upsample, Resize 10: ceil along an axis that shrinks, floor else */
};
enum resize_policy { RESIZE_STRETCH, RESIZE_NOT_LARGER, RESIZE_NOT_SMALLER };
struct resize_attr {
    enum resize_mode mode;
    enum resize_coord coord;
    enum resize_nearest nearest;
    float cubic_a;
    bool exclude_outside, antialias;
    double scale[GRAPH_RANK_MAX]; /* lowered: out / in of each axis as the operator defines it; use
                                     these in the coordinate formulas and the output's shape for
                                     the count. Axes of scale 1 and equal size are untouched. */
    enum resize_policy policy;    /* before lowering, as are the axes that scales or sizes name */
    int n_axes, axis[GRAPH_RANK_MAX];
};
struct depth_attr {
    int64_t block;
    bool crd; /* column-row-depth order (PyTorch's pixel shuffle); else depth-column-row */
};
struct transpose_attr {
    int perm[GRAPH_RANK_MAX]; /* output axis i is input axis perm[i] */
    bool given;
};
struct gather_attr {
    int axis;
    int64_t *index; /* n_index of them, each in 0 ... dim−1; their shape is in the output's */
    int64_t n_index;
};
struct axes_attr { /* reductions */
    int n;         /* lowered: at least 1, ascending */
    int axis[GRAPH_RANK_MAX];
    bool keep_dims;
    bool noop_with_empty_axes;
};
struct shape_attr { /* Shape: start, end */
    int64_t start, end;
};

struct node {
    enum op op;
    const char *name; /* as in the file, or made from the first output; for messages */
    int n_in, n_out;
    int *in; /* indices of values; -1: an optional input that is absent */
    int *out;
    struct act act; /* fused, or that of OP_ACT */
    union {
        struct conv_attr conv;
        struct pool_attr pool;
        struct norm_attr norm;
        struct slice_attr slice;
        struct pad_attr pad;
        struct resize_attr resize;
        struct depth_attr depth;
        struct transpose_attr transpose;
        struct gather_attr gather;
        struct axes_attr reduce;
        struct shape_attr shape;
        int axis; /* Concat, Split, Flatten */
        struct {
            bool allow_zero; /* Reshape, opset 14 */
        } reshape;
        enum dtype to; /* Cast */
    };
    int opset; /* of the file, where a meaning depends on it */
};

/* A constant's elements. They may lie unaligned in memory, in the model's file or another, or be
 * the product of stored elements and a scale: read them with constant_load_f32() and
 * constant_load_i64() only. */
struct constant;

struct value {
    const char *name;
    enum dtype dtype;
    struct shape shape;
    /* Graph inputs: name of a dimension that is open, or NULL. */
    const char *symbol[GRAPH_RANK_MAX];
    const struct constant *constant; /* NULL: computed or an input */
    int producer;                    /* node that makes it; -1: input or constant */
    int n_uses;                      /* as a node's input or a graph output */
};

struct metadata {
    const char *key, *text;
};

struct arena;
struct source;

struct graph {
    struct value *value;
    int n_values, cap_values;
    struct node *node;
    int n_nodes, cap_nodes;
    int *input; /* values; constants that the file also lists as inputs are not among them */
    int n_inputs;
    int *output;
    int n_outputs;
    /* What the file says of each output; dimensions may be unknown. NULL once lowered. */
    struct {
        enum dtype dtype;
        struct shape shape;
    } * declared;
    struct metadata *metadata; /* of the file's own graph: a lowered one has none */
    int n_metadata;
    const char *producer; /* "pytorch 2.15.0" */
    int opset, ir_version;
    bool lowered;
    struct arena *arena;   /* owns names, nodes, small constants; use graph_alloc() */
    struct source *source; /* the open file, shared by graphs made from one another */
};

void graph_free(struct graph *g);

/* The value of a metadata key, NULL if the file has none. */
const char *graph_metadata(const struct graph *g, const char *key);

/* Elements first ... first+n−1, in row-major order, as float or int64. Reads the file in which they
 * lie: many at a time cost a fraction of one by one. Thread-safe. ERR_NUMERIC if an element is NaN
 * or infinite (the text names the tensor): so weights are checked where they are packed. ERR_IO if
 * the file cannot be read or was cut. */
int constant_load_f32(const struct value *v, int64_t first, int64_t n, float *out, struct err *e);
int constant_load_i64(const struct value *v, int64_t first, int64_t n, int64_t *out, struct err *e);

/* Of a lowered graph. Multiply-accumulates: those of Conv and ConvTranspose as the definition
 * counts them; other operators count nothing. */
int64_t graph_macs(const struct graph *g);
/* Can each image of a batch be computed alone, so that none changes another's result? Every value
 * must have the batch, more than one image, as its first dimension, and no node mix or move along
 * it. False where that cannot be seen, too. *images: of the batch; *node (may be NULL): the first
 * that may mix them, -1: none, but what goes in or comes out is no such batch. */
bool graph_images_apart(const struct graph *g, int64_t *images, int *node);
int64_t graph_parameters(const struct graph *g); /* elements of float constants with uses */
/* Bytes of all computed float32 values together (not a peak; see an engine's estimate). */
int64_t graph_activation_bytes(const struct graph *g);

/* --- for the reader and the passes ------------------------------------------------------------ */

struct graph *graph_new(void);
/* Memory that lives as long as the graph, zeroed, aligned to 16; NULL if none is left. */
void *graph_alloc(struct graph *g, size_t bytes);
char *graph_strdup(struct graph *g, const char *text, size_t n);
int graph_add_value(struct graph *g, const char *name, enum dtype t); /* index or ERR_NOMEM */
/* Appends a zeroed node with room for its inputs (all -1) and outputs (all -1); NULL: no memory. */
struct node *graph_add_node(struct graph *g, enum op op, const char *name, int n_in, int n_out);
/* Makes a value constant, with a copy of the elements. */
int graph_set_f32(struct graph *g, int value, const struct shape *s, const float *data);
int graph_set_i64(struct graph *g, int value, const struct shape *s, const int64_t *data);
/* Counts uses and producers anew. */
void graph_index(struct graph *g);

#endif
