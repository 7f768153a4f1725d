/*
 * onnx.c - ModelProto and GraphProto: the walk over the file
 *
 * Two walks over the graph's fields: the first counts and reads constants and inputs, the second
 * reads the nodes, which the format demands to stand in an order in which each finds its inputs.
 */
#include "model/onnx.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/err.h"
#include "node/base/file.h"

#include "model/onnx_read.h"

#define IR_LOWEST     3
#define IR_HIGHEST    10
#define OPSET_LOWEST  7
#define OPSET_HIGHEST 21
#define METADATA_MAX  256

const struct onnx_limits onnx_default_limits = {
    .file_bytes = (int64_t)2 << 30,
    .nodes = 20000,
    .tensor_elements = (int64_t)1 << 29,
    .activation_bytes = (int64_t)16 << 30,
};

/* --- nodes ------------------------------------------------------------------------------------ */

struct node_fields {
    struct span op_type, name, domain, first_output;
    int n_in, n_out;
};

static int read_node_fields(struct reader *r, struct span message, struct node_fields *n,
                            struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    int rc, n_in = 0;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number < 1 || f.number > 7 || f.number == 5 || f.number == 6)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "a node", e)) != 0)
            return rc;
        switch (f.number) {
        case 1:
            n_in++;
            if (f.bytes.n > 0)
                n->n_in = n_in; /* inputs left out at the end do not count */
            break;
        case 2:
            if (n->n_out++ == 0)
                n->first_output = f.bytes;
            break;
        case 3:
            n->name = f.bytes;
            break;
        case 4:
            n->op_type = f.bytes;
            break;
        default:
            n->domain = f.bytes;
            break;
        }
    }
    if (rc == 0 && (n_in > ONNX_EDGES_MAX || n->n_out > ONNX_EDGES_MAX))
        return err_set(e, ERR_LIMIT, "a node has more than %d inputs or outputs", ONNX_EDGES_MAX);
    return rc;
}

/* Why is an input not there: made later (cyclic or out of order), or never? */
static int missing_input(struct reader *r, struct span graph, struct span name, const char *what,
                         struct err *e)
{
    struct wire w = wire_of(graph, r->start), inner;
    struct field f, x;
    char shown[96];
    onnx_printable(name, shown, sizeof shown);
    while (wire_next(&w, &f, e) > 0) {
        if (f.number != 1 || f.type != WIRE_BYTES)
            continue;
        inner = wire_of(f.bytes, r->start);
        while (wire_next(&inner, &x, e) > 0)
            if (x.number == 2 && x.type == WIRE_BYTES && span_equal(x.bytes, name))
                return err_set(e, ERR_INVALID,
                               "%s: its input '%s' is made only later: the graph is cyclic or out "
                               "of order",
                               what, shown);
    }
    return err_set(e, ERR_INVALID, "%s: its input '%s' does not exist", what, shown);
}

static int connect(struct reader *r, struct span graph, struct span message, struct node *n,
                   int n_in, const char *what, struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    int rc, in = 0, out = 0;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number == 1) {
            if (in < n_in && f.bytes.n > 0) {
                n->in[in] = onnx_name_find(r, f.bytes);
                if (n->in[in] < 0)
                    return missing_input(r, graph, f.bytes, what, e);
            }
            in++;
        }
    }
    w = wire_of(message, r->start);
    while (rc == 0 && (rc = wire_next(&w, &f, e)) > 0) {
        rc = 0;
        if (f.number != 2)
            continue;
        if (f.bytes.n > 0) {
            int value = onnx_name_add(r, f.bytes, DTYPE_F32, "an output of a node", e);
            if (value < 0)
                return err_context(e, "%s", what);
            n->out[out] = value;
        }
        out++;
    }
    return rc;
}

