/* cuda_fp16.h - of CUDA's header of that name what kernels.h uses, for device_text.cu: binary16 by
 * arithmetic on bits, so that it needs no toolkit and no special processor */
#ifndef SPINENODE_TESTS_CUDA_FP16_H
#define SPINENODE_TESTS_CUDA_FP16_H

#include <stdint.h>
#include <string.h>

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half h)
{
    uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff, bits;
    float f = (float)rest * 0x1p-24f; /* exponent 0: so many of the smallest */
    if (rest < 0x400)
        memcpy(&bits, &f, sizeof bits);
    else if (rest < 0x7c00)
        bits = (rest << 13) + (112u << 23);
    else
        bits = 0x7f800000 | (rest & 0x3ff) << 13;
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest, of two as near to the even one. */
static inline __half __float2half_rn(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return {(uint16_t)(sign | 0x7e00)};
    if (bits >= 0x477ff000) /* 65520, which lies between the largest and the next power of 2 */
        return {(uint16_t)(sign | 0x7c00)};
    if (bits < 0x38800000) { /* below 2^-14: beside 0.5 the last bit is 2^-24, and + rounds */
        const uint32_t half = 126u << 23;
        memcpy(&f, &bits, sizeof f);
        f += 0.5f;
        memcpy(&bits, &f, sizeof bits);
        return {(uint16_t)(sign | (bits - half))};
    }
    bits -= 112u << 23;
    return {(uint16_t)(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13)};
}

#endif
