#include "operators/pair_sum.h"

#include <algorithm>
#include <cstdlib>

namespace qcompiler {
namespace {

constexpr int64_t half_limit = 32767;       // of the upper halves of multipliers
constexpr int64_t limit = int64_t{1} << 31;  // of 32-bit numbers
constexpr int least_shift = 17, greatest_shift = 46;

int64_t greatest_code(const Term& term) { return term.wide ? 32768 : 128; }

/// Multiplies both factors and the half of the rounding by the power of two that makes the shift 17 at least, after
/// taking out those that they share. Exact: numerator and denominator change alike.
bool normalize(int64_t multiplier[2], int& shift) {
  while (shift > 1 && ((multiplier[0] | multiplier[1]) & 1) == 0) {
    multiplier[0] /= 2;
    multiplier[1] /= 2;
    --shift;
  }
  const int64_t largest = std::max(std::llabs(multiplier[0]), std::llabs(multiplier[1]));
  if (largest >= limit) return false;
  for (; shift < least_shift; ++shift) {
    multiplier[0] *= 2;
    multiplier[1] *= 2;
  }
  return true;
}

/// Signed halves: multiplier = high * 2^16 + low.
void cut(int64_t multiplier, int64_t& high, int64_t& low) {
  low = static_cast<int16_t>(static_cast<uint16_t>(multiplier & 0xffff));
  high = (multiplier - low) / 65536;
}

}  // namespace

std::optional<FastSum> FastSum::prepare(const Term& a, const Term& b, int shift, const Clamp& clamp) {
  FastSum made;
  made.multiplier_[0] = a.multiplier;
  made.multiplier_[1] = b.multiplier;
  const bool small = clamp.type != ElementType::int32 && std::llabs(clamp.zero) <= 32768;
  if (!small || !normalize(made.multiplier_, shift) || shift > greatest_shift) return std::nullopt;
  int64_t upper = 0, lower = 65535;  // what the sums of the halves may reach
  const Term* terms[2] = {&a, &b};
  for (size_t operand = 0; operand < 2; ++operand) {
    int64_t high, low;
    cut(made.multiplier_[operand], high, low);
    if (std::llabs(high) > half_limit) return std::nullopt;
    made.pairs_.high[operand] = static_cast<int16_t>(high);
    made.pairs_.low[operand] = static_cast<int16_t>(low);
    upper += greatest_code(*terms[operand]) * std::llabs(high);
    lower += greatest_code(*terms[operand]) * std::llabs(low);
    made.constant_ -= terms[operand]->zero * made.multiplier_[operand];
  }
  made.constant_ += (int64_t{1} << (shift - 1)) + int64_t{clamp.zero} * (int64_t{1} << shift);
  upper += std::llabs(made.constant_ >> 16) + 32769;
  if (upper >= limit || lower >= limit) return std::nullopt;
  made.pairs_.shift = shift - 16;
  made.pairs_.least = static_cast<int16_t>(clamp.low);
  made.pairs_.greatest = static_cast<int16_t>(clamp.high);
  made.set_constant(made.pairs_, made.constant_);
  return made;
}

void FastSum::set_constant(PairSum& pairs, int64_t constant) const {
  pairs.constant_high = static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(constant >> 16)));
  pairs.constant_low = static_cast<int32_t>(constant & 0xffff);
}

PairSum FastSum::alone(size_t operand, int64_t other) const {
  PairSum pairs = pairs_;
  pairs.high[0] = pairs_.high[operand];
  pairs.low[0] = pairs_.low[operand];
  pairs.high[1] = pairs.low[1] = 0;
  set_constant(pairs, constant_ + other * multiplier_[1 - operand]);
  return pairs;
}

}  // namespace qcompiler
