/*
 * program_build.h - inside program*.c: a program while it is made
 *
 * Tensors live in buffers; a buffer has a first and a last step and gets its offset in the arena
 * when all steps are known (program_plan_memory()). Until then a place in the arena names its
 * buffer.
 */
#ifndef SPINENODE_CUDA_PROGRAM_BUILD_H
#define SPINENODE_CUDA_PROGRAM_BUILD_H

#include "cuda/program.h"

#define ALIGN 256 /* of buffers and weights, bytes */

struct build_buffer {
    int64_t bytes;
    int first, last; /* steps; first -1: never written */
    int64_t offset;  /* at the end */
};

/* What is still to be done to what a convolution computed: see export_args in kernels_ends.h. */
struct build_rest {
    struct place bias; /* floats */
    struct kernel_act_args act;
    int64_t height, width; /* of what it computed */
    int64_t stride[2], pad[2], lanes;
    int64_t taps, tap_pad;
};

/* What a norm knows of every image and channel: tables, float, of octets·8 for each image. */
struct build_norm {
    struct place centre, scale, shift;
};

/* A value on the device. */
struct build_tensor {
    bool made;
    bool nhwc;       /* rank 4; else row-major */
    int buffer;      /* -1: in the weights (a constant) */
    int64_t offset;  /* elements into the buffer; constants: bytes into the weights */
    int64_t pitch;   /* nhwc: elements between pixels */
    int64_t octets;  /* nhwc: ceil(C / 8) */
    bool owns_lanes; /* nhwc: lanes between C and pitch belong to it alone */
    bool forked;     /* written already, with or instead of a value that it is made of */
    bool unfinished; /* nhwc: what its convolution computed; `rest` is left to its only reader */
    struct build_rest rest;
    /* nhwc: pixels between rows and between images of what lies inside its padded form; 0: its own
     * width and area. Only program_norm.c reads such a one. */
    int64_t row, image;
    struct build_norm norm; /* not made: the Add that reads it normalises as it does */
};

struct build {
    const struct graph *g;
    struct program *p;
    struct build_tensor *tensor; /* one per value */
    struct build_buffer *buffer;
    int n_buffers, cap_buffers;
    bool half, tf32;
    int node; /* being emitted */
    struct err *e;
};

/* While building, an arena place is (buffer << BUFFER_SHIFT | byte offset in it). */
#define BUFFER_SHIFT 40

/* program_build.c */
int build_no_memory(struct build *b); /* ERR_NOMEM */
/* Makes room for one more of `size` bytes. */
int build_grow(struct build *b, void **list, int n, int *cap, size_t size);
/* One more step of the node that is being emitted, zeroed; NULL: no memory. */
struct step *build_step(struct build *b);
int build_fail(struct build *b, const char *why); /* ERR_UNSUPPORTED, naming the node */
int64_t build_element_bytes(const struct build *b);
int build_buffer(struct build *b, int64_t bytes); /* id or ERR_* */
int build_weights(struct build *b, const void *bytes, int64_t n, int64_t *offset);
/* The tensor of a value that a node reads: made already, or a constant that is stored now. */
int build_read(struct build *b, int value, struct build_tensor **out);
/* The tensor of a value that a node writes: by octets, spare lanes too; or by elements, and then
 * the spare lanes are cleared first. */
int build_write(struct build *b, int value, struct build_tensor **out);
int build_write_elements(struct build *b, int value, struct build_tensor **out);
/* A temporary NHWC tensor: n·pixels elements of pitch round8(c). */
int build_temporary(struct build *b, int64_t n, int64_t pixels, int64_t c,
                    struct build_tensor *out);
/* A value of another rank than 4, its channels together: a copy, and the shape N,C,1,rest that this
 * makes of it; and back from such a one. */
int build_flat(struct build *b, int value, struct shape *flat, struct build_tensor *out);
int build_unflat(struct build *b, const struct shape *flat, const struct build_tensor *in,
                 int value);
struct place build_place(const struct build *b, const struct build_tensor *t);
/* Constant floats as a table, zero-padded to a multiple of 8. */
int build_table(struct build *b, int value, int64_t count, struct place *out);
int64_t build_round8(int64_t n);

