// y = x Wᵀ + b for the few rows of a decoding step, where the time is the reading of W.
//
// W lies in the order in which it is read: blocks of 4 outputs, in a block 32 inputs of each output after the other, so
// that a thread reads one stream, as fast as the memory gives it. Sums run in float32, each row's in the same order
// whatever the number of rows, so that a row's result does not depend on its company.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int BLOCK = 4;     // outputs
constexpr int UNIT = 32;     // inputs
constexpr int AHEAD = 6144;  // weights, asked of the memory before they are needed

// The products of a block with R rows of x, K long each: every vector that is loaded is used BLOCK or R times.
template <int R, typename T>
inline void dot(const T* w, const float* x, int64_t K, Floats (*parts)[R]) {
  for (int64_t k = 0; k < K; k += UNIT, w += BLOCK * UNIT) {
    for (int n = 0; n < BLOCK * UNIT; n += 64 / int(sizeof(T))) __builtin_prefetch(w + AHEAD + n, 0, 2);
    for (int half = 0; half < UNIT; half += W) {
      Floats inputs[R];
      for (int r = 0; r < R; r++) inputs[r] = load<Floats>(x + r * K + k + half);
      for (int n = 0; n < BLOCK; n++) {
        Floats weights = widen(w + n * UNIT + half);
        for (int r = 0; r < R; r++) parts[n][r] += weights * inputs[r];
      }
    }
  }
}

#ifdef __AVX512BF16__
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
using Inputs = uint16_t;  // what bfloat16 weights are multiplied with
#else
using Inputs = float;
#endif

template <typename T, typename X>
struct Product {
  const T* w;          // (N / BLOCK rounded up, K / UNIT, BLOCK, UNIT)
  const X* x;          // (R, K), K a multiple of UNIT
  const float* scale;  // (N), or null
  const float* bias;   // (N), or null
  at::BFloat16* y;     // (R, N)
  int64_t R, N, K;

  template <int Rs>
  void part(int64_t n, int64_t r) const {
    Floats parts[BLOCK][Rs] = {};
    dot<Rs>(w + n * K, x + r * K, K, parts);
    for (int64_t i = n; i < std::min(n + BLOCK, N); i++)
      for (int j = 0; j < Rs; j++)
        y[(r + j) * N + i] = total(parts[i - n][j]) * (scale ? scale[i] : 1.0f) + (bias ? bias[i] : 0.0f);
  }

  void run() const {
    at::parallel_for(0, (N + BLOCK - 1) / BLOCK, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = BLOCK * begin; n < BLOCK * end; n += BLOCK) {
        int64_t r = 0;
        for (; r + 4 <= R; r += 4) part<4>(n, r);
        switch (R - r) {
          case 3: part<3>(n, r); break;
          case 2: part<2>(n, r); break;
          case 1: part<1>(n, r); break;
        }
      }
    });
  }
};

// The rows of x (R, given), filled up with zeros to a length of K, as floats or as the bits of bfloat16.
template <typename X>
std::vector<X> filled(const at::Tensor& x, int64_t K) {
  std::vector<X> rows(x.size(0) * K);
  const auto* from = x.const_data_ptr<at::BFloat16>();
  for (int64_t r = 0; r < x.size(0); r++)
    for (int64_t k = 0; k < x.size(1); k++) {
      const at::BFloat16 value = from[r * x.size(1) + k];
      if constexpr (std::is_same_v<X, float>)
        rows[r * K + k] = value;
      else
        rows[r * K + k] = value.x;
    }
  return rows;
}

// x (R, K) bfloat16; w bfloat16 or int8, packed as above, filled up with zeros; scale (N) float32 or none; bias (N)
// float32 or none; y (R, N) bfloat16.
at::Tensor rows(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& scale,
                const std::optional<at::Tensor>& bias, int64_t N) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.scalar_type() == at::kBFloat16, "rows: x (R, K) in bfloat16");
  TORCH_CHECK(w.dim() == 4 && w.is_contiguous() && w.size(2) == BLOCK && w.size(3) == UNIT, "rows: w is not packed");
  int64_t R = x.size(0), given = x.size(1), K = w.size(1) * UNIT;
  TORCH_CHECK(given <= K && given > K - UNIT && w.size(0) == (N + BLOCK - 1) / BLOCK, "rows: x, w and N do not fit");
  at::Tensor y = at::empty({R, N}, x.options());
  const float* s = scale ? scale->const_data_ptr<float>() : nullptr;
  const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
  auto* out = y.mutable_data_ptr<at::BFloat16>();
  if (w.scalar_type() == at::kChar) {
    auto inputs = filled<float>(x, K);
    Product<int8_t, float>{w.const_data_ptr<int8_t>(), inputs.data(), s, b, out, R, N, K}.run();
  } else {
    TORCH_CHECK(w.scalar_type() == at::kBFloat16, "rows: w is bfloat16 or int8");
    auto inputs = filled<Inputs>(x, K);
    auto* weights = reinterpret_cast<const uint16_t*>(w.const_data_ptr<at::BFloat16>());
    Product<uint16_t, Inputs>{weights, inputs.data(), s, b, out, R, N, K}.run();
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(orchard, library) {
  library.def("rows(Tensor x, Tensor w, Tensor? scale, Tensor? bias, int outputs) -> Tensor");
}
TORCH_LIBRARY_IMPL(orchard, CPU, library) { library.impl("rows", rows); }
