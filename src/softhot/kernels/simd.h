// Vectors of W floats in the instruction set that this is compiled for, and the little the kernel
// asks of them: arithmetic comes with the compiler's vector types, this adds what differs.
//
// Everything is in an anonymous namespace and the standard library's templates are left alone: code
// for one instruction set must not reach another's through a function that the linker merges.

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
enum { W = 16, MASKED_STORES = true };
#elif defined(__AVX2__)
enum { W = 8, MASKED_STORES = false };
#else
enum { W = 4, MASKED_STORES = false };
#endif

typedef float Floats __attribute__((vector_size(4 * W)));
typedef double Doubles __attribute__((vector_size(8 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint32_t Bits __attribute__((vector_size(4 * W)));
typedef int64_t Longs __attribute__((vector_size(8 * W)));
typedef uint16_t Narrow __attribute__((vector_size(2 * W)));

INLINE Floats all(float x) { return x - Floats{}; }

#if defined(__AVX512F__)
INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
INLINE bool any(Ints mask) { return _mm512_movepi32_mask((__m512i)mask) != 0; }
INLINE Floats evens(Floats a, Floats b) { return _mm512_shuffle_ps(a, b, 0x88); }
INLINE Floats odds(Floats a, Floats b) { return _mm512_shuffle_ps(a, b, 0xdd); }
INLINE Floats even_lanes(Floats a, Floats b) { return _mm512_shuffle_f32x4(a, b, 0x88); }
INLINE Floats odd_lanes(Floats a, Floats b) { return _mm512_shuffle_f32x4(a, b, 0xdd); }
#elif defined(__AVX2__)
INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
INLINE bool any(Ints mask) { return _mm256_movemask_ps((__m256)mask) != 0; }
INLINE Floats evens(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0x88); }
INLINE Floats odds(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0xdd); }
INLINE Floats even_lanes(Floats a, Floats b) { return _mm256_permute2f128_ps(a, b, 0x20); }
INLINE Floats odd_lanes(Floats a, Floats b) { return _mm256_permute2f128_ps(a, b, 0x31); }
#elif defined(__aarch64__)
INLINE Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
INLINE Floats larger(Floats a, Floats b) { return vmaxnmq_f32(a, b); }
INLINE bool any(Ints mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
INLINE Floats evens(Floats a, Floats b) { return vuzp1q_f32(a, b); }
INLINE Floats odds(Floats a, Floats b) { return vuzp2q_f32(a, b); }
#else
INLINE Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
INLINE bool any(Ints mask) { return mask[0] | mask[1] | mask[2] | mask[3]; }
INLINE Floats evens(Floats a, Floats b) { return Floats{a[0], a[2], b[0], b[2]}; }
INLINE Floats odds(Floats a, Floats b) { return Floats{a[1], a[3], b[1], b[3]}; }
#endif

// Which lanes of a row's last vector belong to it: the first n, 1 <= n <= W.
#if defined(__AVX512F__)
typedef __mmask16 Mask;
INLINE Mask first(int n) { return (Mask)((1u << n) - 1); }
INLINE Floats select(Mask mask, Floats a, Floats b) { return _mm512_mask_blend_ps(mask, b, a); }
INLINE Ints lanes_of(Mask mask) { return (Ints)_mm512_movm_epi32(mask); }
#else
typedef Ints Mask;
INLINE Mask first(int n) {
  Ints lane;
  for (int i = 0; i < W; i++) lane[i] = i;
  return lane < n;
}
INLINE Floats select(Mask mask, Floats a, Floats b) { return mask ? a : b; }
INLINE Ints lanes_of(Mask mask) { return mask; }
#endif

struct Last {
  int n;
  Mask mask;
  explicit Last(int64_t length) : n((int)((length - 1) % W) + 1), mask(first(n)) {}
};

struct Sum {
  static INLINE Floats of(Floats a, Floats b) { return a + b; }
};
struct Max {
  static INLINE Floats of(Floats a, Floats b) { return larger(a, b); }
};

// Reduces each of W vectors over its own lanes: lane i of the result belongs to v[i]. A step halves
// the number of vectors by joining neighbours in pairs, first within lanes of 128 bits, then whole.
template <class Op>
INLINE Floats reduce_each(const Floats* v) {
  Floats t[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) t[i] = v[i];
#pragma GCC unroll 16
  for (int i = 0; i < W / 2; i++) t[i] = Op::of(evens(t[2 * i], t[2 * i + 1]), odds(t[2 * i], t[2 * i + 1]));
#pragma GCC unroll 16
  for (int i = 0; i < W / 4; i++) t[i] = Op::of(evens(t[2 * i], t[2 * i + 1]), odds(t[2 * i], t[2 * i + 1]));
#if defined(__AVX2__)
  for (int n = W / 8; n > 0; n /= 2)
    for (int i = 0; i < n; i++)
      t[i] = Op::of(even_lanes(t[2 * i], t[2 * i + 1]), odd_lanes(t[2 * i], t[2 * i + 1]));
#endif
  return t[0];
}

// The same steps, keeping both halves: v becomes its transpose, lane i of v[j] being lane j of v[i].
INLINE void transpose(Floats* v) {
  Floats t[W];
#pragma GCC unroll 16
  for (int i = 0; i < W / 2; i++) t[i] = evens(v[2 * i], v[2 * i + 1]), t[i + W / 2] = odds(v[2 * i], v[2 * i + 1]);
#pragma GCC unroll 16
  for (int i = 0; i < W / 2; i++) v[i] = evens(t[2 * i], t[2 * i + 1]), v[i + W / 2] = odds(t[2 * i], t[2 * i + 1]);
#if defined(__AVX2__)
#pragma GCC unroll 16
  for (int i = 0; i < W / 2; i++)
    t[i] = even_lanes(v[2 * i], v[2 * i + 1]), t[i + W / 2] = odd_lanes(v[2 * i], v[2 * i + 1]);
#if defined(__AVX512F__)
#pragma GCC unroll 16
  for (int i = 0; i < W / 2; i++)
    v[i] = even_lanes(t[2 * i], t[2 * i + 1]), v[i + W / 2] = odd_lanes(t[2 * i], t[2 * i + 1]);
#else
  for (int i = 0; i < W; i++) v[i] = t[i];
#endif
#endif
}

// Four numbers of every fourth row: those of row 4 j are in the j-th part of the vector.
INLINE Floats quads(const float* p, int64_t stride) {
#if defined(__AVX512F__)
  Floats v = _mm512_castps128_ps512(_mm_loadu_ps(p));
  v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * stride), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * stride), 2);
  return _mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * stride), 3);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
