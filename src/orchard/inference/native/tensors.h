// What the kernels read, out of tensors of torch that are checked on the way.

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <type_traits>

#include "product.h"

namespace {

template <typename T>
constexpr at::ScalarType type_of() {
  if constexpr (std::is_same_v<T, float>) return at::kFloat;
  if constexpr (std::is_same_v<T, int8_t>) return at::kChar;
  return at::kBFloat16;
}

template <typename T>
void check(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == type_of<T>(), "expected a contiguous tensor of ",
              type_of<T>(), ", got ", tensor.scalar_type(), " with strides ", tensor.strides());
}

// The values of a tensor of float32 or int8, or the bits of one of bfloat16.
template <typename T>
const T* bits_of(const at::Tensor& tensor) {
  check<T>(tensor);
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* writable_bits_of(const at::Tensor& tensor) {
  check<T>(tensor);
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
Linear<T> linear_of(const at::Tensor& w, const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& bias,
                    int64_t N) {
  TORCH_CHECK(w.dim() == 4 && w.size(2) == BLOCK && w.size(3) == UNIT, "expected packed weights, got ", w.sizes());
  TORCH_CHECK(w.size(0) == up_to(N, BLOCK) / BLOCK, "expected the blocks of ", N, " outputs, got ", w.size(0));
  TORCH_CHECK((!scale || scale->numel() == N) && (!bias || bias->numel() == N), "expected ", N, " scales and biases");
  TORCH_CHECK((scale.has_value() == std::is_same_v<T, int8_t>), "expected scales for weights in int8, and no others");
  return {bits_of<T>(w), scale ? bits_of<float>(*scale) : nullptr, bias ? bits_of<float>(*bias) : nullptr, N,
          w.size(1) * UNIT};
}

}  // namespace
