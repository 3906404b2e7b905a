#include "kernels/scaled_block.h"

namespace qcompiler {
namespace {

/// The exact sum of a row, a block and a column.
int32_t exact(const ScaledBlockCall& call, size_t row, size_t block, size_t column) {
  const size_t per_byte = 8 / static_cast<size_t>(call.bits), chunks = call.groups / per_byte;
  const int8_t* x = call.row[row] + block * call.groups * 4;
  const uint8_t* codes = call.panel + block * chunks * call.columns * 4;
  int32_t sum = 0;
  for (size_t index = 0; index < call.groups * 4; ++index) {
    const size_t group = index / 4;
    const uint8_t byte = codes[(group / per_byte * call.columns + column) * 4 + index % 4];
    const size_t shift = group % per_byte * static_cast<size_t>(call.bits);
    sum += x[index] * ((byte >> shift) & ((1 << call.bits) - 1));
  }
  const int32_t zero = call.zeros == nullptr ? call.zero : call.zeros[block * call.columns + column];
  return sum - zero * call.row_sums[row][block];
}

void multiply(const ScaledBlockCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    for (size_t column = 0; column < call.columns; ++column) {
      float sum = 0;
      for (size_t block = 0; block < call.blocks; ++block) {
        const float product = static_cast<float>(exact(call, row, block, column)) * call.scales[block * call.columns + column];
        sum += product * call.row_scales[row][block];
      }
      call.sums[row * call.columns + column] = sum;
    }
  }
}

}  // namespace

void set_reference(ScaledBlockKernels& kernels) {
  kernels.rows = 4;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
