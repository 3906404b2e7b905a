// Rows of 8-bit activations times a panel of 8-bit weights: the inner part of every matrix product and convolution.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// One call of a panel kernel.
///
/// Every row's operand is `runs` pieces of `4 * groups` bytes, the first at `row[r]`, the others `run_stride` bytes
/// apart (a convolution has one run per kernel row, a matrix product one). Activations lie in memory as code ^ flip.
/// sums[r][n] = sum over runs j, groups g, bytes i of operand(r, j, 4 g + i) * panel[j][g][n][i],
/// where operand is the byte as unsigned number where flip is 0x80 (so it is code + 128), as signed where flip is 0.
/// The caller takes 128 * sum of weights off the bias where flip is 0x80. Sums wrap in 32 bits.
struct PanelCall {
  const uint8_t* const* row;
  size_t rows;  ///< 1 to PanelKernels::rows.
  size_t runs, groups;
  ptrdiff_t run_stride;
  const int8_t* panel;  ///< [runs][groups][columns][4]
  size_t columns;       ///< 16, 32, 48 or 64; a matrix is cut into panels and filled up with zeros.
  int32_t* sums;        ///< [rows][columns], overwritten.
  const int8_t* ahead = nullptr;  ///< Where 64 bytes per group of every run lie that will be read next, or null.
  bool add = false;               ///< Adds to the sums instead.
};

/// A panel of a matrix whose rows are depths: panel[g][n][i] = source[(4 g + i) * stride + n], and its columns' sums.
struct PanelFill {
  const int8_t* source;
  size_t stride;
  size_t depth, width;  ///< Rows and columns that there are; the panel is filled up with zeros.
  size_t columns;       ///< Of the panel: 16, 32, 48 or 64.
  int8_t* panel;        ///< [ceil(depth / 4)][columns][4]
  int32_t* sums;        ///< [columns]; wrap in 32 bits.
};

struct PanelKernels {
  size_t rows;       ///< Most rows of one call.
  uint8_t flip;      ///< 0x80 or 0.
  void (*multiply)(const PanelCall&);
  void (*fill)(const PanelFill&);
};

void set_reference(PanelKernels&);
void set_avx2(PanelKernels&);
void set_avx512vnni(PanelKernels&);
void set_neon(PanelKernels&);
void set_dotprod(PanelKernels&);

}  // namespace qcompiler
