// Rows of LayerNorm and RMSNorm: two moments, then two products with their shifts per code.
// Specification: qcompiler/quant/integer/norms.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/elementwise.h"

namespace qcompiler {

/// Sums over a row, in 64 bits.
struct Moments {
  int64_t sum, squares;
};

/// n = ((x * scale - offset) * root + 2^(shift-1)) >> shift: the first factor stays below 2^31, n within 2^30. LayerNorm
/// has the row's length and sum here, RMSNorm 1 and the zero point.
struct NormalRow {
  int32_t scale, offset;
  int32_t root;
  int32_t shift;  ///< 1 to 62.
};

/// clip(((n * multiplier + addend) >> shift) + zero, low, high) per element; an addend holds the bias and 2^(shift-1),
/// and every sum stays below 2^62.
struct NormFactors {
  const int32_t* multiplier;
  const int64_t* addend;
  const uint8_t* shift;
  int32_t zero, low, high;
};

struct NormKernels {
  Moments (*moments)(Codes x, size_t count);
  void (*normalize)(Codes x, size_t count, const NormalRow&, const NormFactors&, CodesOut result);
};

void set_reference(NormKernels&);
void set_avx2(NormKernels&);
void set_avx512vnni(NormKernels&);
void set_neon(NormKernels&);

}  // namespace qcompiler
