// Dyadic numbers for real factors: b * 2^-c. Specification: `choose` in qcompiler/quant/integer/dyadic.py.
#pragma once

#include <cstdint>

namespace qcompiler {

struct Dyadic {
  int32_t multiplier;
  uint8_t shift;
};

/// The best one for a positive factor of at most `bits` bits and an accumulator of magnitude up to `bound`.
/// Throws where the factor is not positive and finite or too large, or the accumulator leaves no room.
Dyadic choose_dyadic(double factor, int bits, int64_t bound);

}  // namespace qcompiler
