#include "operators/convolution_weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

/// From [channels][taps] to [taps][channels], cut into runs of whole groups; mirrored where `transposed`.
void order_row(const int8_t* codes, const ConvolutionPlan& plan, bool transposed, int8_t* ordered) {
  const size_t run_taps = plan.taps / plan.runs;
  for (size_t tap = 0; tap < plan.taps; ++tap) {
    const int8_t* source = codes + (transposed ? plan.taps - 1 - tap : tap);
    int8_t* target = ordered + tap / run_taps * plan.run_groups * 4 + tap % run_taps * plan.channels;
    for (size_t channel = 0; channel < plan.channels; ++channel) target[channel] = source[channel * plan.taps];
  }
}

int32_t sum_of(const std::vector<int8_t>& codes) {
  uint32_t sum = 0;
  for (int8_t code : codes) sum += static_cast<uint32_t>(int32_t{code});
  return static_cast<int32_t>(sum);
}

/// The bytes of a block of few bits that hold the codes of one place: unsigned numbers, one per part.
void join(int bits, const uint8_t* u, uint8_t* kept) {
  if (bits == 4) {
    kept[0] = static_cast<uint8_t>(u[0] | u[1] << 4);
  } else if (bits == 2) {
    kept[0] = static_cast<uint8_t>(u[0] | u[1] << 2 | u[2] << 4 | u[3] << 6);
  } else {
    kept[0] = static_cast<uint8_t>(u[0] | u[1] << 3 | (u[2] & 3) << 6);
    kept[64] = static_cast<uint8_t>(u[3] | u[4] << 3 | (u[5] & 3) << 6);
    kept[128] = static_cast<uint8_t>(u[6] | u[7] << 3 | u[2] >> 2 << 6 | u[5] >> 2 << 7);
  }
}

/// Writes a panel of bytes as it is kept.
void keep(const ConvolutionPlan& plan, const int8_t* panel, size_t columns, uint8_t* kept) {
  if (plan.bits == 8) {
    std::memcpy(kept, panel, plan.kept_bytes(columns));
    return;
  }
  const size_t parts = low_bit_parts(plan.bits);
  for (size_t block = 0; block < plan.blocks(columns); ++block) {
    for (size_t place = 0; place < 64; ++place) {
      uint8_t u[8];
      for (size_t part = 0; part < parts; ++part) {
        u[part] = static_cast<uint8_t>(panel[(block * parts + part) * 64 + place] + (1 << (plan.bits - 1)));
      }
      join(plan.bits, u, kept + block * low_bit_planes(plan.bits) * 64 + place);
    }
  }
}

}  // namespace

ConvolutionPlan::ConvolutionPlan(const ConvolutionAttributes& attributes, const Shape& weight)
    : group(static_cast<size_t>(attributes.group)),
      outputs(static_cast<size_t>(weight[0] / attributes.group)),
      channels(static_cast<size_t>(weight[1])),
      taps(static_cast<size_t>(weight.elements(2, weight.rank()))),
      bits(attributes.bits) {
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
  if (attributes.packed) {
    unpack_row(weight.as<uint8_t>() + output * packed_row_bytes(depth, attributes.bits), attributes.bits, depth, codes);
  } else if (depth > 0) {
    std::memcpy(codes, weight.as<int8_t>() + output * depth, depth);
  }
}

void pack_convolution(const ConvolutionAttributes& attributes, const ConvolutionPlan& plan, const Tensor& weight,
                      void* packed) {
  const size_t depth = plan.taps * plan.channels;
  std::vector<int8_t> codes(depth), ordered(plan.column_bytes());
  std::vector<int8_t> panel(plan.panel_bytes(ConvolutionPlan::panel_columns));
  uint8_t* kept = static_cast<uint8_t*>(packed);
  int32_t* sums = reinterpret_cast<int32_t*>(kept + plan.sums_place());
  for (size_t index = 0; index < plan.group * plan.panels(); ++index) {
    const size_t place = index % plan.panels(), columns = plan.columns(place);
    const size_t first = place * ConvolutionPlan::panel_columns;
    const size_t count = std::min(ConvolutionPlan::panel_columns, plan.outputs - first);
    std::fill(panel.begin(), panel.end(), int8_t{0});
    for (size_t column = 0; column < count; ++column) {
      const size_t output = index / plan.panels() * plan.outputs + first + column;
      weight_row(attributes, weight, output, depth, codes.data());
      sums[output] = sum_of(codes);
      order_row(codes.data(), plan, attributes.transposed, ordered.data());
      for (size_t step = 0; step < ordered.size(); step += 4) {
        std::memcpy(panel.data() + (step / 4 * columns + column) * 4, ordered.data() + step, 4);
      }
    }
    keep(plan, panel.data(), columns, kept + plan.panel_place(index / plan.panels(), place));
  }
}

}  // namespace qcompiler
