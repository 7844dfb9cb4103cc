// A step of a language model: tokens in, logits of the token after the last one out.

#pragma once

#include <ATen/Parallel.h>

#include "stack.h"

namespace {

constexpr int64_t WORTH_A_TEAM = 1 << 20;  // products of a block, below which one thread is as soon done alone

template <typename T, typename P>
struct LanguageModel {
  const P *tokens, *positions;  // tables (V, D) and (C, D)
  Stack<T, P> stack;
  Norm norm;
  Linear<T> head;

  // ids (R, T), logits (R, head.N); at most `most` tokens go through the blocks at once.
  void step(const int64_t* ids, const New& given, int64_t most, float* logits) const {
    const int64_t size = std::max<int64_t>(most / stack.R, 1);
    for (int64_t first = 0; first < given.T; first += size) {
      const New piece{std::min(size, given.T - first), given.position + first, given.starts};
      run(ids + first, given.T, piece, first + size >= given.T ? logits : nullptr);
    }
  }

 private:
  // ids of one row are `stride` apart from those of the next.
  void run(const int64_t* ids, int64_t stride, const New& piece, float* logits) const {
    const int64_t R = stack.R, D = stack.D, count = R * piece.T, width = stack.width();
    typename Stack<T, P>::Shared all(stack, count);
    for (int64_t n = 0; n < count; n++) {
      const int64_t r = n / piece.T, t = n % piece.T;
      const P* token = tokens + ids[r * stride + t] * D;
      const P* position = positions + std::max<int64_t>(piece.position + t - piece.starts[r], 0) * D;
      for (int64_t i = 0; i < D; i++) all.stream[n * width + i] = widen_one(token[i]) + widen_one(position[i]);
    }
    const bool small = count * (4 * D * stack.H * stack.d + 2 * D * stack.F) < WORTH_A_TEAM;
#pragma omp parallel num_threads(small ? 1 : at::get_num_threads())
    {
      stack.run(piece, all);
      if (logits) {
        std::vector<float> normed(R * width);
        for (int64_t r = 0; r < R; r++)
          normalise(norm, &all.stream[((r + 1) * piece.T - 1) * width], D, width, &normed[r * width]);
        Inputs<T> inputs;
        inputs.take(normed.data(), R, width);
        share(head, inputs, R, logits, head.N);
      }
    }
  }
};

}  // namespace
