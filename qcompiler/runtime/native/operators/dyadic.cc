#include "operators/dyadic.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace qcompiler {
namespace {

constexpr int product_bits = 62;
constexpr int least_shift = 1, greatest_shift = 62;

int bit_length(int64_t value) {
  int length = 0;
  for (; value != 0; value >>= 1) ++length;
  return length;
}

}  // namespace

Dyadic choose_dyadic(double factor, int bits, int64_t bound) {
  require(std::isfinite(factor) && factor > 0, "a rescale factor is not positive and finite");
  require(bound >= 0, "the bound of an accumulator is negative");
  const int room = std::min(bits, product_bits - 1 - bit_length(bound));
  require(room >= 2, "an accumulator leaves no room for a multiplier");
  int exponent = 0;
  const double fraction = std::frexp(factor, &exponent);
  int shift = std::min(room - exponent, greatest_shift);
  require(shift >= least_shift - 1, "a rescale factor is too large for its multiplier");
  // Rounds to even; the multiplier of a factor just below a power of two may become 2^room.
  int64_t multiplier = static_cast<int64_t>(std::nearbyint(std::ldexp(fraction, exponent + shift)));
  if (multiplier >> room != 0) {
    multiplier >>= 1;
    --shift;
  }
  require(shift >= least_shift, "a rescale factor is too large for its multiplier");
  return {static_cast<int32_t>(std::max<int64_t>(multiplier, 1)), static_cast<uint8_t>(shift)};
}

}  // namespace qcompiler