#else
  Floats v;
  memcpy(&v, p, sizeof v);
  return v;
#endif
}

// Four classes of W rows: lane r of v[c] is class c of row r.
INLINE void four_classes(const float* z, int64_t stride, Floats* v) {
  const Floats a = quads(z, stride), b = quads(z + stride, stride);
  const Floats c = quads(z + 2 * stride, stride), d = quads(z + 3 * stride, stride);
  const Floats even = evens(a, b), more_even = evens(c, d), odd = odds(a, b), more_odd = odds(c, d);
  v[0] = evens(even, more_even), v[2] = odds(even, more_even);
  v[1] = evens(odd, more_odd), v[3] = odds(odd, more_odd);
}
template <class T>
INLINE void four_classes(const T*, int64_t, Floats*) {}

template <class Op>
INLINE float reduce(Floats v) {
  for (int n = W / 2; n > 0; n /= 2) {
    Floats other = v;
    for (int i = 0; i < n; i++) other[i] = v[i + n];
    v = Op::of(v, other);
  }
  return v[0];
}

// e^d for d <= 0: within 1 unit in the last place down to d = -87, 0 below, 1 at 0.
INLINE Floats exp_negative(Floats d) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
  const Floats t = fma(d, all(1.44269504f), all(shift));
  const Floats n = t - shift;
  Floats r = fma(n, all(-0.693359375f), d);
  r = fma(n, all(2.12194440e-4f), r);
  Floats p = all(0.0013843559427186847f);
  p = fma(p, r, all(0.008374235592782497f));
  p = fma(p, r, all(0.041668009012937546f));
  p = fma(p, r, all(0.16666430234909058f));
  p = fma(p, r, all(0.4999999403953552f));
  p = fma(p, r, all(1.0f));
  p = fma(p, r, all(1.0f));
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(d, all(-87.0f), _CMP_GE_OQ), p, n);
#else
  const Floats e = (Floats)((Bits)p + ((Bits)t << 23));
  return d >= -87.0f ? e : Floats{};
