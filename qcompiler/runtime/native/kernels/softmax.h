// Rows of a softmax: powers of two by table and line, then every term times one factor of its row.
// Specification: qcompiler/quant/integer/softmax.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/elementwise.h"

namespace qcompiler {

/// 2^30 * 2^(-index/256).
extern const int32_t softmax_powers[257];

/// From a distance d to the row's greatest code to t with 16 fractional bits:
/// t = min(((d * multiplier + 2^(right-1)) >> right) << left, 2^21 - 1), without the half where right is 0. That is
/// (d * multiplier * 2^16 + 2^(c-1)) >> c with right = c - 16 or left = 16 - c, exactly and always within 62 bits.
struct SoftmaxExponent {
  uint32_t multiplier;  ///< Below 2^31.
  int32_t left, right;  ///< One of them is 0.
  const int32_t* by_distance;  ///< The terms of the 256 distances of 8-bit codes.
};

/// clip(((term * factor + 2^(shift-1)) >> shift) + zero, low, high); the shift is 36 to 52, the factor below 2^31,
/// terms at most 2^30, so that the rounded product is at most 2^25.
struct SoftmaxShare {
  uint32_t factor;
  int32_t shift;
  int32_t zero;  ///< Within 2^27.
  int32_t low, high;
};

struct SoftmaxKernels {
  /// terms[i] = 2^30 * 2^-t of a row's codes; gives their sum. `terms` has room for 16 more, which may be written.
  uint64_t (*terms)(Codes x, size_t count, const SoftmaxExponent&, int32_t* terms);
  /// The codes of a row; up to 16 terms more may be read.
  void (*shares)(const int32_t* terms, size_t count, const SoftmaxShare&, CodesOut result);
};

/// The term of one distance.
int32_t softmax_term(const SoftmaxExponent& exponent, uint32_t distance);

void set_reference(SoftmaxKernels&);
void set_avx2(SoftmaxKernels&);
void set_avx512vnni(SoftmaxKernels&);

}  // namespace qcompiler
