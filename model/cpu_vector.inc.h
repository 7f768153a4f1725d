/*
 * cpu_vector.inc.h - a vector of LANES floats, and the few operations on it that differ by
 * instruction set
 *
 * Included by cpu_kernels.inc.h only. Where an operand is NaN the result is NaN: results that are
 * not finite must reach the check at the end of a run, and not be turned into zeros by a maximum.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef float vf_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));

INLINE vf load(const float *p)
{
    return *(const vf_any *)p;
}

INLINE void store(float *p, vf x)
{
    *(vf_any *)p = x;
}

#if LANES == 16
INLINE vf all(float x)
{
    return (vf)_mm512_set1_ps(x);
}
/* maximum and minimum give b where one of them is NaN */
INLINE vf maximum(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
INLINE vf minimum(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
INLINE vf root(vf a)
{
    return (vf)_mm512_sqrt_ps((__m512)a);
}
/* x < 0 ? y : x */
INLINE vf below_zero(vf x, vf y)
{
    __mmask16 low = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return (vf)_mm512_mask_mov_ps((__m512)x, low, (__m512)y);
}
INLINE vf load_part(const float *p, int n)
{
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INLINE void store_part(float *p, vf x, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
}
#else
#if LANES == 8
INLINE vf all(float x)
{
    return (vf)_mm256_set1_ps(x);
}
INLINE vf maximum(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
INLINE vf minimum(vf a, vf b)
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
INLINE vf root(vf a)
{
    return (vf)_mm256_sqrt_ps((__m256)a);
}
INLINE vf below_zero(vf x, vf y)
{
    return (vf)_mm256_blendv_ps((__m256)x, (__m256)y, (__m256)x);
}
#elif defined(__x86_64__)
INLINE vf all(float x)
{
    return (vf)_mm_set1_ps(x);
}
INLINE vf maximum(vf a, vf b)
{
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
}
INLINE vf minimum(vf a, vf b)
{
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
}
INLINE vf root(vf a)
{
    return (vf)_mm_sqrt_ps((__m128)a);
}
INLINE vf below_zero(vf x, vf y)
{
    vi low = (vi)x >> 31;
    return (vf)(((vi)x & ~low) | ((vi)y & low));
}
#else
INLINE vf all(float x)
{
    return (vf){x, x, x, x};
}
INLINE vf maximum(vf a, vf b)
{
    vi pick = a > b;
    return (vf)(((vi)a & pick) | ((vi)b & ~pick));
}
INLINE vf minimum(vf a, vf b)
{
    vi pick = a < b;
    return (vf)(((vi)a & pick) | ((vi)b & ~pick));
}
INLINE vf root(vf a)
{
    return (vf){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
}
INLINE vf below_zero(vf x, vf y)
{
    vi low = (vi)x >> 31;
    return (vf)(((vi)x & ~low) | ((vi)y & low));
}
#endif
INLINE vf load_part(const float *p, int n)
{
    float t[LANES] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return load(t);
}
INLINE void store_part(float *p, vf x, int n)
{
    float t[LANES];
    store(t, x);
    memcpy(p, t, (size_t)n * sizeof *p);
}
#endif

/* e^x for −87 <= x <= 88, clamped beyond; relative error below 2e-7. Taylor to the 7th degree on
 * |r| <= ln 2 / 2. */
INLINE vf exponential(vf x)
{
    x = minimum(all(88.0f), maximum(all(-87.0f), x));
    const vf magic = all(12582912.0f); /* 1.5 · 2^23: the sum's low bits are the nearest integer */
    vf t = x * all(1.44269504f) + magic;
    vf n = t - magic;
    vf r = x - n * all(0.693145752f);
    r = r - n * all(1.42860677e-6f);
    vf p = all(1.0f / 5040);
    p = p * r + all(1.0f / 720);
    p = p * r + all(1.0f / 120);
    p = p * r + all(1.0f / 24);
    p = p * r + all(1.0f / 6);
    p = p * r + all(0.5f);
    p = p * r + all(1.0f);
    p = p * r + all(1.0f);
    return (vf)((vi)p + ((vi)t << 23));
}

/* Near 0 an odd polynomial (1 − 2/(e^2x + 1) would cancel there), fitted on |x| < 0.625. */
INLINE vf hyperbolic_tangent(vf x)
{
    const vi sign = (vi)all(-0.0f);
    vf size = (vf)((vi)x & ~sign);
    vf large = all(1.0f) - all(2.0f) / (exponential(size + size) + all(1.0f));
    large = (vf)((vi)large | ((vi)x & sign));
    vf z = x * x;
    vf p = all(-5.70498872e-3f);
    p = p * z + all(2.06390888e-2f);
    p = p * z + all(-5.37397156e-2f);
    p = p * z + all(1.33314422e-1f);
    p = p * z + all(-3.33332819e-1f);
    vf small = x + x * z * p;
    /* size < 0.625 by the sign of the difference; NaN goes through `small` or `large` alike */
    vi pick = (vi)(size - all(0.625f)) >> 31;
    return (vf)(((vi)small & pick) | ((vi)large & ~pick));
}

INLINE vf sigmoid(vf x)
{
    return all(1.0f) / (all(1.0f) + exponential(-x));
}

INLINE vf activate(enum cpu_act_kind kind, vf x, vf a, vf b)
{
    switch (kind) {
    case CPU_NONE:
        break;
    case CPU_RELU:
        return maximum(all(0.0f), x);
    case CPU_LEAKY:
        return below_zero(x, a * x);
    case CPU_CLIP:
        return minimum(b, maximum(a, x));
    case CPU_TANH:
        return hyperbolic_tangent(x);
    case CPU_SIGMOID:
        return sigmoid(x);
    }
    return x;
}

/* Calls body(kind) with kind a constant, so that each activation gets a loop of its own. */
#define FOR_EACH_ACT(kind, body)                                                                   \
    switch (kind) {                                                                                \
    case CPU_NONE:                                                                                 \
        body(CPU_NONE);                                                                            \
        break;                                                                                     \
    case CPU_RELU:                                                                                 \
        body(CPU_RELU);                                                                            \
        break;                                                                                     \
    case CPU_LEAKY:                                                                                \
        body(CPU_LEAKY);                                                                           \
        break;                                                                                     \
    case CPU_CLIP:                                                                                 \
        body(CPU_CLIP);                                                                            \
        break;                                                                                     \
    case CPU_TANH:                                                                                 \
        body(CPU_TANH);                                                                            \
        break;                                                                                     \
    case CPU_SIGMOID:                                                                              \
        body(CPU_SIGMOID);                                                                         \
        break;                                                                                     \
    }
