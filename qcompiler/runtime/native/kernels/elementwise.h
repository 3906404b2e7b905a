// Sums and products of codes, element by element, with everything in 32 bits where 64 are not needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// An array of int8 or int16 codes.
struct Codes {
  const void* data;
  bool wide;  ///< int16 instead of int8.
};

/// The same, written.
struct CodesOut {
  void* data;
  bool wide;
};

/// clip((a * ba + b * bb + K) >> c, low, high), cut at bit 16: multipliers are high * 2^16 + low with signed halves,
/// and so is K with an unsigned lower half. Floors nest, so with H = a * high_a + b * high_b + high_K and
/// L = a * low_a + b * low_b + low_K the result is (H + (L >> 16)) >> (c - 16) exactly. Who fills this in has proven
/// that H + (L >> 16) and L fit 32 bits (operators/pair_sum.h). K holds zero points and the half of the rounding.
struct PairSum {
  int16_t high[2], low[2];  ///< Multipliers of a and b.
  int32_t constant_high, constant_low;
  int32_t shift;  ///< c - 16, 0 to 31.
  int16_t least, greatest;
};

/// clip(((a - za) * (b - zb) * multiplier + constant) >> shift, low, high): a - za and b - zb fit 16 bits, the sum
/// with the constant 63 bits, and the shift is 32 or more, less than 63.
struct CodeProduct {
  int16_t zero[2];
  int32_t multiplier;
  int64_t constant;
  int32_t shift;
  int16_t least, greatest;
};

/// The bounds fit the type of the result.
struct ElementwiseKernels {
  void (*sum)(Codes a, Codes b, const PairSum&, size_t count, CodesOut result);
  /// The same without b.
  void (*scale)(Codes a, const PairSum&, size_t count, CodesOut result);
  void (*multiply)(Codes a, Codes b, const CodeProduct&, size_t count, CodesOut result);
};

void set_reference(ElementwiseKernels&);
void set_avx2(ElementwiseKernels&);
void set_avx512vnni(ElementwiseKernels&);
void set_neon(ElementwiseKernels&);

}  // namespace qcompiler
