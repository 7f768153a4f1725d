/* quality_voids.c - what metal leaves in a picture; see quality_parts.h */
#include "model/quality_parts.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/clones.h"

/* Sectors of a ring, and how many of them must be bright for a void: muscle may be beside it, or
 * the dark that a saturation slab leaves. */
#define SECTORS        8
#define SECTORS_BRIGHT 5
/* Pixels from a disc to the end of its ring. */
#define RING       3
#define RADIUS_MAX 7
#define REACH_MAX  (RADIUS_MAX + RING)
/* A void's middle is no brighter. */
#define MIDDLE_MAX 0.15f

/*
 * Every second place is tried but for the left two fifths and the last fifth of the rows, where gut
 * lies; beyond the picture it is dark. All places of a row are tried together, a lane each, in
 * GROUPS of LANES. So the picture lies here with a border, from REACH_MAX columns before the first
 * place on, and of each row first the even columns, then the odd ones: what is to be added to all
 * lanes lies in one piece.
 */
#define LANES  8
#define GROUPS 4
#define HALF   (REACH_MAX + LANES * GROUPS)
#define STRIDE (2 * HALF)
_Static_assert(2 * LANES * GROUPS >= QUALITY_VOIDS_COLUMNS * 3 / 5 + 2, "a lane for each place");

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));

struct ground {
    int rows, columns; /* rows: without those that are not tried */
    int first;         /* column of the first place */
    float *from;       /* where its border begins, in the first row */
    float *memory;
};

static int ground_init(struct ground *g, const float *grey, int rows, int columns, struct err *e)
{
    int left = columns * 2 / 5 - REACH_MAX;
    *g = (struct ground){.rows = rows * 4 / 5, .columns = columns, .first = left + REACH_MAX};
    g->memory = calloc((size_t)(g->rows + 2 * REACH_MAX) * STRIDE, sizeof *g->memory);
    if (g->memory == NULL)
        return err_set(e, ERR_NOMEM, "looking at an image: no memory");
    float *to = g->from = g->memory + REACH_MAX * STRIDE;
    for (int y = 0; y < rows && y < g->rows + REACH_MAX; y++, to += STRIDE)
        for (int x = left > 0 ? left : 0; x < columns; x++)
            to[(x - left) % 2 * HALF + (x - left) / 2] = grey[y * columns + x];
    return 0;
}

/* From a place to the pixel (y, x) away. */
static int step_to(int y, int x)
{
    int column = x + REACH_MAX;
    return y * STRIDE + column % 2 * HALF + column / 2;
}

/* floor((atan2(y, x) / 3.14159265358979 + 1) * 4) % 8: from the left by the top to the right and
 * back. That constant is a little less than pi, so that above the middle an edge between two
 * sectors belongs to the one before it, below to the one after. */
static int sector_of(int y, int x)
{
    if (y < 0)
        return x <= y ? 0 : x <= 0 ? 1 : x <= -y ? 2 : 3;
    if (y == 0)
        return x < 0 ? 0 : 4;
    return x > y ? 4 : x > 0 ? 5 : -x < y ? 6 : 7;
}

/* Most pixels of a disc, and of one sector of its ring. */
#define DISC_MAX   149
#define SECTOR_MAX 24

/* Where they are, by steps from the middle: in the order in which they are added up. */
struct mask {
    int disc, size[SECTORS]; /* how many */
    int inside[DISC_MAX], ring[SECTORS][SECTOR_MAX];
};

static void mask_init(struct mask *m, int radius)
{
    int reach = radius + RING;
    memset(m, 0, sizeof *m);
    for (int y = -reach; y <= reach; y++)
        for (int x = -reach; x <= reach; x++) {
            int d = y * y + x * x, k = sector_of(y, x);
            if (d <= radius * radius)
                m->inside[m->disc++] = step_to(y, x);
            else if (d <= reach * reach)
                m->ring[k][m->size[k]++] = step_to(y, x);
        }
}

/* What is in a where the mask says so: from b. By address: vectors of this width have no other way
 * into a function without AVX. */
static inline void replace(v8 *a, const v8i *mask, const v8 *b)
{
    *a = (v8)((*mask & (v8i)*b) | (~*mask & (v8i)*a));
}

/* The smaller ones first. */
static inline void exchange(v8 *a, v8 *b)
{
    v8i turned = *b < *a;
    v8 smaller = *a;
    replace(&smaller, &turned, b);
    replace(b, &turned, a);
    *a = smaller;
}

static inline void add_up(const float *at, const int *step, int n, v8 sum[GROUPS])
{
    v8 here[GROUPS] = {{0}}, value;
    for (int i = 0; i < n; i++)
        for (int g = 0; g < GROUPS; g++) {
            memcpy(&value, at + step[i] + g * LANES, sizeof value);
            here[g] += value;
        }
    for (int g = 0; g < GROUPS; g++)
        sum[g] = here[g];
}

/* Each place of a row: whether it is a middle. places: how many there are. */
static inline bool middles(const float *at, int places, v8i is[GROUPS])
{
    v8i lane = {0, 1, 2, 3, 4, 5, 6, 7}, any = {0};
    for (int g = 0; g < GROUPS; g++, lane += LANES) {
        v8 grey;
        memcpy(&grey, at + REACH_MAX / 2 + g * LANES, sizeof grey);
        is[g] = ~(grey > MIDDLE_MAX) & (lane < places);
        any |= is[g];
    }
    int found = 0;
    for (int k = 0; k < LANES; k++)
        found |= any[k];
    return found != 0;
}

CLONES static float void_of(const struct ground *g, const struct mask *m, int border)
{
    int places = (g->columns - border - g->first + 1) / 2;
    v8 worst = {0};
    worst -= 1;
    for (int y = border; y < g->rows; y += 2) {
        const float *at = g->from + y * STRIDE;
        v8i is[GROUPS];
        v8 inside[GROUPS], ring[SECTORS][GROUPS];
        if (!middles(at, places, is))
            continue;
        add_up(at, m->inside, m->disc, inside);
        for (int k = 0; k < SECTORS; k++)
            add_up(at, m->ring[k], m->size[k], ring[k]);
        for (int i = 0; i < GROUPS; i++) {
            v8 mean[SECTORS];
            for (int k = 0; k < SECTORS; k++)
                mean[k] = ring[k][i] / (float)m->size[k];
            /* as far as the one that is asked for */
            for (int k = 0; k <= SECTORS - SECTORS_BRIGHT; k++)
                for (int n = SECTORS - 1; n > k; n--)
                    exchange(&mean[n - 1], &mean[n]);
            v8 score = mean[SECTORS - SECTORS_BRIGHT] - 4 * inside[i] / (float)m->disc;
            v8i worse = is[i] & (score > worst);
            replace(&worst, &worse, &score);
        }
    }
    float most = -1;
    for (int k = 0; k < LANES; k++)
        most = worst[k] > most ? worst[k] : most;
    return most;
}

int quality_voids(const float *grey, int rows, int columns, float out[3], struct err *e)
{
    static const int radius[3] = {3, 4, RADIUS_MAX};
    struct ground g;
    struct mask mask;
    int rc = ground_init(&g, grey, rows, columns, e);
    for (int i = 0; rc == 0 && i < 3; i++) {
        mask_init(&mask, radius[i]);
        out[i] = void_of(&g, &mask, radius[i] / 2);
    }
    free(g.memory);
    return rc;
}