/* Who reads a value: how many inputs of nodes and outputs of the graph. *only: the node, if it is
 * one that reads it once, else NULL. */
int build_readers(const struct build *b, int value, const struct node **only);
/* The node that makes it; NULL: none. */
const struct node *build_maker(const struct build *b, int value);
/* Is it an output of the graph, once, of rank 4, and read by nobody? */
bool build_is_last(const struct build *b, int value);
/* The activation that alone reads a value of rank 4, as part of whatever makes it; NULL: none. */
const struct node *build_act_of(const struct build *b, int value);
bool build_has_bias(const struct node *n);
/* A Relu that reads the node's output and can be written with it, and its tensor; NULL: none. */
int build_fork_target(struct build *b, const struct node *n, struct build_tensor **out);
struct build_rest build_nothing_left(const struct shape *s);
/* The value is y, and its reader does the rest. act: the node that alone reads it and is part of
 * the rest, so that the value is that node's; NULL: none. */
void build_leave(struct build *b, int value, const struct node *act, const struct build_tensor *y,
                 const struct build_rest *rest);

/* Adds a kernel step; then its pointers. */
int build_launch(struct build *b, enum kernel kernel, const union kernel_args *args, int64_t items);
void build_point(struct build *b, size_t field, struct place place);

struct kernel_act_args build_act(const struct act *act);
struct kernel_view build_view(const struct build *b, const struct build_tensor *t,
                              const struct shape *s);
/* y = act(x·scale + shift) over a whole NHWC tensor; places may be REGION_NONE. */
struct build_tables {
    struct place scale, shift;
};
int build_affine(struct build *b, const struct build_tensor *in, const struct build_tensor *out,
                 int64_t n, int64_t pixels, const struct build_tables *tables,
                 struct kernel_act_args act);

/* program_convolution.c */
int build_conv(struct build *b, const struct node *n);
/* Any Conv or ConvTranspose through the direct kernel. */
int build_direct(struct build *b, const struct node *n, bool transposed);
/* The number of the program's convolution of that spec, ERR_*. */
int build_find_convolution(struct build *b, const struct convolution_spec *spec);
/* Adds the step; where a plan does not fuse a place it may be REGION_NONE. */
struct build_convolved {
    struct place x, w, bias, y, second;
};
int build_convolve(struct build *b, int convolution, const struct build_convolved *places);
/* x as cuDNN wants it: pixels one behind the other, symmetric padding. Copies if it is not so. */
int build_packed(struct build *b, const struct shape *s, const struct build_tensor *in,
                 const int64_t pad_begin[2], const int64_t pad_end[2], struct build_tensor *out);
/* Do convolutions alone read this input of the graph, each folding it for itself? *seen: one of
 * them looks at every number of it. */
bool build_is_folded(const struct build *b, int value, bool *seen);

/* program_transposed.c */
int build_conv_transpose(struct build *b, const struct node *n);
int build_interleave(struct build *b, const struct node *n, const struct build_tensor *y,
                     const struct build_rest *rest, struct kernel_act_args act);

/* program_norm.c */
int build_instance_norm(struct build *b, const struct node *n);
/* Pads of rows and columns alone, and Adds that normalise what they read. */
bool build_frames(const struct build *b, const struct node *n);
int build_framed(struct build *b, const struct node *n);
int build_pad_mode(const struct node *n); /* enum kernel_pad */
/* Pads (or crops) rows and columns of an NHWC tensor; args without pointers, types and pitches. */
int build_pad_octets(struct build *b, const struct build_tensor *in, const struct build_tensor *out,
                     int64_t images, struct frame_args args);

/* program_ops.c */
int build_node(struct build *b, const struct node *n);

#define FIELD(kernel, member) offsetof(union kernel_args, kernel##_.member)

/* build_launch() of a kernel with arrays `in` and `out`, and where these are. */
#define build_map(b, kernel, args, items, in_place, out_place)                                     \
    build_launch_map(b, KERNEL_##kernel, args, items, FIELD(kernel, in.data), in_place,            \
                     FIELD(kernel, out.data), out_place)
int build_launch_map(struct build *b, enum kernel kernel, const union kernel_args *args,
                     int64_t items, size_t in_field, struct place in, size_t out_field,
                     struct place out);

#endif
