/* onnx_read.h - what the files of the reader share: onnx.c, onnx_value, _tensor, _attr and _op.c */
#ifndef SPINENODE_MODEL_ONNX_READ_H
#define SPINENODE_MODEL_ONNX_READ_H

#include "model/constant.h"
#include "model/graph.h"
#include "model/onnx.h"
#include "model/onnx_wire.h"

struct err;

#define ONNX_ATTRIBUTES_MAX 32        /* of one node */
#define ONNX_EDGES_MAX      4096      /* inputs, or outputs, of one node */
#define ONNX_EDGES_ALL_MAX  (1 << 18) /* of all nodes */
#define ONNX_NAME_MAX       4096      /* bytes of one name */
#define ONNX_DIM_MAX        ((int64_t)1 << 31)
#define ONNX_WINDOW_MAX     ((int64_t)1 << 20) /* kernel, stride, dilation, pad */
/* Bytes that all numbers which are neither raw data nor one packed field take once decoded, those
 * written as varints first of all. */
#define ONNX_DECODED_MAX   (16 << 20)
#define ONNX_STRUCTURE_MAX (32 << 20) /* bytes of a file that are not raw data or packed floats */
#define ONNX_COPIED_MAX    4096       /* larger ones of these stay in the file */
#define ONNX_TEXT_MAX      (1 << 20)  /* one metadata value; longer texts of others are not read */
#define ONNX_METADATA_MAX  (4 << 20)  /* all metadata together */

struct name_table; /* open addressing over the names of values */

struct reader {
    struct graph *g;
    struct onnx_limits limits;
    const uint8_t *start; /* of the file */
    int folder_fd;        /* of the model, for external data; -1: none */
    int64_t decoded;      /* bytes so far, of ONNX_DECODED_MAX */
    int64_t metadata;     /* likewise */
    int64_t edges;        /* likewise */
    struct name_table *names;
};

/* --- onnx_file.c ------------------------------------------------------------------------------ */

/* Opens a model file into s, which owns what is opened also after a failure, and gives its bytes,
 * of which only those may be read that the reader looks at: no raw data or packed floats that are
 * onnx_is_left_out(). ERR_NOT_FOUND, ERR_IO, ERR_INVALID, ERR_LIMIT, ERR_NOMEM. */
int onnx_file_open(struct source *s, const char *path, int64_t max_bytes, struct span *out,
                   struct err *e);
bool onnx_is_left_out(int64_t bytes);

/* --- onnx_value.c ----------------------------------------------------------------------------- */

int onnx_names_new(struct reader *r, struct err *e);
void onnx_names_free(struct reader *r);
/* The value of a name, −1 if there is none. */
int onnx_name_find(const struct reader *r, struct span s);
/* Adds a value under a name that is not there yet; what: "tensor", for messages. */
int onnx_name_add(struct reader *r, struct span s, enum dtype t, const char *what, struct err *e);

/* A ValueInfoProto of the graph's inputs or outputs, a TensorProto of its constants. */
int onnx_read_input(struct reader *r, struct span message, struct err *e);
int onnx_read_output(struct reader *r, struct span message, struct err *e);
int onnx_read_initializer(struct reader *r, struct span message, struct err *e);

/* --- onnx_tensor.c ---------------------------------------------------------------------------- */

/* Reads a TensorProto. *name (may be NULL) is the tensor's, borrowed from the file and not
 * terminated. Errors name the tensor. */
int onnx_read_tensor(struct reader *r, struct span message, const char *context, struct span *name,
                     enum dtype *dtype, struct shape *shape, const struct constant **out,
                     struct err *e);

/* ONNX data type to ours; ERR_UNSUPPORTED. */
int onnx_dtype(uint64_t data_type, enum dtype *out, const char *what, struct err *e);

/* Terminated and fit to print: bytes that are not printable ASCII become '?'. Returns out. */
char *onnx_printable(struct span s, char *out, size_t size);

/* --- onnx_op.c, onnx_attr.c ------------------------------------------------------------------- */

enum attr_type {
    ATTR_FLOAT = 1,
    ATTR_INT = 2,
    ATTR_STRING = 3,
    ATTR_TENSOR = 4,
    ATTR_FLOATS = 6,
    ATTR_INTS = 7
};

struct attr {
    struct span name;
    enum attr_type type;
    float f;
    int64_t i;
    struct span s;       /* string, or the tensor's message */
    struct span message; /* for floats and ints */
    bool used;
};

/* A node while it is read. */
struct node_reader {
    struct reader *r;
    struct node *n;
    char what[160]; /* "node 'name' (Conv)" for messages */
    int opset;
    struct attr attr[ONNX_ATTRIBUTES_MAX];
    int n_attr;
    int rc; /* the first error sticks, so that attributes are read without a check each */
    struct err *e;
};

/* An attribute, marked as used, or NULL if it is absent or of another type (an error). */
struct attr *attr_find(struct node_reader *nr, const char *name, enum attr_type type);
int64_t attr_int(struct node_reader *nr, const char *name, int64_t absent, int64_t lowest,
                 int64_t highest);
float attr_float(struct node_reader *nr, const char *name, float absent);
/* Index of the attribute's text in a list of words that ends with NULL; absent: index 0.
 * Any other text is an error. */
int attr_word(struct node_reader *nr, const char *name, const char *const *words);
/* Fills at most max numbers; returns how many there are, -1 if absent. */
int attr_ints(struct node_reader *nr, const char *name, int64_t *out, int max, int64_t lowest,
              int64_t highest);
int attr_refuse(struct node_reader *nr, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Reads the attributes of a NodeProto. */
int onnx_read_attributes(struct node_reader *nr, struct span node_message);

/* The row of the operator table for an operator in an opset, or one of the two below. */
#define ONNX_OP_UNKNOWN     (-1)
#define ONNX_OP_OTHER_OPSET (-2) /* other opsets have it */
int onnx_op_find(struct span op_type, int opset);
enum op onnx_op_code(int row);
int onnx_op_room(int row, int n_in);

/* Checks the counts (n_in, n_out: as in the file) and fills the attributes of nr->n, whose op and
 * inputs are set. */
int onnx_read_op(struct node_reader *nr, int row, int n_in, int n_out);

#endif
