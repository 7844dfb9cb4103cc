// The kernels as operators of torch: a linear layer of a few rows, attention of one query a row, and a whole step of a
// language model.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <variant>

#include "attention.h"
#include "language_model.h"
#include "product.h"
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

template <typename T>
at::Tensor multiply(const at::Tensor& x, const Linear<T>& linear) {
  const int64_t R = x.size(0);
  Inputs<T> inputs;
  inputs.take(bits_of<float>(x), R, linear.K);
  at::Tensor y = at::empty({R, linear.N}, x.options());
  float* to = writable_bits_of<float>(y);
  at::parallel_for(0, linear.blocks(), 16, [&](int64_t begin, int64_t end) {
    linear.run(inputs, R, begin, end, to, linear.N, false);
  });
  return y;
}

// x (R, K) float; w packed, see product.h; scale (N) float32 for weights in int8; bias (N) float32 or none; y (R, N) of
// x's type.
at::Tensor rows(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& scale,
                const std::optional<at::Tensor>& bias, int64_t N) {
  TORCH_CHECK(x.dim() == 2, "rows: x (R, K)");
  const int64_t K = w.size(1) * UNIT;
  TORCH_CHECK(x.size(1) <= K && x.size(1) > K - UNIT, "rows: x and w do not fit");
  const at::Tensor filled = at::constant_pad_nd(x.to(at::kFloat), {0, K - x.size(1)}).contiguous();
  if (w.scalar_type() == at::kChar) return multiply(filled, linear_of<int8_t>(w, scale, bias, N)).to(x.scalar_type());
  if (w.scalar_type() == at::kBFloat16)
    return multiply(filled, linear_of<uint16_t>(w, scale, bias, N)).to(x.scalar_type());
  return multiply(filled, linear_of<float>(w, scale, bias, N)).to(x.scalar_type());
}

template <typename P>
void attend_all(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask, at::Tensor& y) {
  int64_t H = q.size(1), L = k.size(2), d = q.size(3);
  const P *queries = bits_of<P>(q), *keys = bits_of<P>(k), *values = bits_of<P>(v);
  const bool* may = mask.const_data_ptr<bool>();
  P* to = writable_bits_of<P>(y);
  at::parallel_for(0, q.size(0) * H, 2, [&](int64_t begin, int64_t end) {
    Attention attention;
    std::vector<int64_t> seen;
    std::vector<float> query(d), found(d);
    for (int64_t n = begin; n < end; n++) {
      const bool* row = may + n / H * mask.stride(0) + n % H * mask.stride(1);
      seen.clear();
      for (int64_t l = 0; l < L; l++)
        if (row[l * mask.stride(3)]) seen.push_back(l);
      for (int64_t i = 0; i < d; i++) query[i] = widen_one(queries[n * d + i]);
      attention.one(query.data(), keys + n * L * d, values + n * L * d, d, seen.size(),
                    [&](int64_t position) { return seen[position]; }, found.data());
      for (int64_t i = 0; i < d; i++) put_one(to + n * d + i, found[i]);
    }
  });
}

// q (R, H, 1, d), k and v (R, H, L, d), all float32 or all bfloat16; mask bool, of a shape that expands to (R, H, 1, L).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask) {
  TORCH_CHECK(q.dim() == 4 && q.size(2) == 1 && k.dim() == 4 && k.sizes() == v.sizes() && k.size(0) == q.size(0) &&
                  k.size(1) == q.size(1) && k.size(3) == q.size(3),
              "attend: q (R, H, 1, d), k and v (R, H, L, d), got ", q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kBool, "attend: expected a bool mask, got ", mask.scalar_type());
  at::Tensor query = q.contiguous(), y = at::empty_like(query);
  at::Tensor expanded = mask.expand({q.size(0), q.size(1), 1, k.size(2)});
  if (q.scalar_type() == at::kFloat)
    attend_all<float>(query, k, v, expanded, y);
  else
    attend_all<uint16_t>(query, k, v, expanded, y);
  return y;
}

using Optional = c10::List<std::optional<at::Tensor>>;

// A language model of which every step is one call.
//
// For each block keys and values (R, H, L, d), two norms and four packed layers (qkv, out, fc1, fc2); then a norm and the
// head. A norm is weight and bias in float32, filled up with zeros to a multiple of 32, and an epsilon; a layer has a scale
// and a bias, or none. The tables of tokens (V, D) and of positions (C, D) are of the cache's type.
struct Decoding : torch::CustomClassHolder {
  using Tensors = c10::List<at::Tensor>;
  using Optional = c10::List<std::optional<at::Tensor>>;

  at::Tensor tokens, positions;
  Tensors keys, values, norms, weights;
  Optional scales, biases;
  c10::List<double> eps;
  int64_t hidden, outputs;
  bool tanh;
  std::variant<LanguageModel<float, float>, LanguageModel<uint16_t, uint16_t>, LanguageModel<int8_t, uint16_t>> model;

  Decoding(at::Tensor tokens, at::Tensor positions, Tensors keys, Tensors values, Tensors norms, c10::List<double> eps,
           Tensors weights, Optional scales, Optional biases, int64_t hidden, int64_t outputs, bool tanh)
      : tokens(tokens), positions(positions), keys(keys), values(values), norms(norms), weights(weights), scales(scales),
        biases(biases), eps(eps), hidden(hidden), outputs(outputs), tanh(tanh) {
    const size_t blocks = keys.size();
    TORCH_CHECK(blocks && values.size() == blocks && eps.size() == 2 * blocks + 1 && norms.size() == 4 * blocks + 2 &&
                    weights.size() == 4 * blocks + 1 && scales.size() == weights.size() &&
                    biases.size() == weights.size(),
                "expected two caches, two norms and four layers for each block, then a norm and a head");
    TORCH_CHECK(tokens.dim() == 2 && positions.dim() == 2 && tokens.size(1) == positions.size(1),
                "expected tables (V, D) and (C, D), got ", tokens.sizes(), " and ", positions.sizes());
    TORCH_CHECK(cache().dim() == 4 && cache().size(2) <= positions.size(0), "expected caches (R, H, L, d) for at most ",
                positions.size(0), " positions, got ", cache().sizes());
    const auto type = weights.get(0).scalar_type();
    if (type == at::kChar)
      model = built<int8_t, uint16_t>();
    else if (type == at::kBFloat16)
      model = built<uint16_t, uint16_t>();
    else
      model = built<float, float>();
  }

