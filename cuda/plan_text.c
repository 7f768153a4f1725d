/* plan_text.c - see plan_text.h */
#include "cuda/plan_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* dim: images, channels, rows, columns; pitch: elements between pixels. */
static bool has_tensor(const char *json, enum plan_tensor name, bool half, const int64_t dim[4],
                       int64_t pitch)
{
    char text[320];
    snprintf(text, sizeof text,
             "{\"name\":\"%d\",\"dataType\":\"CUDNN_DATA_%s\",\"dim\":[%" PRId64 ",%" PRId64
             ",%" PRId64 ",%" PRId64 "],\"stride\":[%" PRId64 ",1,%" PRId64 ",%" PRId64
             "],\"isVirtual\":false,",
             (int)name, half ? "HALF" : "FLOAT", dim[0], dim[1], dim[2], dim[3],
             dim[2] * dim[3] * pitch, dim[3] * pitch, pitch);
    return strstr(json, text) != NULL;
}

static bool names(const char *json, enum plan_tensor name)
{
    char text[24];
    snprintf(text, sizeof text, "\"name\":\"%d\"", (int)name);
    return strstr(json, text) != NULL;
}

static bool has_convolution(const char *json, const struct convolution_spec *s)
{
    char text[320];
    snprintf(text, sizeof text,
             "\"pad\":[%" PRId64 ",%" PRId64 "],\"stride\":[%" PRId64 ",%" PRId64
             "],\"dilation\":[%" PRId64 ",%" PRId64 "],\"X\":\"%d\",\"W\":\"%d\"",
             s->pad_begin[0], s->pad_begin[1], s->stride[0], s->stride[1], s->dilation[0],
             s->dilation[1], (int)PLAN_X, (int)PLAN_W);
    return strstr(json, text) != NULL;
}

/* As many Relus as are asked for, the first with its slope, the others with none. */
static bool has_relus(const char *json, int relus, double leak, int leaky)
{
    static const char slope[] = "\"lowerClipSlope\":";
    int found = 0, with_slope = 0;
    for (const char *p = json; (p = strstr(p, "\"CUDNN_POINTWISE_RELU_FWD\"")) != NULL; p++) {
        const char *at = strstr(p, slope);
        double value = at ? strtod(at + sizeof slope - 1, NULL) : 0;
        found++;
        if (value != 0 && value != leak)
            return false;
        with_slope += value != 0;
    }
    return found == relus && with_slope == leaky;
}

bool plan_text_is_of(const char *json, const struct convolution_spec *s,
                     enum convolution_fused fused)
{
    bool all = fused == CONVOLUTION_ALL, bias = s->bias && fused != CONVOLUTION_BARE;
    bool relu = s->relu && all, second = s->second_pitch != 0 && all;
    const int64_t x[] = {s->n, s->c, s->h, s->w}, y[] = {s->n, s->k, s->oh, s->ow};
    const int64_t w[] = {s->k, s->c, s->kernel[0], s->kernel[1]}, b[] = {1, s->k, 1, 1};
    return has_tensor(json, PLAN_X, s->half, x, s->c) &&
           has_tensor(json, PLAN_W, s->half, w, s->c) &&
           has_tensor(json, PLAN_Y, s->half, y, s->k) &&
           (bias ? has_tensor(json, PLAN_BIAS, s->half, b, s->k) : !names(json, PLAN_BIAS)) &&
           (second ? has_tensor(json, PLAN_SECOND, s->half, y, s->second_pitch)
                   : !names(json, PLAN_SECOND)) &&
           has_convolution(json, s) &&
           has_relus(json, relu + second, (double)s->leak, relu && s->leak != 0);
}
