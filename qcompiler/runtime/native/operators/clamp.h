// The attributes that every rescaling operator has: zero point, type and bounds of the result.
#pragma once

#include "core/attributes.h"
#include "core/tensor.h"

namespace qcompiler {

struct Clamp {
  int32_t zero, low, high;
  ElementType type;  ///< int8, int16 or int32.

  /// Reads y_zero_point, to, low and high and checks them against each other.
  static Clamp read(const Attributes& attributes);
};

/// Checks a multiplier (0 <= b; int32) and a shift (1 <= c <= 62; uint8) for type and range.
void check_multiplier(const Tensor& multiplier);
void check_shift(const Tensor& shift);

}  // namespace qcompiler