#endif
}

// log(1 + x) for x >= 0, with its relative digits where x is small; the inverse is that of 1 + x.
INLINE Floats log1p_positive(Floats x, Floats inverse) {
  const Floats u = x + 1.0f;
  const Ints e = (Ints)((Bits)u - 0x3f3504f3u) >> 23;  // u = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
  const Floats f = (Floats)((Bits)u - ((Bits)e << 23)) - 1.0f;
  const Floats exponent = __builtin_convertvector(e, Floats);
  Floats p = all(-0.07634498178958893f);
  p = fma(p, f, all(0.1276157796382904f));
  p = fma(p, f, all(-0.13160182535648346f));
  p = fma(p, f, all(0.14201757311820984f));
  p = fma(p, f, all(-0.16623356938362122f));
  p = fma(p, f, all(0.20001226663589478f));
  p = fma(p, f, all(-0.2500081956386566f));
  p = fma(p, f, all(0.3333333134651184f));
  const Floats lost = (x - (u - 1.0f)) * inverse;  // what rounding 1 + x left out
  Floats tail = fma(f * f * f, p, f * f * -0.5f);
  tail = fma(exponent, all(-2.12194440e-4f), tail) + lost;
  return fma(exponent, all(0.693359375f), f + tail);
}

// ---------------------------------------------------------------- float32, bfloat16, float16

