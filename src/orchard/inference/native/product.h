// y = x Wᵀ scale + bias for the few rows of a decoding step, where the time is the reading of W.
//
// W is stored in the order in which it is read (`pack`): blocks of 4 outputs, in a block 32 inputs of each output after
// the other, so that a thread reads one stream, as fast as the memory gives it. Each row's sums run in the same order
// whatever the number of rows, so that a row's result does not depend on its company. Weights in float32 and bfloat16 are
// summed in float32; those in int8 meet inputs rounded to 16 bits, and the sums are exact.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int BLOCK = 4;              // outputs
constexpr int UNIT = 32;              // inputs
constexpr int AHEAD = 6144;           // weights, prefetched
constexpr int ROWS = W == 16 ? 4 : 2;  // side by side: as many as there are registers for their sums
constexpr int IN_CACHE = 32;          // rows of x that stay near while all blocks meet them

constexpr int64_t up_to(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

#ifdef __AVX512BF16__
using InputOfBf16 = uint16_t;  // the processor multiplies bfloat16 itself
#else
using InputOfBf16 = float;
#endif

template <typename T>
using InputOf = std::conditional_t<std::is_same_v<T, int8_t>, int16_t,
                                   std::conditional_t<std::is_same_v<T, uint16_t>, InputOfBf16, float>>;
template <typename T>
using SumsOf = std::conditional_t<std::is_same_v<T, int8_t>, Ints, Floats>;

// Rows of inputs (count, K) as weights of type T are multiplied with them.
template <typename T>
struct Inputs {
  std::vector<InputOf<T>> values;
  std::vector<float> scales;  // of each row, for int8: x = value * scale

  // x float32, K a multiple of UNIT.
  void take(const float* x, int64_t count, int64_t K) {
    values.resize(count * K);
    scales.resize(count, 1.0f);
    for (int64_t n = 0; n < count; n++) {
      float steps = 1;  // of one
      if constexpr (std::is_same_v<T, int8_t>) {
        Floats most = {}, bad = {};
        for (int64_t i = n * K; i < (n + 1) * K; i += W) {
          Floats values = load<Floats>(x + i);
          most = larger(most, larger(values, -values));
          bad += values * 0;
        }
        float largest = 0;
        for (int i = 0; i < W; i++) largest = std::max(largest, most[i]);
        const float finest = std::min<int64_t>(INT16_MAX, INT32_MAX / (127 * (K / W)));  // that the sums have room for
        steps = largest > 0 ? finest / largest : 0;
        scales[n] = largest / finest + total(bad);  // NaN where an input is no number
      }
      for (int64_t i = n * K; i < (n + 1) * K; i += W) put(&values[i], load<Floats>(x + i) * steps);
    }
  }
};

// The products of a block with R rows of x, K long each: every vector that is loaded is used BLOCK or R times.
template <int R>
inline void dot(const float* w, const float* x, int64_t K, Floats (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK * UNIT; n += 16) __builtin_prefetch(w + AHEAD + n, 0, 2);
    for (int part = 0; part < UNIT; part += W) {
      Floats inputs[R];
      for (int r = 0; r < R; r++) inputs[r] = load<Floats>(x + r * K + k + part);
      for (int n = 0; n < BLOCK; n++) {
        Floats weights = load<Floats>(w + n * UNIT + part);
        for (int r = 0; r < R; r++) parts[n][r] += weights * inputs[r];
      }
    }
  }
}

constexpr int place_of(int k, float) { return k; }  // of input k within its unit

#ifdef __AVX512BF16__
template <int R>
inline void dot(const uint16_t* w, const uint16_t* x, int64_t K, Floats (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    __m512bh inputs[R];
    for (int r = 0; r < R; r++) inputs[r] = load<__m512bh>(x + r * K + k);
    for (int n = 0; n < BLOCK; n++) {
      __builtin_prefetch(w + AHEAD + n * UNIT, 0, 2);
      auto weights = load<__m512bh>(w + n * UNIT);
      for (int r = 0; r < R; r++) parts[n][r] = (Floats)_mm512_dpbf16_ps((__m512)parts[n][r], weights, inputs[r]);
    }
  }
}

constexpr int place_of(int k, uint16_t) { return k; }
#else
// Two weights that lie side by side in a word are a whole vector apart, so that a shift and a mask widen two vectors.
template <int R>
inline void dot(const uint16_t* w, const float* x, int64_t K, Floats (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK; n++) __builtin_prefetch(w + AHEAD + n * UNIT, 0, 2);
    for (int part = 0; part < UNIT; part += 2 * W) {
      Floats lower[R], upper[R];
      for (int r = 0; r < R; r++) lower[r] = load<Floats>(x + r * K + k + part);
      for (int r = 0; r < R; r++) upper[r] = load<Floats>(x + r * K + k + part + W);
      for (int n = 0; n < BLOCK; n++) {
        Words pairs = load<Words>(w + n * UNIT + part);
        for (int r = 0; r < R; r++) parts[n][r] += (Floats)(pairs << 16) * lower[r];
        for (int r = 0; r < R; r++) parts[n][r] += (Floats)(pairs & 0xffff0000) * upper[r];
      }
    }
  }
}

