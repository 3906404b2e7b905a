// From sums of windows and areas to codes: factors per output position, or sums of shifts (quant/integer/digits.py).
#pragma once

#include <vector>

#include "operators/ending.h"

namespace qcompiler {

/// The factors of a pool or mean: one, or one per output position.
///
/// A signed sum of shifts `sum(±(x << left))` is x times the integer B = sum(±2^left), exactly; with the shift to the
/// left by 16 it is a product with B * 2^16, and a power of two that numerator and denominator share goes out. Where B
/// has more than 31 bits the sums are multiplied in 64 bits first.
class SumFactors {
 public:
  /// Factors for output positions of this shape; an Error where they do not broadcast to it or are out of range.
  SumFactors(const Ending& ending, const Inputs& inputs, bool multiplies, const Shape& positions);

  bool per_position() const { return multiplier_.size() > 1; }

  /// `count` sums; the first one's position is `position`, the others' are `step` (0 or 1) behind each other.
  void finish(const int32_t* sums, size_t position, size_t step, size_t count, void* result) const;
  void finish(const int64_t* sums, size_t position, size_t step, size_t count, void* result) const;

 private:
  void read_multiplier(const Inputs& inputs, const Shape& positions);
  void read_digits(const Inputs& inputs, const Shape& positions);

  const Ending& ending_;
  std::vector<int32_t> multiplier_;
  std::vector<uint8_t> shift_;
  std::vector<int64_t> scale_;  ///< Empty, or what sums are multiplied by before the multiplier.
};

}  // namespace qcompiler
