// Prepares the fast road of sums of codes: proves that 32 bits suffice and cuts the multipliers (kernels/elementwise.h).
#pragma once

#include <optional>

#include "kernels/elementwise.h"
#include "operators/clamp.h"

namespace qcompiler {

/// One operand of a sum: codes of this width around this zero point times this factor.
struct Term {
  bool wide;
  int64_t zero;
  int64_t multiplier;  ///< Negative where the operand is subtracted; 0 where there is none.
};

/// clip(((a - za) * ba + (b - zb) * bb + 2^(c-1)) >> c) + zy, low, high) in 32 bits.
class FastSum {
 public:
  /// Nothing where 32 bits do not suffice for every code, or the result is wider than 16 bits.
  static std::optional<FastSum> prepare(const Term& a, const Term& b, int shift, const Clamp& clamp);

  const PairSum& pairs() const { return pairs_; }
  /// Of operand 0 or 1 alone, where the other one is the same code everywhere.
  PairSum alone(size_t operand, int64_t other) const;

 private:
  void set_constant(PairSum& pairs, int64_t constant) const;

  PairSum pairs_{};
  int64_t multiplier_[2] = {0, 0};
  int64_t constant_ = 0;
};

}  // namespace qcompiler
