// Rows of signed 8-bit activations times a panel of unsigned codes of few bits, with a float scale per block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// One call of a block kernel.
///
/// sums[r][n] = sum over blocks b, in their order, of float(exact(r, b, n)) * scales[b][n] * row_scales[r][b], where
/// exact = sum over the block of activation * (code - zero), an integer below 2^31. Every float operation rounds by
/// itself; none are fused, so the sums are the same on every instruction set.
struct ScaledBlockCall {
  const int8_t* const* row;        ///< Activations of every row, the blocks one after the other.
  const float* const* row_scales;  ///< Per row [blocks].
  const int32_t* const* row_sums;  ///< Sums of the activations of a block, per row [blocks].
  size_t rows;                     ///< 1 to ScaledBlockKernels::rows.
  size_t blocks, groups;           ///< A block has 4 * groups activations; groups is a multiple of 4.
  int bits;                        ///< 2, 4 or 8.
  /// [blocks][groups * bits / 8][columns][4]: a byte holds the codes of 8 / bits groups, the first in its low bits.
  const uint8_t* panel;
  size_t columns;        ///< 16, 32, 48 or 64.
  const float* scales;   ///< [blocks][columns]
  const uint8_t* zeros;  ///< [blocks][columns], or null where all are `zero`.
  int32_t zero;
  float* sums;  ///< [rows][columns], overwritten.
};

struct ScaledBlockKernels {
  size_t rows;  ///< Most rows of one call.
  void (*multiply)(const ScaledBlockCall&);
};

void set_reference(ScaledBlockKernels&);
void set_avx2(ScaledBlockKernels&);
void set_avx512vnni(ScaledBlockKernels&);

}  // namespace qcompiler
