// Vectors of floats, and the few bits that weights and memories are stored in, widened to them.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int W = 16;  // floats in a vector
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

inline Floats widen(const uint16_t* weights) {  // bfloat16 is the upper half of a float32
  return (Floats)(__builtin_convertvector(load<Halves>(weights), Words) << 16);
}

inline Floats widen(const int8_t* weights) {
#ifdef __AVX512F__
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(weights)));
#endif
  return __builtin_convertvector(__builtin_convertvector(load<Bytes>(weights), Ints), Floats);
}

inline float widen_one(uint16_t weight) {
  uint32_t bits = uint32_t(weight) << 16;
  return load<float>(&bits);
}

inline float widen_one(int8_t weight) { return weight; }

inline float total(Floats parts) {
  float sum = 0;
  for (int i = 0; i < W; i++) sum += parts[i];
  return sum;
}

}  // namespace