static int read_node(struct reader *r, struct span graph, struct span message, struct err *e)
{
    struct graph *g = r->g;
    struct node_fields n = {0};
    struct node_reader nr = {.r = r, .opset = g->opset, .e = e};
    char shown[80], type[48];
    int rc = read_node_fields(r, message, &n, e);
    if (rc < 0)
        return rc;
    onnx_printable(n.name.n > 0 ? n.name : n.first_output, shown, sizeof shown);
    onnx_printable(n.op_type, type, sizeof type);
    snprintf(nr.what, sizeof nr.what, "node '%s' (%s)", shown, type);
    if (n.domain.n > 0 && !span_is(n.domain, "ai.onnx")) {
        char domain[64];
        return err_set(e, ERR_UNSUPPORTED, "%s: its domain '%s' is not supported", nr.what,
                       onnx_printable(n.domain, domain, sizeof domain));
    }
    r->edges += n.n_in + n.n_out;
    if (r->edges > ONNX_EDGES_ALL_MAX)
        return err_set(e, ERR_LIMIT, "%s: up to it the nodes have more than %d inputs and outputs",
                       nr.what, ONNX_EDGES_ALL_MAX);
    int row = onnx_op_find(n.op_type, g->opset);
    if (row < 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: operator %s is not supported%s", nr.what, type,
                       row == ONNX_OP_OTHER_OPSET ? " in this opset" : "");
    char *name = graph_strdup(g, shown, strlen(shown));
    int room = onnx_op_room(row, n.n_in);
    struct node *node = name ? graph_add_node(g, onnx_op_code(row), name, room, n.n_out) : NULL;
    if (node == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    nr.n = node;
    if ((rc = connect(r, graph, message, node, n.n_in, nr.what, e)) != 0)
        return rc;
    rc = onnx_read_attributes(&nr, message);
    if (rc != 0)
        return e->code ? rc : attr_refuse(&nr, rc, "its attributes are damaged");
    return onnx_read_op(&nr, row, n.n_in, n.n_out);
}

/* Outputs beyond the first that we do not make must not be used. */
static int check_outputs(struct graph *g, struct err *e)
{
    graph_index(g);
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        for (int j = 1; n->op != OP_SPLIT && j < n->n_out; j++)
            if (n->out[j] >= 0 && g->value[n->out[j]].n_uses > 0)
                return err_set(
                    e, ERR_UNSUPPORTED,
                    "node '%s' (%s): its output %d ('%s') is used, which is not supported", n->name,
                    op_name(n->op), j + 1, g->value[n->out[j]].name);
        if (n->out[0] < 0)
            return err_set(e, ERR_INVALID, "node '%s' (%s): its first output has no name", n->name,
                           op_name(n->op));
    }
    return 0;
}

/* --- graph and model -------------------------------------------------------------------------- */

static int each_field(struct reader *r, struct span graph, uint32_t number,
                      int (*read)(struct reader *, struct span, struct err *), struct err *e)
{
    struct wire w = wire_of(graph, r->start);
    struct field f;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != number)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "a part of the graph", e)) != 0 ||
            (rc = read(r, f.bytes, e)) < 0)
            return rc;
    }
    return rc;
}

static int count_fields(struct reader *r, struct span graph, struct err *e)
{
    struct wire w = wire_of(graph, r->start);
    struct field f;
    int64_t nodes = 0, tensors = 0, others = 0;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        nodes += f.number == 1;
        tensors += f.number == 5;
        others += f.number == 11 || f.number == 12;
        if (f.number == 15)
            return err_set(e, ERR_UNSUPPORTED, "the model has sparse tensors");
        if (nodes > r->limits.nodes || tensors > r->limits.nodes || others > r->limits.nodes)
            return err_set(e, ERR_LIMIT, "the model has more than %lld nodes, tensors or inputs",
                           (long long)r->limits.nodes);
    }
    return rc;
}

static int read_graph(struct reader *r, struct span graph, struct err *e)
{
    struct graph *g = r->g;
    int rc = count_fields(r, graph, e);
    g->input = graph_alloc(g, GRAPH_INPUTS_MAX * sizeof *g->input);
    g->output = graph_alloc(g, GRAPH_INPUTS_MAX * sizeof *g->output);
    g->declared = graph_alloc(g, GRAPH_INPUTS_MAX * sizeof *g->declared);
    if (g->input == NULL || g->output == NULL || g->declared == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    if (rc < 0 || (rc = each_field(r, graph, 5, onnx_read_initializer, e)) < 0 ||
        (rc = each_field(r, graph, 11, onnx_read_input, e)) < 0)
        return rc;
    struct wire w = wire_of(graph, r->start);
    struct field f;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != 1)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "a node", e)) != 0 ||
            (rc = read_node(r, graph, f.bytes, e)) < 0)
            return rc;
    }
    if (rc < 0 || (rc = each_field(r, graph, 12, onnx_read_output, e)) < 0)
        return rc;
    if (g->n_inputs == 0 || g->n_outputs == 0)
        return err_set(e, ERR_INVALID, "the graph has no %s", g->n_inputs ? "output" : "input");
    return check_outputs(g, e);
}