constexpr int place_of(int k, uint16_t) { return k / (2 * W) * 2 * W + k % W * 2 + k / W % 2; }
#endif

#ifdef FULL_WIDTH
template <int R>
inline void dot(const int8_t* w, const int16_t* x, int64_t K, Ints (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK * UNIT; n += 64) __builtin_prefetch(w + AHEAD + n, 0, 2);
    Shorts inputs[R];
    for (int r = 0; r < R; r++) inputs[r] = load<Shorts>(x + r * K + k);
    for (int n = 0; n < BLOCK; n++) {
      auto weights = (Shorts)_mm512_cvtepi8_epi16(load<__m256i>(w + n * UNIT));
      for (int r = 0; r < R; r++) parts[n][r] = add_products(parts[n][r], weights, inputs[r]);
    }
  }
}

constexpr int place_of(int k, int8_t) { return k; }
#else
// As above: two weights in 16 bits, which shifts widen.
template <int R>
inline void dot(const int8_t* w, const int16_t* x, int64_t K, Ints (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK * UNIT; n += 64) __builtin_prefetch(w + AHEAD + n, 0, 2);
    Shorts lower[R], upper[R];
    for (int r = 0; r < R; r++) lower[r] = load<Shorts>(x + r * K + k);
    for (int r = 0; r < R; r++) upper[r] = load<Shorts>(x + r * K + k + 2 * W);
    for (int n = 0; n < BLOCK; n++) {
      Shorts pairs = load<Shorts>(w + n * UNIT);
      for (int r = 0; r < R; r++) parts[n][r] = add_products(parts[n][r], pairs << 8 >> 8, lower[r]);
      for (int r = 0; r < R; r++) parts[n][r] = add_products(parts[n][r], pairs >> 8, upper[r]);
    }
  }
}

constexpr int place_of(int k, int8_t) { return k % (2 * W) * 2 + k / (2 * W); }
#endif

template <typename T>
struct Linear {
  const T* w;          // (N / BLOCK rounded up, K / UNIT, BLOCK, UNIT), filled up with zeros
  const float* scale;  // (N), or null
  const float* bias;   // (N), or null
  int64_t N, K;        // K a multiple of UNIT

  int64_t blocks() const { return up_to(N, BLOCK) / BLOCK; }

  // The outputs of the blocks from `begin` to `end` for R rows of inputs, to y (R, stride), or added to what is there.
  void run(const Inputs<T>& x, int64_t R, int64_t begin, int64_t end, float* y, int64_t stride, bool add) const {
    for (int64_t first = 0; first < R; first += IN_CACHE)
      for (int64_t n = BLOCK * begin; n < BLOCK * end; n += BLOCK) {
        int64_t r = first, last = std::min(first + IN_CACHE, R);
        for (; r + ROWS <= last; r += ROWS) part<ROWS>(x, n, r, y, stride, add);
        for (; r + 2 <= last; r += 2) part<2>(x, n, r, y, stride, add);
        if (r < last) part<1>(x, n, r, y, stride, add);
      }
  }

 private:
  template <int Rs>
  void part(const Inputs<T>& x, int64_t n, int64_t first, float* y, int64_t stride, bool add) const {
    SumsOf<T> parts[BLOCK][Rs] = {};
    dot<Rs>(w + n * K, &x.values[first * K], K, parts);
    for (int r = 0; r < Rs; r++) {
      float sums[BLOCK], *to = y + (first + r) * stride;
      totals(floats(parts[0][r]), floats(parts[1][r]), floats(parts[2][r]), floats(parts[3][r]), sums);
      for (int64_t i = n; i < std::min(n + BLOCK, N); i++) {
        const float product = sums[i - n] * (scale ? scale[i] * x.scales[first + r] : 1.0f) + (bias ? bias[i] : 0.0f);
        to[i] = add ? to[i] + product : product;
      }
    }
  }
};

// A matrix (N, K) in the order in which it is read, to `to`, which is all zeros.
template <typename T>
void pack(const T* from, int64_t N, int64_t K, T* to) {
  const int64_t filled = up_to(K, UNIT);
  for (int64_t n = 0; n < N; n++)
    for (int64_t k = 0; k < K; k++) {
      const int64_t unit = n / BLOCK * BLOCK * filled + (k / UNIT * BLOCK + n % BLOCK) * UNIT;
      to[unit + place_of(k % UNIT, T())] = from[n * K + k];
    }
}

}  // namespace
