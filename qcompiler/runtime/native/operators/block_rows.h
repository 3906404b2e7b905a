// Float rows quantized to 8 bits, each with a scale of its own, as QMatMulWeightOnly multiplies them.
#pragma once

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/table.h"
#include "operators/block_weight.h"

namespace qcompiler {

class BlockRows {
 public:
  /// `x` are `count` rows of as many numbers as the weight is deep.
  BlockRows(const Kernels& kernels, const BlockWeight& weight, const float* x, size_t count, const Threads& threads);

  BlockRow row(size_t index) const;
  float scale(size_t index) const { return factors_.as<float>()[2 * index]; }
  float guard(size_t index) const { return factors_.as<float>()[2 * index + 1]; }
  size_t count() const { return count_; }

 private:
  void quantize(const Kernels& kernels, const BlockWeight& weight, const float* x, size_t index) const;

  size_t count_, blocks_, code_bytes_;
  Scratch codes_, sums_, factors_;
};

}  // namespace qcompiler