  at::Tensor cache() const { return keys.get(0); }

  // tokens (R, T) int64 at `at` (T) int64, positions of the cache one after the other; row r begins at starts[r], int64,
  // and counts its own positions from there. Returns logits (R, outputs) float32 after the last token. At most `most`
  // tokens go through the blocks at once.
  at::Tensor step(const at::Tensor& ids, const at::Tensor& at, const at::Tensor& starts, int64_t most) {
    TORCH_CHECK(ids.dim() == 2 && at.dim() == 1 && starts.dim() == 1 && ids.size(1) == at.size(0) && at.size(0) > 0,
                "step: tokens (R, T), positions (T), starts (R), got ", ids.sizes(), ", ", at.sizes(), " and ",
                starts.sizes());
    TORCH_CHECK(ids.size(0) == cache().size(0) && starts.size(0) == ids.size(0), "step: the cache ", cache().sizes(),
                " is of other rows than tokens ", ids.sizes(), " or starts ", starts.sizes());
    const at::Tensor id = below(ids, "token", tokens.size(0)), start = below(starts, "start", cache().size(2)),
                     position = below(at, "position", cache().size(2));
    const New given{at.size(0), position.const_data_ptr<int64_t>()[0], start.const_data_ptr<int64_t>()};
    for (int64_t t = 0; t < given.T; t++)
      TORCH_CHECK(position.const_data_ptr<int64_t>()[t] == given.position + t, "step: positions do not follow each other");
    at::Tensor logits = at::empty({id.size(0), outputs}, at::kFloat);
    std::visit([&](const auto& one) { one.step(id.const_data_ptr<int64_t>(), given, most, logits.mutable_data_ptr<float>()); },
               model);
    return logits;
  }

 private:
  // The same numbers side by side in memory, all of them below `limit`.
  static at::Tensor below(const at::Tensor& given, const char* what, int64_t limit) {
    TORCH_CHECK_TYPE(given.scalar_type() == at::kLong, "step: expected a ", what, " of int64, got ", given.scalar_type());
    const at::Tensor numbers = given.contiguous();
    for (int64_t n = 0; n < numbers.numel(); n++) {
      const int64_t number = numbers.const_data_ptr<int64_t>()[n];
      TORCH_CHECK_INDEX(0 <= number && number < limit, "step: ", what, " ", number, " of ", limit);
    }
    return numbers;
  }

  Norm norm(int64_t n) const {
    const at::Tensor weight = norms.get(2 * n), bias = norms.get(2 * n + 1);
    const int64_t filled = up_to(tokens.size(1), UNIT);
    TORCH_CHECK(weight.numel() == filled && bias.numel() == filled, "expected norms of ", filled);
    return {bits_of<float>(weight), bits_of<float>(bias), float(eps.get(n))};
  }

  template <typename T>
  Linear<T> linear(int64_t n, int64_t inputs, int64_t outputs) const {
    const auto found = linear_of<T>(weights.get(n), scales.get(n), biases.get(n), outputs);
    TORCH_CHECK(found.K == up_to(inputs, UNIT), "layer ", n, " has ", found.K, " inputs, expected ", inputs);
    return found;
  }

  template <typename T, typename P>
  LanguageModel<T, P> built() const {
    const int64_t D = tokens.size(1), R = cache().size(0), H = cache().size(1), L = cache().size(2), d = cache().size(3);
    const int64_t count = keys.size();
    Stack<T, P> stack{{}, R, D, H, d, L, hidden, tanh};
    for (int64_t b = 0; b < count; b++) {
      const at::Tensor k = keys.get(b), v = values.get(b);
      TORCH_CHECK(k.sizes() == cache().sizes() && v.sizes() == cache().sizes(), "the caches of block ", b, " differ");
      stack.blocks.push_back({norm(2 * b), norm(2 * b + 1), linear<T>(4 * b, D, 3 * H * d),
                              linear<T>(4 * b + 1, H * d, D), linear<T>(4 * b + 2, D, hidden),
                              linear<T>(4 * b + 3, hidden, D), writable_bits_of<P>(k), writable_bits_of<P>(v)});
    }
    return {bits_of<P>(tokens), bits_of<P>(positions), stack, norm(2 * count), linear<T>(4 * count, D, outputs)};
  }
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(orchard, library) {
  library.def("pack(Tensor w) -> Tensor");
  library.def("rows(Tensor x, Tensor w, Tensor? scale, Tensor? bias, int outputs) -> Tensor");
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor mask) -> Tensor");
  library.class_<Decoding>("Decoding")
      .def(torch::init<at::Tensor, at::Tensor, Decoding::Tensors, Decoding::Tensors, Decoding::Tensors, c10::List<double>,
                       Decoding::Tensors, Decoding::Optional, Decoding::Optional, int64_t, int64_t, bool>())
      .def("step", &Decoding::step);
}
TORCH_LIBRARY_IMPL(orchard, CPU, library) {
  library.impl("pack", packed);
  library.impl("rows", rows);
  library.impl("attend", attend);
}
