// Pre-norm blocks one after the other, for the few tokens of a decoding step.
//
// One team of threads goes through all blocks and meets five times in each; between the meetings every thread reads its
// share of the weights. Legend: R rows, T new tokens of each, D width, H heads of d, F hidden, L positions of the cache.

#pragma once

#include <omp.h>

#include "attention.h"
#include "product.h"

namespace {

struct Norm {
  const float *weight, *bias;  // (D, filled up with zeros)
  float eps;
};

template <typename T, typename P>
struct Block {
  Norm norm1, norm2;
  Linear<T> qkv, out, fc1, fc2;
  P *keys, *values;  // (R, H, L, d)
};

// Layer norm of x (D, filled up with zeros to `stride`) to y of the same shape. The mean is taken in two steps and the
// variance around it, so that values far from zero lose nothing.
inline void normalise(const Norm& norm, const float* x, int64_t D, int64_t stride, float* y) {
  const auto mean = [&](auto of) {
    Floats sums = {};
    for (int64_t i = 0; i < stride; i += W) sums += first(of(i), D - i);
    return total(sums) / D;
  };
  const float rough = mean([&](int64_t i) { return load<Floats>(x + i); });
  const float rest = mean([&](int64_t i) { return load<Floats>(x + i) - rough; });
  const auto centred = [&](int64_t i) { return load<Floats>(x + i) - rough - rest; };
  const float variance = mean([&](int64_t i) { return centred(i) * centred(i); });
  const float scale = 1 / std::sqrt(variance + norm.eps);
  for (int64_t i = 0; i < stride; i += W)
    put(y + i, centred(i) * scale * load<Floats>(norm.weight + i) + load<Floats>(norm.bias + i));
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

// This thread's share of a layer's outputs, whole vectors of them, written or added to y (count, stride): the first, and
// the one after the last.
template <typename T>
std::pair<int64_t, int64_t> share(const Linear<T>& linear, const Inputs<T>& x, int64_t count, float* y, int64_t stride,
                                  bool add = false) {
  const int64_t all = up_to(linear.N, W) / W, team = omp_get_num_threads(), me = omp_get_thread_num();
  const int64_t begin = all * me / team * W, end = std::min(all * (me + 1) / team * W, linear.N);
  linear.run(x, count, begin / BLOCK, up_to(end, BLOCK) / BLOCK, y, stride, add);
  return {begin, end};
}

// The new tokens of a call, T in each row: the first stands at `position`, and row r begins at starts[r].
struct New {
  int64_t T, position;
  const int64_t* starts;
};

template <typename T, typename P>
struct Stack {
  std::vector<Block<T, P>> blocks;
  int64_t R, D, H, d, L, F;
  bool tanh;

  int64_t width() const { return up_to(D, UNIT); }

  // What all threads write to and read from, in rows that are filled up with zeros.
  struct Shared {
    std::vector<float> stream, qkv, mixed, hidden;

    Shared(const Stack& s, int64_t count)
        : stream(count * s.width()),
          qkv(count * 3 * s.H * s.d),
          mixed(count * up_to(s.H * s.d, UNIT)),
          hidden(count * up_to(s.F, UNIT)) {}
  };

  // `all.stream` (R, T, width) becomes what the last block gives. Each thread of a team calls it.
  void run(const New& tokens, Shared& all) const {
    const int64_t count = R * tokens.T, inner = up_to(H * d, UNIT), filled = up_to(F, UNIT);
    std::vector<float> normed(count * width());
    Inputs<T> inputs;
    Attention attention;
    const auto norm = [&](const Norm& norm) {
      for (int64_t n = 0; n < count; n++)
        normalise(norm, &all.stream[n * width()], D, width(), &normed[n * width()]);
      inputs.take(normed.data(), count, width());
    };
    for (const auto& block : blocks) {
      norm(block.norm1);
      share(block.qkv, inputs, count, all.qkv.data(), 3 * H * d);
#pragma omp barrier
      attend(block, tokens, all, inner, attention);
#pragma omp barrier
      inputs.take(all.mixed.data(), count, inner);
      share(block.out, inputs, count, all.stream.data(), width(), true);
#pragma omp barrier
      norm(block.norm2);
      const auto [begin, end] = share(block.fc1, inputs, count, all.hidden.data(), filled);
      for (int64_t n = 0; n < count; n++)
        for (int64_t i = n * filled + begin; i < n * filled + end; i += W)  // zeros stay zeros
          put(&all.hidden[i], gelu(load<Floats>(&all.hidden[i]), tanh));
#pragma omp barrier
      inputs.take(all.hidden.data(), count, filled);
      share(block.fc2, inputs, count, all.stream.data(), width(), true);
#pragma omp barrier
    }
  }

 private:
  // Caches the new keys and values, and attends from each new token; each thread has its own rows and heads.
  void attend(const Block<T, P>& block, const New& tokens, Shared& all, int64_t inner, Attention& attention) const {
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    for (int64_t rh = R * H * me / team; rh < R * H * (me + 1) / team; rh++) {
      const int64_t r = rh / H, h = rh % H;
      P *keys = block.keys + rh * L * d, *values = block.values + rh * L * d;
      for (int64_t t = 0; t < tokens.T; t++)
        for (int64_t i = 0; i < d; i++) {
          const float* from = &all.qkv[(r * tokens.T + t) * 3 * H * d + h * d + i];
          put_one(keys + (tokens.position + t) * d + i, from[H * d]);
          put_one(values + (tokens.position + t) * d + i, from[2 * H * d]);
        }
      const int64_t start = tokens.starts[r];
      for (int64_t t = 0; t < tokens.T; t++) {
        const int64_t n = r * tokens.T + t, count = std::max<int64_t>(tokens.position + t - start + 1, 0);
        attention.one(&all.qkv[n * 3 * H * d + h * d], keys, values, d, count, [start](int64_t n) { return start + n; },
                      &all.mixed[n * inner + h * d]);
      }
    }
  }
};

}  // namespace
