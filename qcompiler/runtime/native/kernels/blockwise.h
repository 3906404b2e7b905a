// Float rows times packed weights whose blocks of depths have multipliers and zero points of their own.
// Specification: qcompiler/quant/integer/weight_only.py.
//
// Weights are unsigned, u = code + 2^(bits - 1), in vectors of 16 columns as in lowbit.h (8 bits: a byte per depth).
// A panel is 16 columns: [blocks][steps][planes][16][4].
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lowbit.h"

namespace qcompiler {

constexpr size_t block_columns = 16;

/// Whether the sum of a block, centred, fits 16 bits, so that two blocks meet their multipliers in one instruction:
/// |code| <= 2^(bits - 1) times |activation| <= 127.
static constexpr bool paired_blocks(int bits, size_t block) { return bits < 8 && (block << (bits - 1)) <= 256; }

/// A quantized row. Blocks of codes are filled up with zeros to whole steps; there is one block of zeros more than
/// there are blocks, so that pairs are whole.
struct BlockRow {
  const int8_t* codes;
  const int32_t* start;  ///< Per block: -2^(bits - 1) * sum of its codes.
  const int32_t* sums;   ///< Per block: sum of its codes.
};

/// totals[r][n] = sum over blocks b of multiplier[b][n] * (start[b] + sum over k in b of codes[k] * u[k][n] -
///                zero[b][n] * sums[b])
struct BlockCall {
  int bits;
  bool paired;
  const BlockRow* row;
  size_t rows;           ///< 1 to block_rows.
  size_t blocks, steps;  ///< Steps of a block.
  const uint8_t* panel;
  const uint16_t* multipliers;  ///< [blocks][16], or [ceil(blocks / 2)][16][2] where paired.
  const int8_t* zeros;          ///< In the same order; null where all are `zero`.
  int32_t zero;
  int64_t* totals;  ///< [rows][16]
};

constexpr size_t block_rows = 8;

struct BlockwiseKernels {
  void (*multiply)(const BlockCall&);
  /// The greatest magnitude of a row; NaN where it holds a NaN or an infinity.
  float (*greatest)(const float* x, size_t count);
  /// codes[i] = round_half_even(x[i] * inverse), which lies in -127 to 127.
  void (*quantize)(const float* x, size_t count, float inverse, int8_t* codes);
  /// y[i] = float(totals[i]) * (row_scale * scale[i]) + guard
  void (*finish)(const int64_t* totals, size_t count, float row_scale, const float* scale, float guard, float* y);
};

void set_reference(BlockwiseKernels&);
void set_avx2(BlockwiseKernels&);
void set_avx512vnni(BlockwiseKernels&);

}  // namespace qcompiler
