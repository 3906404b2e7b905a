#include "kernels/panel.h"

namespace qcompiler {
namespace {

int32_t one_sum(const PanelCall& call, size_t row, size_t column) {
  uint32_t sum = 0;
  for (size_t run = 0; run < call.runs; ++run) {
    const uint8_t* operand = call.row[row] + static_cast<ptrdiff_t>(run) * call.run_stride;
    const int8_t* weights = call.panel + (run * call.groups * call.columns + column) * 4;
    for (size_t group = 0; group < call.groups; ++group, operand += 4, weights += 4 * call.columns) {
      for (size_t index = 0; index < 4; ++index) {
        sum += static_cast<uint32_t>(int32_t{operand[index]} * int32_t{weights[index]});
      }
    }
  }
  return static_cast<int32_t>(sum);
}

void multiply(const PanelCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    for (size_t column = 0; column < call.columns; ++column) {
      int32_t& sum = call.sums[row * call.columns + column];
      const uint32_t before = call.add ? static_cast<uint32_t>(sum) : 0;
      sum = static_cast<int32_t>(before + static_cast<uint32_t>(one_sum(call, row, column)));
    }
  }
}

void fill(const PanelFill& call) {
  const size_t groups = (call.depth + 3) / 4;
  for (size_t column = 0; column < call.columns; ++column) {
    uint32_t sum = 0;
    for (size_t depth = 0; depth < 4 * groups; ++depth) {
      const bool there = depth < call.depth && column < call.width;
      const int8_t code = there ? call.source[depth * call.stride + column] : int8_t{0};
      call.panel[(depth / 4 * call.columns + column) * 4 + depth % 4] = code;
      sum += static_cast<uint32_t>(int32_t{code});
    }
    call.sums[column] = static_cast<int32_t>(sum);
  }
}

}  // namespace

void set_reference(PanelKernels& kernels) {
  kernels.rows = 4;
  kernels.flip = 0x80;
  kernels.multiply = multiply;
  kernels.fill = fill;
}

}  // namespace qcompiler