static int read_opset(struct reader *r, struct span message, struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    struct span domain = {0};
    uint64_t version = 0;
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number == 1 && (rc = wire_expect(&f, WIRE_BYTES, "an opset's domain", e)) == 0)
            domain = f.bytes;
        else if (f.number == 2 && (rc = wire_expect(&f, WIRE_VARINT, "an opset's version", e)) == 0)
            version = f.value;
        if (rc < 0)
            return rc;
    }
    if (rc < 0 || (domain.n > 0 && !span_is(domain, "ai.onnx")))
        return rc; /* other domains may be named; nodes of theirs are refused */
    if (r->g->opset != 0)
        return err_set(e, ERR_INVALID, "the model names two opsets of the default domain");
    if (version < OPSET_LOWEST || version > OPSET_HIGHEST)
        return err_set(e, ERR_UNSUPPORTED,
                       "the model uses opset %llu; supported are %d to %d: export it again with "
                       "opset 17",
                       (unsigned long long)version, OPSET_LOWEST, OPSET_HIGHEST);
    r->g->opset = (int)version;
    return 0;
}

static int read_metadata(struct reader *r, struct span message, struct err *e)
{
    struct graph *g = r->g;
    struct wire w = wire_of(message, r->start);
    struct field f;
    struct span part[3] = {{0}};
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != 1 && f.number != 2)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "metadata", e)) != 0)
            return rc;
        part[f.number] = f.bytes;
    }
    if (rc < 0)
        return rc;
    if (g->n_metadata == METADATA_MAX)
        return err_set(e, ERR_LIMIT, "the model has more than %d metadata entries", METADATA_MAX);
    char shown[64];
    onnx_printable(part[1], shown, sizeof shown);
    if (part[1].n > ONNX_NAME_MAX || part[2].n > ONNX_TEXT_MAX)
        return err_set(e, ERR_LIMIT,
                       "metadata '%s': its key is longer than %d bytes, or its value than %d",
                       shown, ONNX_NAME_MAX, ONNX_TEXT_MAX);
    r->metadata += part[1].n + part[2].n;
    if (r->metadata > ONNX_METADATA_MAX)
        return err_set(e, ERR_LIMIT, "metadata '%s': all entries together have more than %d bytes",
                       shown, ONNX_METADATA_MAX);
    if (g->metadata == NULL)
        g->metadata = graph_alloc(g, METADATA_MAX * sizeof *g->metadata);
    char *key = graph_strdup(g, (const char *)part[1].p, (size_t)part[1].n);
    char *text = graph_strdup(g, (const char *)part[2].p, (size_t)part[2].n);
    if (g->metadata == NULL || key == NULL || text == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    if (graph_metadata(g, key) != NULL)
        return err_set(e, ERR_INVALID, "metadata '%.64s' is there twice", key);
    g->metadata[g->n_metadata++] = (struct metadata){.key = key, .text = text};
    return 0;
}

/* A FunctionProto. One that takes the place of an operator would change what the nodes mean; those
 * of other domains may be there: nodes that use them are refused. */
static int read_function(struct reader *r, struct span message, struct err *e)
{
    struct wire w = wire_of(message, r->start);
    struct field f;
    struct span name = {0}, domain = {0};
    char shown[64];
    int rc;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        if (f.number != 1 && f.number != 10)
            continue;
        if ((rc = wire_expect(&f, WIRE_BYTES, "a function", e)) != 0)
            return rc;
        *(f.number == 1 ? &name : &domain) = f.bytes;
    }
    if (rc == 0 && (domain.n == 0 || span_is(domain, "ai.onnx")))
        return err_set(e, ERR_UNSUPPORTED,
                       "the model defines a function '%s' of the default domain, which is not "
                       "supported: export it with its functions inlined",
                       onnx_printable(name, shown, sizeof shown));
    return rc;
}

