// Vectors of floats, the few bits that weights and memories are stored in, widened to them and rounded from them.

#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int W = 16;  // floats in a vector
#else
constexpr int W = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * W)));
typedef uint32_t Words __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));
typedef int8_t Bytes __attribute__((vector_size(W)));

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

inline Floats widen(const int8_t* values) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(values)));
#elif defined(__AVX2__)
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)values)));
#else
  return __builtin_convertvector(__builtin_convertvector(load<Bytes>(values), Ints), Floats);
#endif
}

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

inline void put_one(float* to, float value) { *to = value; }

inline void put_one(uint16_t* to, float value) {
  uint32_t bits = load<uint32_t>(&value);
  *to = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

inline float total(Floats parts) {
  float sums[W];
  std::memcpy(sums, &parts, sizeof(parts));
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e^x to a relative 1e-7: a power of two, and the Taylor series of what is left, at most ln(2) / 2.
inline Floats exp(Floats x) {
  x = larger(smaller(x, Floats{} + 88), Floats{} - 87);
  Floats powers = x * 1.44269504f;
  Ints power = __builtin_convertvector(powers + (powers < 0 ? Floats{} - 0.5f : Floats{} + 0.5f), Ints);
  Floats whole = __builtin_convertvector(power, Floats);
  x = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // ln(2) in two parts, the first exact
  Floats sum = Floats{} + 1 / 5040.f;
  for (float factor : {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 0.5f, 1.f, 1.f}) sum = sum * x + factor;
  return sum * (Floats)((power + 127) << 23);
}

}  // namespace
