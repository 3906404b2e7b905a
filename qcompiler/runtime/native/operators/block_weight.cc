#include "operators/block_weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "operators/gemm_weight.h"
#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

template <typename Parameter>
void order(const BlockWeight& weight, const Parameter* parameters, Parameter* packed) {
  std::fill_n(packed, weight.parameters(), Parameter{0});
  for (size_t output = 0; output < weight.outputs; ++output) {
    Parameter* panel = packed + output / block_columns * weight.panel_parameters();
    for (size_t block = 0; block < weight.blocks(); ++block) {
      panel[weight.parameter_place(block, output % block_columns)] = *parameters++;
    }
  }
}

}  // namespace

void pack_codes(const BlockWeight& weight, const uint8_t* rows, uint8_t* packed) {
  std::memset(packed, 0, weight.code_bytes());
  const size_t row_bytes = packed_row_bytes(weight.depth, weight.bits), step = low_bit_depth(weight.bits);
  std::vector<int8_t> codes((weight.depth + 7) / 8 * 8), filled(weight.block_bytes());
  for (size_t output = 0; output < weight.outputs; ++output) {
    unpack_row(rows + output * row_bytes, weight.bits, weight.depth, codes.data());
    uint8_t* lane = packed + output / block_columns * weight.panel_bytes() + output % block_columns * 4;
    for (size_t first = 0; first < weight.depth; first += weight.block) {
      const size_t count = std::min(weight.block, weight.depth - first);
      std::fill(std::copy_n(codes.data() + first, count, filled.data()), filled.data() + filled.size(), int8_t{0});
      for (size_t place = 0; place < filled.size(); place += step, lane += 64 * low_bit_planes(weight.bits)) {
        write_step(weight.bits, filled.data() + place, lane);
      }
    }
  }
}

void pack_parameters(const BlockWeight& weight, const uint16_t* parameters, uint16_t* packed) {
  order(weight, parameters, packed);
}

void pack_parameters(const BlockWeight& weight, const int8_t* parameters, int8_t* packed) {
  order(weight, parameters, packed);
}

}  // namespace qcompiler
