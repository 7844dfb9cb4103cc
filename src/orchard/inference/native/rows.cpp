// y = x Wᵀ + b for the few rows of a decoding step, where the time is the reading of W.
//
// W lies in the order in which it is read: blocks of 4 outputs, in a block 16 inputs of each output after the other, so
// that a thread reads one stream, as fast as the memory gives it. Sums run in float32, each row's in the same order
// whatever the number of rows, so that a row's result does not depend on its company.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int BLOCK = 4;     // outputs
constexpr int AHEAD = 6144;  // weights, asked of the memory before they are needed

// The products of a block with R rows of x, K long each: every vector that is loaded is used BLOCK or R times.
template <int R, typename T>
inline void dot(const T* w, const float* x, int64_t K, float (*sums)[R]) {
  Floats parts[BLOCK][R] = {};
  for (int64_t k = 0; k < K; k += W, w += BLOCK * W) {
    for (int n = 0; n < BLOCK; n += 64 / int(W * sizeof(T))) __builtin_prefetch(w + AHEAD + n * W, 0, 2);
    Floats inputs[R];
    for (int r = 0; r < R; r++) inputs[r] = load<Floats>(x + r * K + k);
    for (int n = 0; n < BLOCK; n++) {
      Floats weights = widen(w + n * W);
      for (int r = 0; r < R; r++) parts[n][r] += weights * inputs[r];
    }
  }
  for (int n = 0; n < BLOCK; n++)
    for (int r = 0; r < R; r++) sums[n][r] = total(parts[n][r]);
}

template <typename T>
struct Product {
  const T* w;          // (N / BLOCK rounded up, K / W, BLOCK, W)
  const float* x;      // (R, K), K a multiple of W
  const float* scale;  // (N), or null
  const float* bias;   // (N), or null
  at::BFloat16* y;     // (R, N)
  int64_t R, N, K;

  template <int Rs>
  void part(int64_t n, int64_t r) const {
    float sums[BLOCK][Rs];
    dot<Rs>(w + n * K, x + r * K, K, sums);
    for (int64_t i = n; i < std::min(n + BLOCK, N); i++)
      for (int j = 0; j < Rs; j++)
        y[(r + j) * N + i] = sums[i - n][j] * (scale ? scale[i] : 1.0f) + (bias ? bias[i] : 0.0f);
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

// x (R, K) bfloat16; w bfloat16 or int8, packed as above, filled up with zeros; scale (N) float32 or none; bias (N)
// float32 or none; y (R, N) bfloat16.
at::Tensor rows(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& scale,
                const std::optional<at::Tensor>& bias, int64_t N) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.scalar_type() == at::kBFloat16, "rows: x (R, K) in bfloat16");
  TORCH_CHECK(w.dim() == 4 && w.is_contiguous() && w.size(2) == BLOCK && w.size(3) == W, "rows: w is not packed");
  int64_t R = x.size(0), given = x.size(1), K = w.size(1) * W;
  TORCH_CHECK(given <= K && given > K - W && w.size(0) == (N + BLOCK - 1) / BLOCK, "rows: x, w and N do not fit");
  std::vector<float> floats(R * K);
  const auto* halves = x.const_data_ptr<at::BFloat16>();
  for (int64_t r = 0; r < R; r++) std::copy(halves + r * given, halves + (r + 1) * given, floats.begin() + r * K);
  at::Tensor y = at::empty({R, N}, x.options());
  const float* s = scale ? scale->const_data_ptr<float>() : nullptr;
  const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
  auto* out = y.mutable_data_ptr<at::BFloat16>();
  if (w.scalar_type() == at::kChar) {
    Product<int8_t>{w.const_data_ptr<int8_t>(), floats.data(), s, b, out, R, N, K}.run();
  } else {
    TORCH_CHECK(w.scalar_type() == at::kBFloat16, "rows: w is bfloat16 or int8");
    auto* weights = reinterpret_cast<const uint16_t*>(w.const_data_ptr<at::BFloat16>());
    Product<uint16_t>{weights, floats.data(), s, b, out, R, N, K}.run();
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(orchard, library) {
  library.def("rows(Tensor x, Tensor w, Tensor? scale, Tensor? bias, int outputs) -> Tensor");
}
TORCH_LIBRARY_IMPL(orchard, CPU, library) { library.impl("rows", rows); }
