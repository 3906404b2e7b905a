// Multipliers, biases and shifts of a normalization, laid out for the kernels: one of each per element of a row.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "kernels/norms.h"
#include "operators/broadcast.h"
#include "operators/clamp.h"

namespace qcompiler {

/// The operands beside x. `bias` has type `undefined` where there is none.
struct NormOperands {
  Tensor multiplier, bias, shift;

  /// Types and ranges, or an Error.
  void check() const;
  /// The shape that they broadcast to.
  Shape shape() const;
};

class NormRowFactors {
 public:
  /// Of the rows of a result; `row` is their length.
  NormRowFactors(const NormOperands& operands, const Shape& result, size_t row);

  /// Lays out the factors of one row.
  void fill(size_t row);

  /// Forgets the operands: the rows share what is laid out.
  void release() { operands_ = {}; }

  NormFactors with(const Clamp& clamp) const {
    return {multiplier_.data(), addend_.data(), shift_.data(), clamp.zero, clamp.low, clamp.high};
  }

 private:
  NormOperands operands_;
  Broadcast walk_;
  std::vector<int32_t> multiplier_;
  std::vector<int64_t> addend_;
  std::vector<uint8_t> shift_;
};

}  // namespace qcompiler
