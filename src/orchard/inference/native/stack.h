// Pre-norm blocks one after the other, for the few tokens of a decoding step, in one call.
//
// One team of threads goes through all blocks and meets five times in each; between the meetings every thread reads its
// share of the weights. Legend: R rows, T new tokens of each, D width, H heads of d, F hidden, L places remembered.

#pragma once

#include <ATen/Parallel.h>
#include <omp.h>

#include "attention.h"
#include "product.h"
#include "tensors.h"

namespace {

constexpr int64_t WORTH_A_TEAM = 1 << 20;  // products of a block, below which one thread is as soon done alone

struct Norm {
  const float *weight, *bias;  // (D, filled up with zeros)
};

template <typename T, typename X, typename P>
struct Block {
  Norm norm1, norm2;
  Map<T, X> qkv, out, fc1, fc2;
  P *keys, *values;  // (R, H, L, d)
};

// x (count, D, in rows of `stride` floats, zeros after D) normed, to y of the same shape.
template <typename X>
void normalise(const Norm& norm, const float* x, int64_t count, int64_t D, int64_t stride, float eps, X* y) {
  for (int64_t n = 0; n < count; n++, x += stride, y += stride) {
    Floats sums = {}, squares = {};
    for (int64_t i = 0; i < stride; i += W) sums += load<Floats>(x + i);
    const float mean = total(sums) / D;
    for (int64_t i = 0; i < stride; i += W) {
      Floats off = load<Floats>(x + i) - mean;
      squares += off * off;
    }
    const float variance = (total(squares) - (stride - D) * mean * mean) / D;  // less what the zeros added
    const float scale = 1 / std::sqrt(variance + eps);
    for (int64_t i = 0; i < stride; i += W)
      put(y + i, (load<Floats>(x + i) - mean) * scale * load<Floats>(norm.weight + i) + load<Floats>(norm.bias + i));
  }
}

// GELU: x Φ(x), the error function by Abramowitz and Stegun's 7.1.26 (to 1.5e-7), or with tanh in its place.
inline Floats gelu(Floats x, bool tanh) {
  if (tanh) {
    Floats u = 0.79788456f * (x + 0.044715f * x * x * x);
    return x - x / (exp(2 * u) + 1);
  }
  Floats z = larger(x, -x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z), sum = Floats{} + 1.061405429f;
  for (float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) sum = sum * t + factor;
  Floats tail = 0.5f * sum * t * exp(-z * z);  // 1 - Φ(|x|)
  return x * (x > 0 ? 1 - tail : tail);
}

template <typename T, typename X, typename P>
struct Stack {
  std::vector<Block<T, X, P>> blocks;
  at::Tensor mask, places;  // bool (R, 1, T, L); int64 (T)
  int64_t R, D, H, d, L, F;
  float eps;
  bool tanh;

  int64_t new_tokens() const { return places.size(0); }

  // x (R, T, D) float32 becomes what the last block gives.
  void run(float* x) const {
    const int64_t count = R * new_tokens(), width = up_to(D, UNIT), inner = up_to(H * d, UNIT), hidden = up_to(F, UNIT);
    std::vector<float> stream(count * width), qkv(count * 3 * H * d), before(count * hidden);
    std::vector<X> mixed(count * inner), after(count * hidden);
    for (int64_t n = 0; n < count; n++) std::copy_n(x + n * D, D, &stream[n * width]);
    const bool small = count * (4 * D * H * d + 2 * D * F) < WORTH_A_TEAM;
#pragma omp parallel num_threads(small ? 1 : at::get_num_threads())
    {
      std::vector<X> normed(count * width);
      Attention attention;
      const auto add = [&](int64_t n, int64_t i, float y) { stream[n * width + i] += y; };
      for (const auto& block : blocks) {
        normalise(block.norm1, stream.data(), count, D, width, eps, normed.data());
        multiply(block.qkv, normed, count, [&](int64_t n, int64_t i, float y) { qkv[n * 3 * H * d + i] = y; });
#pragma omp barrier
        attend(block, qkv.data(), inner, attention, mixed.data());
#pragma omp barrier
        multiply(block.out, mixed, count, add);
#pragma omp barrier
        normalise(block.norm2, stream.data(), count, D, width, eps, normed.data());
        multiply(block.fc1, normed, count, [&](int64_t n, int64_t i, float y) { before[n * hidden + i] = y; });
        const auto [begin, end] = share(block.fc1);
        for (int64_t n = 0; n < count; n++)
          for (int64_t i = n * hidden + begin; i < n * hidden + std::min(up_to(end, W), hidden); i += W)
            put(&after[i], gelu(load<Floats>(&before[i]), tanh));
#pragma omp barrier
        multiply(block.fc2, after, count, add);
#pragma omp barrier
      }
    }
    for (int64_t n = 0; n < count; n++) std::copy_n(&stream[n * width], D, x + n * D);
  }

  // The outputs that are this thread's, whole vectors of them.
  static std::pair<int64_t, int64_t> share(const Map<T, X>& map) {
    const int64_t all = up_to(map.N, W) / W, team = omp_get_num_threads(), me = omp_get_thread_num();
    return {all * me / team * W, std::min(all * (me + 1) / team * W, map.N)};
  }

  template <typename Keep>
  static void multiply(const Map<T, X>& map, const std::vector<X>& x, int64_t count, Keep keep) {
    const auto [begin, end] = share(map);
    map.run(x.data(), count, begin / BLOCK, up_to(end, BLOCK) / BLOCK, keep);
  }

  // Remembers the new keys and values, and gives what each new token sees; each thread has its own rows and heads.
  void attend(const Block<T, X, P>& block, const float* qkv, int64_t inner, Attention& attention, X* mixed) const {
    const int64_t T_ = new_tokens(), team = omp_get_num_threads(), *at = places.const_data_ptr<int64_t>();
    std::vector<float> found(d);
    for (int64_t rh = R * H * omp_get_thread_num() / team; rh < R * H * (omp_get_thread_num() + 1) / team; rh++) {
      const int64_t r = rh / H, h = rh % H;
      for (int64_t t = 0; t < T_; t++)
        for (int64_t i = 0; i < d; i++) {
          const float* from = qkv + (r * T_ + t) * 3 * H * d + h * d + i;
          put_one(block.keys + (rh * L + at[t]) * d + i, from[H * d]);
          put_one(block.values + (rh * L + at[t]) * d + i, from[2 * H * d]);
        }
      for (int64_t t = 0; t < T_; t++) {
        const int64_t n = r * T_ + t;
        see(mask, r, 0, t, attention.places);
        attention.one(qkv + n * 3 * H * d + h * d, block.keys + rh * L * d, block.values + rh * L * d, d, found.data());
        for (int64_t i = 0; i < d; i++) put_one(mixed + n * inner + h * d + i, found[i]);
      }
    }
  }
};

}  // namespace
