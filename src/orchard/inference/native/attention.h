// One query against what is remembered: softmax(q kᵀ / √d) v over the places that are seen; others are not read.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

struct Attention {
  std::vector<int64_t> places;  // that are seen, the caller's to fill
  std::vector<float> scores;

  // q and y (d), keys and values (L, d) of the type in which they are remembered.
  template <typename P>
  void one(const float* q, const P* keys, const P* values, int64_t d, float* y) {
    const size_t count = places.size();
    scores.resize((count + W - 1) / W * W);
    size_t n = 0;
    for (; n + 4 <= count; n += 4) meet<4>(q, keys, d, n);
    for (; n < count; n++) meet<1>(q, keys, d, n);
    const float most = count ? *std::max_element(scores.begin(), scores.begin() + count) : 0;
    for (n = 0; n < count; n += W) put(&scores[n], exp(load<Floats>(&scores[n]) - most));
    float sum = count ? 0 : 1;  // who sees nothing gets zeros
    for (n = 0; n < count; n++) sum += scores[n];
    int64_t i = 0;
    for (; i + 4 * W <= d; i += 4 * W) mix<4>(values, d, i, sum, y);
    for (; i + W <= d; i += W) mix<1>(values, d, i, sum, y);
    for (; i < d; i++) {
      float part = 0;
      for (n = 0; n < count; n++) part += scores[n] * widen_one(values[places[n] * d + i]);
      y[i] = part / sum;
    }
  }

 private:
  // The scores of N places side by side, from the nth on.
  template <int N, typename P>
  void meet(const float* q, const P* keys, int64_t d, size_t n) {
    Floats parts[N] = {};
    int64_t i = 0;
    for (; i + W <= d; i += W)
      for (int j = 0; j < N; j++) parts[j] += load<Floats>(q + i) * widen(keys + places[n + j] * d + i);
    for (int j = 0; j < N; j++) {
      float score = total(parts[j]);
      for (int64_t rest = i; rest < d; rest++) score += q[rest] * widen_one(keys[places[n + j] * d + rest]);
      scores[n + j] = score / std::sqrt(float(d));
    }
  }

  // N vectors of the mean of all values, from the ith number on.
  template <int N, typename P>
  void mix(const P* values, int64_t d, int64_t i, float sum, float* y) {
    Floats parts[N] = {};
    for (size_t n = 0; n < places.size(); n++)
      for (int j = 0; j < N; j++) parts[j] += scores[n] * widen(values + places[n] * d + i + j * W);
    for (int j = 0; j < N; j++) put(y + i + j * W, parts[j] / sum);
  }
};

}  // namespace
