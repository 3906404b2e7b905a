// The end of every operator on codes: sums are rescaled and stored as the type that the node names.
#pragma once

#include "kernels/table.h"
#include "operators/clamp.h"

namespace qcompiler {

class Ending {
 public:
  Ending(const Kernels& kernels, const Clamp& clamp) : kernels_(kernels), clamp_(clamp) {}

  const Clamp& clamp() const { return clamp_; }
  size_t code_bytes() const { return element_bytes(clamp_.type); }
  bool narrow() const { return clamp_.type != ElementType::int32; }

  /// Rescale by factors, one or one per element.
  Rescale with(const int32_t* multiplier, const uint8_t* shift, bool per_column) const {
    return {multiplier, shift, per_column, clamp_.zero, clamp_.low, clamp_.high, clamp_.type == ElementType::int16};
  }

  /// One row of sums; the result is int8, int16 or int32.
  void from32(const int32_t* sums, const Rescale& rescale, size_t count, void* result) const;
  void from64(const int64_t* sums, const Rescale& rescale, size_t count, void* result) const;

 private:
  const Kernels& kernels_;
  Clamp clamp_;
};

}  // namespace qcompiler