static int read_model(struct reader *r, struct span file, struct err *e)
{
    struct wire w = wire_of(file, r->start);
    struct field f;
    struct span graph = {0}, producer[2] = {{0}};
    uint64_t ir = 0;
    int rc, n_graphs = 0;
    while ((rc = wire_next(&w, &f, e)) > 0) {
        switch (f.number) {
        case 1:
            if ((rc = wire_expect(&f, WIRE_VARINT, "the IR version", e)) != 0)
                return rc;
            ir = f.value;
            break;
        case 2:
        case 3:
            if ((rc = wire_expect(&f, WIRE_BYTES, "the producer", e)) != 0)
                return rc;
            producer[f.number - 2] = f.bytes;
            break;
        case 7:
            if ((rc = wire_expect(&f, WIRE_BYTES, "the graph", e)) != 0)
                return rc;
            graph = f.bytes;
            n_graphs++;
            break;
        case 8:
            if ((rc = wire_expect(&f, WIRE_BYTES, "an opset", e)) != 0 ||
                (rc = read_opset(r, f.bytes, e)) < 0)
                return rc;
            break;
        case 14:
            if ((rc = wire_expect(&f, WIRE_BYTES, "metadata", e)) != 0 ||
                (rc = read_metadata(r, f.bytes, e)) < 0)
                return rc;
            break;
        case 25:
            if ((rc = wire_expect(&f, WIRE_BYTES, "a function", e)) != 0 ||
                (rc = read_function(r, f.bytes, e)) < 0)
                return rc;
            break;
        default:
            break;
        }
    }
    if (rc < 0)
        return rc;
    if (n_graphs != 1 || ir == 0)
        return err_set(e, ERR_INVALID, "not an ONNX model: it has %s",
                       ir == 0    ? "no IR version"
                       : n_graphs ? "several graphs"
                                  : "no graph");
    if (ir < IR_LOWEST || ir > IR_HIGHEST)
        return err_set(e, ERR_UNSUPPORTED, "the model has IR version %llu; supported are %d to %d",
                       (unsigned long long)ir, IR_LOWEST, IR_HIGHEST);
    if (r->g->opset == 0)
        return err_set(e, ERR_INVALID, "the model names no opset of the default domain");
    r->g->ir_version = (int)ir;
    char text[64], a[32], b[24];
    int n = snprintf(text, sizeof text, "%s %s", onnx_printable(producer[0], a, sizeof a),
                     onnx_printable(producer[1], b, sizeof b));
    r->g->producer = graph_strdup(r->g, text, (size_t)n);
    if (r->g->producer == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    return read_graph(r, graph, e);
}

/* Reads the model that lies at bytes; without what is left out if g->source has a file. */
static int parse(struct graph *g, const uint8_t *bytes, int64_t n, int folder_fd,
                 const struct onnx_limits *limits, struct err *e)
{
    struct reader r = {
        .g = g,
        .limits = limits ? *limits : onnx_default_limits,
        .start = bytes,
        .folder_fd = folder_fd,
    };
    int rc = onnx_names_new(&r, e);
    if (rc == 0)
        rc = read_model(&r, (struct span){bytes, n}, e);
    onnx_names_free(&r);
    return rc < 0 ? rc : 0;
}

static struct graph *new_with_source(void)
{
    struct graph *g = graph_new();
    if (g != NULL && (g->source = source_new()) != NULL)
        return g;
    graph_free(g);
    return NULL;
}

int onnx_parse(const void *bytes, int64_t n, const struct onnx_limits *limits, struct graph **out,
               struct err *e)
{
    struct err own = {0};
    struct graph *g = new_with_source();
    *out = NULL;
    if (g == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    int rc = parse(g, bytes, n, -1, limits, e ? e : &own);
    if (rc != 0) {
        graph_free(g);
        return rc;
    }
    *out = g;
    return 0;
}

int onnx_open(const char *path, const struct onnx_limits *limits, struct graph **out, struct err *e)
{
    struct err own = {0};
    char folder[PATH_BYTES];
    int folder_fd = -1;
    *out = NULL;
    e = e ? e : &own;
    e->code = 0;
    struct graph *g = new_with_source();
    if (g == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the model");
    struct span file;
    int rc = onnx_file_open(g->source, path, (limits ? limits : &onnx_default_limits)->file_bytes,
                            &file, e);
    if (rc != 0)
        goto out;
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    rc = parse(g, file.p, file.n, folder_fd, limits, e);
    if (rc != 0)
        err_context(e, "%s", path);
out:
    if (folder_fd >= 0)
        close(folder_fd);
    if (rc != 0) {
        graph_free(g);
        return rc;
    }
    *out = g;
    return 0;
}
