// Vectors of floats, the few bits that weights and memories are stored in, widened to them and rounded from them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define FULL_WIDTH  // of 512 bits
constexpr int W = 16;  // floats in a vector
#else
constexpr int W = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * W)));
typedef uint32_t Words __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));
typedef int16_t Shorts __attribute__((vector_size(4 * W)));  // 2 W of them

template <typename T>
inline T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

inline Floats widen(const float* values) { return load<Floats>(values); }

inline Floats widen(const uint16_t* values) {  // bfloat16 is the upper half of a float32
  return (Floats)(__builtin_convertvector(load<Halves>(values), Words) << 16);
}

inline Floats floats(Floats values) { return values; }
inline Floats floats(Ints values) { return __builtin_convertvector(values, Floats); }

inline float widen_one(float value) { return value; }

inline float widen_one(uint16_t value) {
  uint32_t bits = uint32_t(value) << 16;
  return load<float>(&bits);
}

inline void put(float* to, Floats values) { std::memcpy(to, &values, sizeof(values)); }

inline void put(uint16_t* to, Floats values) {  // to the nearest bfloat16, of two the even one
  Words bits = (Words)values;
  Halves halves = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

inline Ints nearest(Floats values) {
  return __builtin_convertvector(values + (values < 0 ? Floats{} - 0.5f : Floats{} + 0.5f), Ints);
}

inline void put(int16_t* to, Floats values) {  // to the nearest integer
  Halves halves = __builtin_convertvector(nearest(values), Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

inline void put_one(float* to, float value) { *to = value; }

inline void put_one(uint16_t* to, float value) {
  uint32_t bits = load<uint32_t>(&value);
  *to = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// The first `count` of them, zeros after.
inline Floats first(Floats values, int64_t count) {
  Ints lanes;
  for (int i = 0; i < W; i++) lanes[i] = i;
  return lanes < int32_t(std::min<int64_t>(count, W)) ? values : Floats{};
}

inline float total(Floats parts) {
  float sums[W];
  std::memcpy(sums, &parts, sizeof(parts));
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

// The totals of four vectors.
inline void totals(Floats a, Floats b, Floats c, Floats d, float* to) {
#ifdef __AVX2__
  const auto half = [](Floats x) {
#ifdef FULL_WIDTH
    return _mm256_add_ps(_mm512_castps512_ps256((__m512)x), _mm512_extractf32x8_ps((__m512)x, 1));
#else
    return (__m256)x;
#endif
  };
  __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
#else
  to[0] = total(a), to[1] = total(b), to[2] = total(c), to[3] = total(d);
#endif
}

// sums + the products of 2 W numbers each, those of two neighbours added.
inline Ints add_products(Ints sums, Shorts a, Shorts b) {
#if defined(FULL_WIDTH) && defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif defined(FULL_WIDTH)
  return sums + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sums + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  for (int i = 0; i < W; i++) sums[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return sums;
#endif
}

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e^x to a relative 1e-7: a power of two, and the Taylor series of what is left, at most ln(2) / 2.
inline Floats exp(Floats x) {
  x = larger(smaller(x, Floats{} + 88), Floats{} - 87);
  Ints power = nearest(x * 1.44269504f);
  Floats whole = __builtin_convertvector(power, Floats);
  x = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // ln(2) in two parts, the first exact
  Floats sum = Floats{} + 1 / 5040.f;
  for (float factor : {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 0.5f, 1.f, 1.f}) sum = sum * x + factor;
  return sum * (Floats)((power + 127) << 23);
}

}  // namespace
