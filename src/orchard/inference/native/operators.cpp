// The kernels as operators of torch: a linear map of a few rows, attention of one query a row, and a stack of blocks.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "attention.h"
#include "product.h"
#include "stack.h"
#include "tensors.h"

namespace {

// A matrix (N, K) of float32, bfloat16 or int8 in the order of `product.h`, (N / 4, K / 32, 4, 32) rounded up.
at::Tensor packed(const at::Tensor& w) {
  TORCH_CHECK(w.dim() == 2, "pack: w (N, K)");
  int64_t N = w.size(0), K = w.size(1);
  at::Tensor y = at::zeros({up_to(N, BLOCK) / BLOCK, up_to(K, UNIT) / UNIT, BLOCK, UNIT}, w.options());
  if (w.scalar_type() == at::kChar)
    pack(bits_of<int8_t>(w), N, K, writable_bits_of<int8_t>(y));
  else if (w.scalar_type() == at::kBFloat16)
    pack(bits_of<uint16_t>(w), N, K, writable_bits_of<uint16_t>(y));
  else
    pack(bits_of<float>(w), N, K, writable_bits_of<float>(y));
  return y;
}

template <typename T, typename X, typename Y>
void multiply(const at::Tensor& x, const Map<T, X>& map, at::Tensor& y) {
  int64_t R = x.size(0), given = x.size(1);
  std::vector<X> inputs(R * map.K);  // filled up with zeros
  const Y* from = bits_of<Y>(x);
  for (int64_t r = 0; r < R; r++)
    for (int64_t k = 0; k < given; k++) put_one(&inputs[r * map.K + k], widen_one(from[r * given + k]));
  Y* to = writable_bits_of<Y>(y);
  at::parallel_for(0, map.blocks(), 16, [&](int64_t begin, int64_t end) {
    map.run(inputs.data(), R, begin, end, [&](int64_t r, int64_t n, float sum) { put_one(to + r * map.N + n, sum); });
  });
}

// x (R, K); w packed, see product.h; scale (N) float32 or none; bias (N) float32 or none; y (R, N) of x's type, which is
// float32 for weights in float32, else bfloat16.
at::Tensor rows(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& scale,
                const std::optional<at::Tensor>& bias, int64_t N) {
  TORCH_CHECK(x.dim() == 2, "rows: x (R, K)");
  int64_t K = w.size(1) * UNIT;
  TORCH_CHECK(x.size(1) <= K && x.size(1) > K - UNIT, "rows: x and w do not fit");
  at::Tensor y = at::empty({x.size(0), N}, x.options());
  if (w.scalar_type() == at::kChar)
    multiply<int8_t, float, uint16_t>(x, map_of<int8_t, float>(w, scale, bias, N), y);
  else if (w.scalar_type() == at::kBFloat16)
    multiply<uint16_t, Inputs, uint16_t>(x, map_of<uint16_t, Inputs>(w, scale, bias, N), y);
  else
    multiply<float, float, float>(x, map_of<float, float>(w, scale, bias, N), y);
  return y;
}

template <typename P>
void attend_all(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& seen, at::Tensor& y) {
  int64_t H = q.size(1), L = k.size(2), d = q.size(3);
  const P *queries = bits_of<P>(q), *keys = bits_of<P>(k), *values = bits_of<P>(v);
  P* to = writable_bits_of<P>(y);
  at::parallel_for(0, q.size(0) * H, 2, [&](int64_t begin, int64_t end) {
    Attention attention;
    std::vector<float> query(d), found(d);
    for (int64_t n = begin; n < end; n++) {
      see(seen, n / H, n % H, 0, attention.places);
      for (int64_t i = 0; i < d; i++) query[i] = widen_one(queries[n * d + i]);
      attention.one(query.data(), keys + n * L * d, values + n * L * d, d, found.data());
      for (int64_t i = 0; i < d; i++) put_one(to + n * d + i, found[i]);
    }
  });
}

// q (R, H, 1, d), k and v (R, H, L, d), all float32 or all bfloat16; seen bool, of a shape that expands to (R, H, 1, L).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& seen) {
  TORCH_CHECK(q.dim() == 4 && q.size(2) == 1 && k.dim() == 4 && k.sizes() == v.sizes() && k.size(0) == q.size(0) &&
                  k.size(1) == q.size(1) && k.size(3) == q.size(3),
              "attend: q (R, H, 1, d), k and v (R, H, L, d), got ", q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  at::Tensor query = q.contiguous(), y = at::empty_like(query);
  at::Tensor may = seen.expand({q.size(0), q.size(1), 1, k.size(2)});
  if (q.scalar_type() == at::kFloat)
    attend_all<float>(query, k, v, may, y);
  else
    attend_all<uint16_t>(query, k, v, may, y);
  return y;
}

using Optional = c10::List<std::optional<at::Tensor>>;

// x (R, T, D) float32; places (T) int64; mask bool, of a shape that expands to (R, 1, T, L); for each block keys and
// values (R, H, L, d), which are written to, four tensors of two norms (weight, bias; float32, filled up with zeros to a
// multiple of 32) and four packed maps (qkv, out, fc1, fc2) with scales and biases or none; hidden is F.
struct Given {
  const at::Tensor &x, &places, &mask;
  at::TensorList keys, values, norms, weights;
  const Optional &scales, &biases;
  int64_t hidden;
  double eps;
  bool tanh;

