#include "kernels/lowbit.h"

#include "kernels/lowbit_lane.h"

namespace qcompiler {
namespace {

int32_t one_sum(const LowBitCall& call, const int8_t* codes, size_t column) {
  const size_t parts = low_bit_parts(call.bits), vector = low_bit_planes(call.bits) * 64;
  const uint8_t* lane = call.panel + column / 16 * vector + column % 16 * 4;
  uint32_t sum = 0;
  for (size_t step = 0; step < call.steps; ++step, lane += call.columns / 16 * vector) {
    for (size_t part = 0; part < parts; ++part) {
      for (size_t index = 0; index < 4; ++index) {
        sum += static_cast<uint32_t>(*codes++ * low_bit_weight(call.bits, lane + index, part));
      }
    }
  }
  return static_cast<int32_t>(sum);
}

void multiply(const LowBitCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    for (size_t column = 0; column < call.columns; ++column) {
      const uint32_t sum = static_cast<uint32_t>(one_sum(call, call.row[row], column));
      call.sums[row * call.columns + column] = static_cast<int32_t>(sum + static_cast<uint32_t>(call.start[row]));
    }
  }
}

int32_t sum(const int8_t* codes, size_t count) {
  uint32_t total = 0;
  for (size_t index = 0; index < count; ++index) total += static_cast<uint32_t>(int32_t{codes[index]});
  return static_cast<int32_t>(total);
}

}  // namespace

void set_reference(LowBitKernels& kernels) {
  kernels.expand_rows = 0;
  kernels.expand = nullptr;
  kernels.multiply = multiply;
  kernels.sum = sum;
}

}  // namespace qcompiler
