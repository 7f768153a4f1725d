/*
 * onnx.h - ONNX files (IR 3-10, opset 7-21 of the default domain) into graphs, within bounds
 *
 * The file is neither mapped nor read whole: opening costs time and memory by the number of nodes,
 * not by the size of the weights, and a file that is cut while it is used is an error. Raw data and
 * packed floats of more than 4 KiB stay in it; all else has at most 32 MiB, of which numbers stored
 * one by one decode to at most 16 MiB and metadata have 4 MiB, each value 1 MiB. Weights are
 * checked to be finite when they are loaded (constant_load_f32()), all of them before the first is
 * packed (engine_compile()).
 *
 * Refused, with the place (node, operator, attribute, tensor) in the text: what is not protocol
 * buffers or not ONNX, nested deeper than the format needs, cyclic or out of order, with names
 * defined twice or never, of a type or shape that contradicts itself, larger than the limits, with
 * subgraphs, functions that stand for an operator, nodes of other domains, sparse or quantised
 * tensors or string data, or with operators or attribute values that are not in graph.h. External
 * data (TensorProto.data_location) must be a regular file beneath the model's own folder, reached
 * without a symbolic link or "..". Any thread.
 */
#ifndef SPINENODE_MODEL_ONNX_H
#define SPINENODE_MODEL_ONNX_H

#include <stdint.h>

struct err;
struct graph;

struct onnx_limits {
    int64_t file_bytes;       /* of the model file and of each external file */
    int64_t nodes;            /* also the limit of tensors, each */
    int64_t tensor_elements;  /* of one constant */
    int64_t activation_bytes; /* of all computed values together, once shapes are known */
};

/* 2 GiB, 20,000, 2^29 and 16 GiB. Nodes have at most 2^18 inputs and outputs together. */
extern const struct onnx_limits onnx_default_limits;

/* limits may be NULL: the default ones. *out is NULL after a failure, else for graph_free().
 * ERR_NOT_FOUND, ERR_IO, ERR_INVALID (broken), ERR_UNSUPPORTED, ERR_LIMIT, ERR_REFUSED (external
 * data out of bounds), ERR_NOMEM. */
int onnx_open(const char *path, const struct onnx_limits *limits, struct graph **out,
              struct err *e);

/* The same from memory, without external data; the bytes must outlive the graph. For tests. */
int onnx_parse(const void *bytes, int64_t n, const struct onnx_limits *limits, struct graph **out,
               struct err *e);

#endif
