/* cpu_conv_plan.h - what cpu_conv.c plans and cpu_conv_pack.c, cpu_conv_run.c carry out */
#ifndef SPINENODE_MODEL_CPU_CONV_PLAN_H
#define SPINENODE_MODEL_CPU_CONV_PLAN_H

#include "model/cpu_conv.h"
#include "node/base/pool.h"

#define CPU_BLOCK_MAX  112 /* pixels of one task: eight calls of the widest micro-kernel */
#define CPU_REACH_MAX  64  /* columns: (kernel width − 1) · dilation; height: the same */
#define CPU_BAND       32  /* columns: rows of outputs of one task */
#define CPU_PHASES_MAX 64  /* of a transposed convolution: stride × stride */

/* One axis of a direct phase: which taps it has and where they read. */
struct cpu_axis {
    int grid;  /* output rows (columns) of the phase */
    int first; /* the first one's place in the output */
    int taps;  /* taps that ever meet the image */
    int *tap;  /* [taps] index into the kernel */
    int *from; /* [taps][grid] source row (column), −1: padding */
};

struct cpu_phase {
    struct cpu_axis y, x;
    int k;          /* depth: taps · channels */
    size_t weights; /* first float in the packed weights, of group 0 */
};

/* One axis of a Winograd layer. */
struct cpu_tiles {
    int tiles;
    int first;         /* transposed: output row of grid row 0, phase 0 (may be −1) */
    int *from[2];      /* [phase][tiles·m + r − 1] source row, −1: padding */
    uint8_t *plain[2]; /* [phase][tiles] all rows are inside and evenly spaced */
};

/* How the work is cut for so many threads. */
struct cpu_cut {
    int threads;
    int block;      /* most rows (pixels, tiles) of one task */
    int blocks;     /* per phase, group and, for columns, row */
    int split;      /* tasks that share the panels of a block */
    int panels_max; /* most panels of one task */
    /* Where several tasks share a block, its left operand is made once, for all of them, before:
     * [set][chunk of depth][point][row][CPU_LDA], with the most chunks and rows of any set. */
    bool left_shared;
};

struct cpu_conv {
    struct cpu_conv_desc d; /* d.group: groups that are computed, see merged */
    const struct cpu_kernels *k;
    enum cpu_way way;
    int c, oc;  /* of one group; oc: of one phase of the output, where it is shuffled */
    int merged; /* of the layer's groups that are one of ours */

    /* the matrix product: K × N, cut into panels of nr columns */
    int columns;     /* N */
    int nr;          /* lanes · 2 */
    int columns_pad; /* N rounded up to lanes */
    int panels;      /* the last one may be one vector wide */
    int64_t rows;    /* to be cut into blocks: of each phase and group, or row */
    int sets;        /* of such rows */
    int rows_most;   /* of a block */
    /* of the left operand */
    int chunks_max;
    int64_t rows_max;

    struct cpu_cut cut[2]; /* for all threads; for one of them, which is the same unless d.alone */

    /* direct and columns */
    struct cpu_phase *phase;
    int phases;
    int segment; /* channels that lie together in the source for one tap */
    bool copied; /* few channels: the padded input is copied first, one tap is a kernel row */
    int copy_h, copy_w;
    int *copy_y, *copy_x; /* source row, column of the copy's, −1: padding */
    size_t copy_row;      /* floats */

    /* Winograd */
    int side;                  /* of a tile: 4, 5 or 6 pixels and points, each way */
    int m, r;                  /* outputs of a tile, kernel of a phase: side = m + r − 1 */
    int in_phases, out_phases; /* 1 or 2, of each axis */
    struct cpu_tiles ty, tx;
    int depth; /* K */

    size_t group_weights;        /* floats of one group */
    size_t packed_floats;        /* weights of all groups, then bias */
    const float *weights, *bias; /* borrowed by cpu_conv_pack() */
    int *tables;                 /* owns all int tables */
    uint8_t *flags;
};

/* Points of a Winograd tile; 1 of the other ways. */
static inline int cpu_points(const struct cpu_conv *c)
{
    return c->side > 0 ? c->side * c->side : 1;
}

/* What cpu_conv_depthwise.c does of pack and run; the bias is packed already. */
void cpu_depthwise_pack(const struct cpu_conv *c, const float *weights, float *to);
void cpu_depthwise_run(const struct cpu_conv *c, const struct cpu_view *in,
                       const struct cpu_view *out, const struct cpu_view *residual, struct pool *p,
                       float *scratch);

/* Columns of panel p, and its width in vectors. */
static inline int cpu_panel_width(const struct cpu_conv *c, int panel)
{
    int left = c->columns_pad - panel * c->nr;
    return left >= c->nr ? 2 : 1;
}

/* First panel of part i of cut->split. */
static inline int cpu_panel_of(const struct cpu_conv *c, const struct cpu_cut *cut, int part)
{
    return (int)((int64_t)c->panels * part / cut->split);
}

/* How it is cut where pool p runs it. */
static inline const struct cpu_cut *cpu_cut_for(const struct cpu_conv *c, const struct pool *p)
{
    return &c->cut[pool_threads(p) == 1];
}

/* Floats of scratch memory of a thread, which lie apart by a multiple of 16. */
size_t cpu_cut_floats(const struct cpu_conv *c, const struct cpu_cut *cut);

/* The output channel, as the weights have it, of column n where each phase has c->oc of them. */
static inline int cpu_channel_of(const struct cpu_conv *c, int n)
{
    return c->d.shuffle == CPU_CRD ? n % c->oc * 4 + n / c->oc : n;
}

static inline size_t cpu_round16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

/* Floats of the padded copy, which lies at the beginning of the shared scratch. */
static inline size_t cpu_conv_copy_floats(const struct cpu_conv *c)
{
    if (!c->copied)
        return 0;
    return cpu_round16((size_t)c->d.n * (size_t)c->copy_h * c->copy_row + CPU_SLACK);
}

/* Winograd: rows from one point's to the next's. An odd number, or points of a tile, which are
 * written and read one after the other, would share a few sets of the cache. */
static inline size_t cpu_point_rows(int64_t rows)
{
    return (size_t)rows | 1;
}

/* Columns: bands of rows of outputs; a task is a piece of one. */
static inline int cpu_bands(const struct cpu_conv_desc *d)
{
    return (d->oh + CPU_BAND - 1) / CPU_BAND;
}

/* Columns: of a row of sums, which are written four at once. */
static inline size_t cpu_band_row(const struct cpu_conv *c, const struct cpu_cut *cut)
{
    return cpu_round16((size_t)cut->block * (size_t)c->d.oc + 3);
}

/* Row stride of a block of products that is `columns` wide: off powers of two. */
static inline size_t cpu_product_row(size_t columns)
{
    return cpu_round16(columns) + 16;
}

#endif
