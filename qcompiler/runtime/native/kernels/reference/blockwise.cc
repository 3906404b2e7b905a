#include "kernels/blockwise.h"

#include <cmath>
#include <limits>

#include "kernels/lowbit_lane.h"

namespace qcompiler {
namespace {

/// The sum of one block of one column.
int64_t block_sum(const BlockCall& call, const BlockRow& row, size_t block, size_t column) {
  const size_t parts = low_bit_parts(call.bits), vector = low_bit_planes(call.bits) * 64;
  const uint8_t* lane = call.panel + block * call.steps * vector + column * 4;
  const int8_t* codes = row.codes + block * call.steps * parts * 4;
  int64_t sum = row.start[block];
  for (size_t step = 0; step < call.steps; ++step, lane += vector) {
    for (size_t part = 0; part < parts; ++part) {
      for (size_t index = 0; index < 4; ++index) sum += *codes++ * low_bit_weight(call.bits, lane + index, part);
    }
  }
  return sum;
}

void multiply(const BlockCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    for (size_t column = 0; column < block_columns; ++column) {
      int64_t total = 0;
      for (size_t block = 0; block < call.blocks; ++block) {
        const size_t place = call.paired ? (block / 2 * block_columns + column) * 2 + block % 2
                                         : block * block_columns + column;
        const int64_t zero = call.zeros == nullptr ? call.zero : call.zeros[place];
        const int64_t sum = block_sum(call, call.row[row], block, column) - zero * call.row[row].sums[block];
        total += call.multipliers[place] * sum;
      }
      call.totals[row * block_columns + column] = total;
    }
  }
}

float greatest(const float* x, size_t count) {
  float most = 0;
  bool finite = true;
  for (size_t index = 0; index < count; ++index) {
    const float magnitude = std::fabs(x[index]);
    finite = finite && magnitude <= std::numeric_limits<float>::max();
    most = magnitude > most ? magnitude : most;
  }
  return finite ? most : std::numeric_limits<float>::quiet_NaN();
}

void quantize(const float* x, size_t count, float inverse, int8_t* codes) {
  for (size_t index = 0; index < count; ++index) codes[index] = static_cast<int8_t>(std::nearbyint(x[index] * inverse));
}

void finish(const int64_t* totals, size_t count, float row_scale, const float* scale, float guard, float* y) {
  for (size_t index = 0; index < count; ++index) {
    const float factor = row_scale * scale[index];
    const float product = static_cast<float>(totals[index]) * factor;
    y[index] = product + guard;
  }
}

}  // namespace

void set_reference(BlockwiseKernels& kernels) {
  kernels.multiply = multiply;
  kernels.greatest = greatest;
  kernels.quantize = quantize;
  kernels.finish = finish;
}

}  // namespace qcompiler
