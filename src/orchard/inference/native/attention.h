// One query attends to cached keys and values: softmax(q kᵀ / √d) v over the positions it may see; others are not read.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "product.h"
#include "vectors.h"

namespace {

struct Attention {
  std::vector<float> scores;

  // q and y (d), keys and values (L, d) of the type of the cache; `at` gives the nth of `count` positions.
  template <typename P, typename At>
  void one(const float* q, const P* keys, const P* values, int64_t d, int64_t count, At at, float* y) {
    scores.resize(up_to(count, W));
    int64_t n = 0;
    for (; n + 4 <= count; n += 4) score<4>(q, keys, d, n, at);
    for (; n < count; n++) score<1>(q, keys, d, n, at);
    const float most = count ? *std::max_element(scores.begin(), scores.begin() + count) : 0;
    for (n = 0; n < count; n += W) put(&scores[n], exp(load<Floats>(&scores[n]) - most));
    float sum = count ? 0 : 1;  // who sees nothing gets zeros
    for (n = 0; n < count; n++) sum += scores[n];
    int64_t i = 0;
    for (; i + 4 * W <= d; i += 4 * W) mix<4>(values, d, i, count, at, sum, y);
    for (; i + W <= d; i += W) mix<1>(values, d, i, count, at, sum, y);
    for (; i < d; i++) {
      float part = 0;
      for (n = 0; n < count; n++) part += scores[n] * widen_one(values[at(n) * d + i]);
      y[i] = part / sum;
    }
  }

 private:
  // The scores of N positions side by side, from the nth on.
  template <int N, typename P, typename At>
  void score(const float* q, const P* keys, int64_t d, int64_t n, At at) {
    Floats parts[N] = {};
    int64_t i = 0;
    for (; i + W <= d; i += W)
      for (int j = 0; j < N; j++) parts[j] += load<Floats>(q + i) * widen(keys + at(n + j) * d + i);
    for (int j = 0; j < N; j++) {
      float product = total(parts[j]);
      for (int64_t rest = i; rest < d; rest++) product += q[rest] * widen_one(keys[at(n + j) * d + rest]);
      scores[n + j] = product / std::sqrt(float(d));
    }
  }

  // N vectors of the mean of all values, from the ith number on.
  template <int N, typename P, typename At>
  void mix(const P* values, int64_t d, int64_t i, int64_t count, At at, float sum, float* y) {
    Floats parts[N] = {};
    for (int64_t n = 0; n < count; n++)
      for (int j = 0; j < N; j++) parts[j] += scores[n] * widen(values + at(n) * d + i + j * W);
    for (int j = 0; j < N; j++) put(y + i + j * W, parts[j] / sum);
  }
};

}  // namespace
