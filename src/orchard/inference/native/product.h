// y = x Wᵀ scale + bias for the few rows of a decoding step, where the time is the reading of W.
//
// W lies in the order in which it is read (`pack`): blocks of 4 outputs, in a block 32 inputs of each output after the
// other, so that a thread reads one stream, as fast as the memory gives it. Sums run in float32, each row's in the same order
// whatever the number of rows, so that a row's result does not depend on its company.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

constexpr int BLOCK = 4;              // outputs
constexpr int UNIT = 32;              // inputs
constexpr int AHEAD = 6144;           // weights, asked of the memory before they are needed
constexpr int ROWS = W == 16 ? 4 : 2;  // side by side: as many as there are registers for their sums
constexpr int IN_CACHE = 32;          // rows of x that stay near while all blocks meet them

constexpr int64_t up_to(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// The products of a block with R rows of x, K long each: every vector that is loaded is used BLOCK or R times.
template <int R, typename T>
inline void dot(const T* w, const float* x, int64_t K, Floats (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK * UNIT; n += 64 / int(sizeof(T))) __builtin_prefetch(w + AHEAD + n, 0, 2);
    for (int part = 0; part < UNIT; part += W) {
      Floats inputs[R];
      for (int r = 0; r < R; r++) inputs[r] = widen(x + r * K + k + part);
      for (int n = 0; n < BLOCK; n++) {
        Floats weights = widen(w + n * UNIT + part);
        for (int r = 0; r < R; r++) parts[n][r] += weights * inputs[r];
      }
    }
  }
}

#ifdef __AVX512BF16__
using Inputs = uint16_t;  // what bfloat16 weights are multiplied with

// The same where the processor multiplies bfloat16 itself, so that nothing has to be widened.
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
using Inputs = float;

// The same where it does not: two weights that lie side by side in a word are a whole vector apart, so that a shift and
// a mask widen two vectors.
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

constexpr int place_of(int k, float) { return k; }  // of input k within its unit
constexpr int place_of(int k, int8_t) { return k; }

template <typename T, typename X>
struct Map {
  const T* w;          // (N / BLOCK rounded up, K / UNIT, BLOCK, UNIT), filled up with zeros
  const float* scale;  // (N), or null
  const float* bias;   // (N), or null
  int64_t N, K;        // K a multiple of UNIT

  int64_t blocks() const { return up_to(N, BLOCK) / BLOCK; }

  template <int Rs, typename Keep>
  void part(const X* x, int64_t n, int64_t r, Keep keep) const {
    Floats parts[BLOCK][Rs] = {};
    dot<Rs>(w + n * K, x + r * K, K, parts);
    for (int64_t i = n; i < std::min(n + BLOCK, N); i++)
      for (int j = 0; j < Rs; j++)
        keep(r + j, i, total(parts[i - n][j]) * (scale ? scale[i] : 1.0f) + (bias ? bias[i] : 0.0f));
  }

  // Gives keep(row, output, y) for R rows of x (R, K) and the outputs of the blocks from `begin` to `end`.
  template <typename Keep>
  void run(const X* x, int64_t R, int64_t begin, int64_t end, Keep keep) const {
    for (int64_t first = 0; first < R; first += IN_CACHE)
      for (int64_t n = BLOCK * begin; n < BLOCK * end; n += BLOCK) {
        int64_t r = first, last = std::min(first + IN_CACHE, R);
        for (; r + ROWS <= last; r += ROWS) part<ROWS>(x, n, r, keep);
        for (; r + 2 <= last; r += 2) part<2>(x, n, r, keep);
        if (r < last) part<1>(x, n, r, keep);
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
