// One query for each row and head against what is remembered: softmax(q kᵀ / √d) v over the places that are seen.
//
// Places that are not seen are not read. Sums run in float32, each row's and head's by themselves.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

struct Attention {
  const uint16_t *q, *k, *v;  // (R, H, 1, d), (R, H, L, d), (R, H, L, d) bfloat16
  const bool* seen;           // (R, H, 1, L) by the strides below
  at::BFloat16* y;            // (R, H, 1, d)
  int64_t H, L, d, of_row, of_head, of_place;

  void one(int64_t rh, std::vector<float>& scores, std::vector<int64_t>& places) const {
    const uint16_t *keys = k + rh * L * d, *values = v + rh * L * d, *query = q + rh * d;
    const bool* may = seen + rh / H * of_row + rh % H * of_head;
    const float scale = 1 / std::sqrt(float(d));
    float most = -INFINITY;
    scores.clear();
    places.clear();
    for (int64_t l = 0; l < L; l++) {
      if (!may[l * of_place]) continue;
      Floats parts = {};
      int64_t i = 0;
      for (; i + W <= d; i += W) parts += widen(query + i) * widen(keys + l * d + i);
      float score = total(parts);
      for (; i < d; i++) score += widen_one(query[i]) * widen_one(keys[l * d + i]);
      scores.push_back(score * scale);
      places.push_back(l);
      most = std::max(most, score * scale);
    }
    float sum = 0;
    for (float& score : scores) sum += score = std::exp(score - most);
    int64_t i = 0;
    for (; i + W <= d; i += W) {
      Floats parts = {};
      for (size_t n = 0; n < places.size(); n++) parts += scores[n] * widen(values + places[n] * d + i);
      for (int w = 0; w < W; w++) y[rh * d + i + w] = parts[w] / sum;
    }
    for (; i < d; i++) {
      float part = 0;
      for (size_t n = 0; n < places.size(); n++) part += scores[n] * widen_one(values[places[n] * d + i]);
      y[rh * d + i] = part / sum;
    }
  }
};

const uint16_t* halves(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kBFloat16, "attend: contiguous bfloat16 expected");
  return reinterpret_cast<const uint16_t*>(tensor.const_data_ptr<at::BFloat16>());
}

// q (R, H, 1, d), k and v (R, H, L, d) bfloat16; seen bool, of a shape that expands to (R, H, 1, L).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& seen) {
  TORCH_CHECK(q.dim() == 4 && q.size(2) == 1 && k.sizes() == v.sizes(), "attend: q (R, H, 1, d), k and v (R, H, L, d)");
  int64_t R = q.size(0), H = q.size(1), L = k.size(2), d = q.size(3);
  at::Tensor may = seen.expand({R, H, 1, L});
  at::Tensor query = q.contiguous(), y = at::empty_like(query);
  auto* out = y.mutable_data_ptr<at::BFloat16>();
  Attention work{halves(query), halves(k),     halves(v),     may.const_data_ptr<bool>(), out, H, L, d,
                 may.stride(0), may.stride(1), may.stride(3)};
  at::parallel_for(0, R * H, 2, [&](int64_t begin, int64_t end) {
    std::vector<float> scores;
    std::vector<int64_t> places;
    for (int64_t rh = begin; rh < end; rh++) work.one(rh, scores, places);
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(orchard, library) {
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor seen) -> Tensor");
}
TORCH_LIBRARY_IMPL(orchard, CPU, library) { library.impl("attend", attend); }
