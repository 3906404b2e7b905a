#include "operators/convolution_weight.h"

#include <cstring>
#include <vector>

namespace qcompiler {
namespace {

/// The codes of one packed row (qcompiler/quant/packing.py): groups of 8 codes in `bits` bytes, little endian.
void unpack_row(const uint8_t* row, int bits, size_t depth, int8_t* codes) {
  const uint32_t mask = (1u << bits) - 1, sign = 1u << (bits - 1);
  for (size_t first = 0; first < depth; first += 8, row += bits) {
    uint32_t word = 0;
    for (int index = 0; index < bits; ++index) word |= uint32_t{row[index]} << (8 * index);
    for (size_t index = first; index < first + 8 && index < depth; ++index, word >>= bits) {
      codes[index] = static_cast<int8_t>(static_cast<int32_t>((word & mask) ^ sign) - static_cast<int32_t>(sign));
    }
  }
}

/// From [channels][taps] to [taps][channels], cut into runs of whole groups; mirrored where `transposed`.
void order_row(const int8_t* codes, const ConvolutionPlan& plan, bool transposed, int8_t* ordered) {
  for (size_t tap = 0; tap < plan.taps; ++tap) {
    const int8_t* source = codes + (transposed ? plan.taps - 1 - tap : tap);
    for (size_t channel = 0; channel < plan.channels; ++channel) {
      const size_t flat = tap * plan.channels + channel;
      ordered[flat / plan.run_bytes * plan.run_groups * 4 + flat % plan.run_bytes] = source[channel * plan.taps];
    }
  }
}

}  // namespace

ConvolutionPlan::ConvolutionPlan(const ConvolutionAttributes& attributes, const Shape& weight)
    : group(static_cast<size_t>(attributes.group)),
      outputs(static_cast<size_t>(weight[0] / attributes.group)),
      channels(static_cast<size_t>(weight[1])),
      taps(static_cast<size_t>(weight.elements(2, weight.rank()))) {
  std::array<size_t, 3> kernel{1, 1, 1};
  for (size_t axis = 2; axis < weight.rank(); ++axis) {
    kernel[3 + axis - weight.rank()] = static_cast<size_t>(weight[axis]);
  }
  const bool neighbours = kernel[2] == 1 || attributes.dilations[2] == 1;
  const size_t rows = kernel[0] * kernel[1];
  pieces = neighbours ? rows : taps;
  piece_bytes = neighbours ? kernel[2] * channels : channels;
  gathered = neighbours ? kernel[0] > 1 && kernel[1] > 1 : rows > 1;
  runs = gathered ? 1 : pieces;
  run_bytes = gathered ? taps * channels : piece_bytes;
  run_groups = (run_bytes + 3) / 4;
}

void weight_row(const ConvolutionAttributes& attributes, const Tensor& weight, size_t output, size_t depth,
                int8_t* codes) {
  const size_t row_bytes = attributes.packed ? (depth + 7) / 8 * static_cast<size_t>(attributes.bits) : depth;
  const uint8_t* row = weight.as<uint8_t>() + output * row_bytes;
  if (attributes.packed) {
    unpack_row(row, attributes.bits, depth, codes);
  } else if (depth > 0) {
    std::memcpy(codes, row, depth);
  }
}

void pack_convolution(const ConvolutionAttributes& attributes, const ConvolutionPlan& plan, const Tensor& weight,
                      void* packed) {
  const size_t depth = plan.taps * plan.channels;
  std::vector<int8_t> codes(depth), ordered(plan.column_bytes());
  int8_t* panels = static_cast<int8_t*>(packed);
  std::memset(panels, 0, plan.sums_place());
  int32_t* sums = reinterpret_cast<int32_t*>(panels + plan.sums_place());
  for (size_t output = 0; output < plan.group * plan.outputs; ++output) {
    weight_row(attributes, weight, output, depth, codes.data());
    int32_t sum = 0;
    for (int8_t code : codes) sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(code));
    sums[output] = sum;
    order_row(codes.data(), plan, attributes.transposed, ordered.data());
    const size_t column = output % plan.outputs, panel = column / ConvolutionPlan::panel_columns;
    int8_t* target = panels + plan.panel_place(output / plan.outputs, panel) + column % ConvolutionPlan::panel_columns * 4;
    for (size_t place = 0; place < ordered.size(); place += 4) {
      std::memcpy(target + place * plan.columns(panel), ordered.data() + place, 4);
    }
  }
}

}  // namespace qcompiler
