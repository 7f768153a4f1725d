/* small_graph.h - what tests that build graphs share; behind cmocka.h */
#ifndef SPINENODE_TESTS_SMALL_GRAPH_H
#define SPINENODE_TESTS_SMALL_GRAPH_H

#include "model/graph.h"

/* A graph whose nodes are there, from one input to one output: g. */
static inline struct graph *graph_of(struct graph *g, int x, int y)
{
    g->input = graph_alloc(g, sizeof(int));
    g->output = graph_alloc(g, sizeof(int));
    assert_true(g->input && g->output);
    g->input[0] = x;
    g->output[0] = y;
    g->n_inputs = g->n_outputs = 1;
    g->opset = 17;
    graph_index(g);
    return g;
}

/* The smallest network: batch x 1 x 2 x 2, a Relu. batch -1: any. */
static inline struct graph *relu_network(int64_t batch)
{
    struct graph *g = graph_new();
    assert_non_null(g);
    int x = graph_add_value(g, "x", DTYPE_F32), y = graph_add_value(g, "y", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {batch, 1, 2, 2}};
    g->value[y].shape.rank = -1;
    struct node *n = graph_add_node(g, OP_ACT, "relu", 1, 1);
    assert_non_null(n);
    n->in[0] = x;
    n->out[0] = y;
    n->opset = 17;
    n->act = (struct act){.kind = ACT_RELU};
    return graph_of(g, x, y);
}

#endif
