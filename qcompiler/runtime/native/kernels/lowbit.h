// Rows of 8-bit activations times weights of 4, 3 or 2 bits that stay packed.
//
// Weights are unsigned, u = code + 2^(bits - 1), activations signed: products are exact in vpdpbusd, and in vpmaddubsw
// as well, because u <= 15. What u is too large leaves with the sum of a row's activations.
//
// A vector holds lanes of 4 bytes for 16 columns. A step of a column is `parts` times 4 consecutive depths; byte j of
// the lane holds the weights of depth 4 * part + j for every part:
//   4 bits   u0 | u1 << 4
//   2 bits   u0 | u1 << 2 | u2 << 4 | u3 << 6
//   3 bits   three vectors: u0 | u1 << 3 | (u2 & 3) << 6,  u3 | u4 << 3 | (u5 & 3) << 6,
//            u6 | u7 << 3 | (u2 >> 2) << 6 | (u5 >> 2) << 7
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

static constexpr size_t low_bit_parts(int bits) { return bits == 8 ? 1 : bits == 4 ? 2 : bits == 2 ? 4 : 8; }
static constexpr size_t low_bit_planes(int bits) { return bits == 3 ? 3 : 1; }
/// Depths of a step.
static constexpr size_t low_bit_depth(int bits) { return 4 * low_bit_parts(bits); }
constexpr size_t low_bit_columns = 32;  ///< Of a panel; the last one may have 16.
constexpr size_t low_bit_rows = 8;      ///< Most rows of one call.
/// Depths up to which sums scaled by 16 or 64 fit 32 bits.
constexpr size_t low_bit_deepest = size_t{1} << 16;

/// sums[r][n] = start[r] + sum over k of row[r][k] * u[k][n]
struct LowBitCall {
  int bits;
  const int8_t* const* row;  ///< Filled up with zeros to whole steps.
  const int32_t* start;
  size_t rows;
  size_t steps;
  const uint8_t* panel;  ///< [steps][columns / 16][planes][16][4]
  size_t columns;        ///< 16 or 32
  int32_t* sums;         ///< [rows][columns]
};

/// Weights as signed bytes of a panel kernel: target[step * parts + part][column] are 4 codes.
struct LowBitExpand {
  int bits;
  size_t steps;
  const uint8_t* panel;
  size_t columns;  ///< Of the panel.
  int8_t* target;
  size_t target_columns;  ///< Of the panel that is written, which may hold others beside.
};

struct LowBitKernels {
  /// From how many rows on it is faster to expand weights than to multiply them as they are; 0 for never.
  size_t expand_rows;
  void (*expand)(const LowBitExpand&);  ///< Null where that is never.
  void (*multiply)(const LowBitCall&);
  /// Sum of so many codes.
  int32_t (*sum)(const int8_t* codes, size_t count);
};

void set_reference(LowBitKernels&);
void set_avx2(LowBitKernels&);
void set_avx512vnni(LowBitKernels&);
void set_neon(LowBitKernels&);
void set_dotprod(LowBitKernels&);

}  // namespace qcompiler