struct Brain {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class V>
INLINE V read(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE Floats widen(Narrow v, const Brain*) {
  return (Floats)(__builtin_convertvector(v, Bits) << 16);
}

#if defined(__AVX512BF16__)
INLINE Narrow narrow(Floats v, const Brain*) { return (Narrow)_mm512_cvtneps_pbh(v); }
#else
INLINE Narrow narrow(Floats v, const Brain*) {  // to nearest, ties to even
  const Bits b = (Bits)v;
  return __builtin_convertvector((b + 0x7fff + ((b >> 16) & 1)) >> 16, Narrow);
}
#endif

#if defined(__AVX512F__)
INLINE Floats widen(Narrow v, const Half*) { return _mm512_cvtph_ps((__m256i)v); }
INLINE Narrow narrow(Floats v, const Half*) { return (Narrow)_mm512_cvtps_ph(v, 0); }
#elif defined(__AVX2__)
INLINE Floats widen(Narrow v, const Half*) { return _mm256_cvtph_ps((__m128i)v); }
INLINE Narrow narrow(Floats v, const Half*) { return (Narrow)_mm256_cvtps_ph(v, 0); }
#elif defined(__aarch64__)
INLINE Floats widen(Narrow v, const Half*) { return vcvt_f32_f16((float16x4_t)v); }
INLINE Narrow narrow(Floats v, const Half*) { return (Narrow)vcvt_f16_f32(v); }
#else
INLINE Floats widen(Narrow v, const Half*) {
  const Bits b = __builtin_convertvector(v, Bits);
  const Floats scaled = (Floats)((b & 0x7fff) << 13) * 0x1p112f;  // right for subnormals too
  const Bits special = (Bits)((Ints)(b & 0x7c00) == 0x7c00);
  return (Floats)((Bits)scaled | (special & 0x7f800000) | ((b & 0x8000) << 16));
}
INLINE Narrow narrow(Floats v, const Half*) {
  const Bits sign = (Bits)v & 0x80000000u, b = (Bits)v ^ sign;
  // Beside 0.5 a float's last bit is worth as much as that of a subnormal half.
  const Bits small = (Bits)((Floats)b + 0.5f) - 0x3f000000u;
  const Bits usual = (b - 0x38000000u + 0xfff + ((b >> 13) & 1)) >> 13;
  const Bits tiny = (Bits)((Ints)b < 0x38800000), huge = (Bits)((Ints)b >= 0x47800000);
  const Bits magnitude = (tiny & small) | (~tiny & ((huge & 0x7c00) | (~huge & usual)));
  return __builtin_convertvector(magnitude | (sign >> 16), Narrow);
}
#endif

INLINE Floats load(const float* p) { return read<Floats>(p); }
template <class T>
INLINE Floats load(const T* p) {
  return widen(read<Narrow>(p), p);
}

INLINE void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }
template <class T>
INLINE void store(T* p, Floats v) {
  const Narrow bits = narrow(v, p);
  memcpy(p, &bits, sizeof bits);
}

// The last vector of a row that must not be read beyond its end, other lanes undefined but finite
// or what follows the row; `end` is the end of all memory that may be read.
INLINE Floats load(const float* p, Last last, const float* end) {
#if defined(__AVX512F__)
  (void)end;
  return _mm512_maskz_loadu_ps(last.mask, p);
#else
  if (p + W <= end) return load(p);
  Floats v{};
  for (int i = 0; i < last.n; i++) v[i] = p[i];
  return v;
#endif
}
template <class T>
INLINE Floats load(const T* p, Last last, const T* end) {
#if defined(__AVX512F__)
  (void)end;
  return widen((Narrow)_mm256_maskz_loadu_epi16(last.mask, p), p);
#else
  if (p + W <= end) return load(p);
  uint16_t v[W] = {};
  for (int i = 0; i < last.n; i++) v[i] = p[i].bits;
  return widen(read<Narrow>(v), p);
#endif
}

// The first n lanes, in pieces of falling powers of two.
template <class T, class V>
INLINE void store_pieces(T* p, V v, int n) {
  char bytes[sizeof v];
  memcpy(bytes, &v, sizeof v);
  unsigned at = 0, size = n * (unsigned)sizeof(T);
  char* out = (char*)p;
  if (size & 32) memcpy(out + at, bytes + at, 32 < sizeof v ? 32 : sizeof v), at += 32;
  if (size & 16) memcpy(out + at, bytes + at, 16 < sizeof v ? 16 : sizeof v), at += 16;
  if (size & 8) memcpy(out + at, bytes + at, 8), at += 8;
  if (size & 4) memcpy(out + at, bytes + at, 4), at += 4;
  if (size & 2) memcpy(out + at, bytes + at, 2);
}
INLINE void store(float* p, Floats v, Last last) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, last.mask, v);
#else
  store_pieces(p, v, last.n);
#endif
}
template <class T>
INLINE void store(T* p, Floats v, Last last) {
  const Narrow bits = narrow(v, p);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, last.mask, (__m256i)bits);
#else
  store_pieces(p, bits, last.n);
#endif
}

INLINE float load_one(const float* p) { return *p; }
template <class T>
INLINE float load_one(const T* p) {
  return widen(Narrow{p->bits}, p)[0];
}
INLINE void store_one(float* p, float x) { *p = x; }
template <class T>
INLINE void store_one(T* p, float x) {
  p->bits = narrow(Floats{x}, p)[0];
}

// Past the caches, for a gradient that is larger than they are: the line is not read first.
INLINE void stream(float* p, Floats v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, v);
#else
  store(p, v);
#endif
}
template <class T>
INLINE void stream(T* p, Floats v) {
#if defined(__AVX512F__)
  _mm256_stream_si256((__m256i*)p, (__m256i)narrow(v, p));
#elif defined(__AVX2__)
  _mm_stream_si128((__m128i*)p, (__m128i)narrow(v, p));
#else
  store(p, v);
#endif
}

}  // namespace