  template <typename T, typename X, typename P>
  at::Tensor run() const {
    const int64_t R = x.size(0), D = x.size(2), H = keys[0].size(1), L = keys[0].size(2), d = keys[0].size(3);
    const int64_t inputs[] = {D, H * d, D, hidden}, outputs[] = {3 * H * d, D, hidden, D};
    Stack<T, X, P> stack{{}, mask.expand({R, 1, places.size(0), L}), places, R, D, H, d, L, hidden, float(eps), tanh};
    for (size_t b = 0; b < keys.size(); b++) {
      TORCH_CHECK(keys[b].sizes() == keys[0].sizes() && values[b].sizes() == keys[0].sizes(), "stack: memories differ");
      const auto norm = [&](size_t n) {
        TORCH_CHECK(norms[n].numel() == up_to(D, UNIT), "stack: expected norms of ", up_to(D, UNIT));
        return bits_of<float>(norms[n]);
      };
      const auto map = [&](int which) {
        const size_t n = 4 * b + which;
        const auto found = map_of<T, X>(weights[n], scales.get(n), biases.get(n), outputs[which]);
        TORCH_CHECK(found.K == up_to(inputs[which], UNIT), "stack: a map of block ", b, " has ", found.K, " inputs");
        return found;
      };
      stack.blocks.push_back({{norm(4 * b), norm(4 * b + 1)}, {norm(4 * b + 2), norm(4 * b + 3)}, map(0), map(1),
                              map(2), map(3), writable_bits_of<P>(keys[b]), writable_bits_of<P>(values[b])});
    }
    at::Tensor y = x.clone(at::MemoryFormat::Contiguous);
    stack.run(writable_bits_of<float>(y));
    return y;
  }
};

at::Tensor stack(const at::Tensor& x, const at::Tensor& places, const at::Tensor& mask, at::TensorList keys,
                 at::TensorList values, at::TensorList norms, at::TensorList weights, const Optional& scales,
                 const Optional& biases, int64_t hidden, double eps, bool tanh) {
  const size_t blocks = keys.size();
  TORCH_CHECK(blocks && values.size() == blocks && norms.size() == 4 * blocks && weights.size() == 4 * blocks &&
                  scales.size() == 4 * blocks && biases.size() == 4 * blocks,
              "stack: expected two memories, four tensors of norms and four maps for each block");
  TORCH_CHECK(x.dim() == 3 && places.dim() == 1 && x.size(1) == places.size(0), "stack: x (R, T, D), places (T)");
  TORCH_CHECK(keys[0].dim() == 4 && keys[0].size(0) == x.size(0), "stack: memories (R, H, L, d), got ", keys[0].sizes(),
              " for ", x.size(0), " rows");
  for (int64_t t = 0; t < places.size(0); t++) {
    const int64_t at = places.const_data_ptr<int64_t>()[t];
    TORCH_CHECK(0 <= at && at < keys[0].size(2), "stack: place ", at, " of ", keys[0].size(2));
  }
  const Given given{x, places, mask, keys, values, norms, weights, scales, biases, hidden, eps, tanh};
  if (weights[0].scalar_type() == at::kChar) return given.run<int8_t, float, uint16_t>();
  if (weights[0].scalar_type() == at::kBFloat16) return given.run<uint16_t, Inputs, uint16_t>();
  return given.run<float, float, float>();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(orchard, library) {
  library.def("pack(Tensor w) -> Tensor");
  library.def("rows(Tensor x, Tensor w, Tensor? scale, Tensor? bias, int outputs) -> Tensor");
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor seen) -> Tensor");
  library.def(
      "stack(Tensor x, Tensor places, Tensor mask, Tensor(a!)[] keys, Tensor(b!)[] values, Tensor[] norms, "
      "Tensor[] weights, Tensor?[] scales, Tensor?[] biases, int hidden, float eps, bool tanh_gelu) -> Tensor");
}
TORCH_LIBRARY_IMPL(orchard, CPU, library) {
  library.impl("pack", packed);
  library.impl("rows", rows);
  library.impl("attend", attend);
  library.impl("stack", stack);
}
