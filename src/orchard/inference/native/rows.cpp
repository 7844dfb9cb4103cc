// y = x Wᵀ + b for the few rows of a decoding step, where the time is the reading of W.
//
// Every weight is read once and used for all rows. Sums run in float32, each row's in the same order whatever the
// number of rows, so that a row's result does not depend on its company.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
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

// The products of N rows of W with R rows of x, K long each: every vector that is loaded is used N or R times.
template <int N, int R, typename T>
inline void dot(const T* w, const float* x, int64_t K, float (*sums)[R]) {
  Floats parts[N][R] = {};
  int64_t k = 0;
  for (; k + W <= K; k += W) {
    Floats inputs[R];
    for (int r = 0; r < R; r++) inputs[r] = load<Floats>(x + r * K + k);
    for (int n = 0; n < N; n++) {
      __builtin_prefetch(w + (N + n) * K + k, 0, 2);  // the next rows: the machine does not foresee so many streams
      Floats weights = widen(w + n * K + k);
      for (int r = 0; r < R; r++) parts[n][r] += weights * inputs[r];
    }
  }
  for (int n = 0; n < N; n++)
    for (int r = 0; r < R; r++) {
      float sum = 0;
      for (int i = 0; i < W; i++) sum += parts[n][r][i];
      for (int64_t rest = k; rest < K; rest++) sum += widen_one(w[n * K + rest]) * x[r * K + rest];
      sums[n][r] = sum;
    }
}

template <typename T>
struct Product {
  const T* w;          // (N, K)
  const float* x;      // (R, K)
  const float* scale;  // (N), or null
  const float* bias;   // (N), or null
  at::BFloat16* y;     // (R, N)
  int64_t R, N, K;

  template <int Ns, int Rs>
  void block(int64_t n, int64_t r) const {
    float sums[Ns][Rs];
    dot<Ns, Rs>(w + n * K, x + r * K, K, sums);
    for (int i = 0; i < Ns; i++)
      for (int j = 0; j < Rs; j++)
        y[(r + j) * N + n + i] = sums[i][j] * (scale ? scale[n + i] : 1.0f) + (bias ? bias[n + i] : 0.0f);
  }

  template <int Ns>
  void across(int64_t n) const {
    int64_t r = 0;
    for (; r + 4 <= R; r += 4) block<Ns, 4>(n, r);
    switch (R - r) {
      case 3: block<Ns, 3>(n, r); break;
      case 2: block<Ns, 2>(n, r); break;
      case 1: block<Ns, 1>(n, r); break;
    }
  }

  void run() const {
    at::parallel_for(0, (N + 3) / 4, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = 4 * begin; n < std::min(4 * end, N); n += 4) {
        if (n + 4 <= N) {
          across<4>(n);
        } else {
          for (int64_t rest = n; rest < N; rest++) across<1>(rest);
        }
      }
    });
  }
};

// x (R, K) bfloat16; w (N, K) bfloat16, or int8 with scale (N) float32; bias (N) float32 or none; y (R, N) bfloat16.
at::Tensor rows(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& scale,
                const std::optional<at::Tensor>& bias) {
  TORCH_CHECK(x.dim() == 2 && w.dim() == 2 && x.size(1) == w.size(1), "rows: x (R, K) and w (N, K) expected");
  TORCH_CHECK(w.is_contiguous() && x.scalar_type() == at::kBFloat16, "rows: contiguous w and bfloat16 x expected");
  at::Tensor floats = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({x.size(0), w.size(0)}, x.options());
  const float* s = scale ? scale->const_data_ptr<float>() : nullptr;
  const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
  const float* in = floats.const_data_ptr<float>();
  at::BFloat16* out = y.mutable_data_ptr<at::BFloat16>();
  if (w.scalar_type() == at::kChar) {
    Product<int8_t>{w.const_data_ptr<int8_t>(), in, s, b, out, x.size(0), w.size(0), x.size(1)}.run();
  } else {
    TORCH_CHECK(w.scalar_type() == at::kBFloat16, "rows: w is bfloat16 or int8");
    auto* weights = reinterpret_cast<const uint16_t*>(w.const_data_ptr<at::BFloat16>());
    Product<uint16_t>{weights, in, s, b, out, x.size(0), w.size(0), x.size(1)}.run();
  }
  return y;
}

}  // namespace

TORCH_LIBRARY(orchard, library) { library.def("rows(Tensor x, Tensor w, Tensor? scale, Tensor? bias) -> Tensor"); }
TORCH_LIBRARY_IMPL(orchard, CPU, library) { library.impl("rows", rows); }
