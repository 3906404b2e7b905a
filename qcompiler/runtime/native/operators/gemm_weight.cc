#include "operators/gemm_weight.h"

#include <cstring>
#include <vector>

#include "kernels/lowbit.h"
#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

/// The byte of a lane in every plane, from the unsigned weights of its parts.
void join(int bits, const uint8_t* u, uint8_t* lane) {
  if (bits == 4) {
    lane[0] = static_cast<uint8_t>(u[0] | u[1] << 4);
  } else if (bits == 2) {
    lane[0] = static_cast<uint8_t>(u[0] | u[1] << 2 | u[2] << 4 | u[3] << 6);
  } else if (bits == 8) {
    lane[0] = u[0];
  } else {
    lane[0] = static_cast<uint8_t>(u[0] | u[1] << 3 | (u[2] & 3) << 6);
    lane[64] = static_cast<uint8_t>(u[3] | u[4] << 3 | (u[5] & 3) << 6);
    lane[128] = static_cast<uint8_t>(u[6] | u[7] << 3 | u[2] >> 2 << 6 | u[5] >> 2 << 7);
  }
}

}  // namespace

void write_step(int bits, const int8_t* codes, uint8_t* lane) {
  const size_t parts = low_bit_parts(bits);
  for (size_t index = 0; index < 4; ++index) {
    uint8_t unsigned_codes[8];
    for (size_t part = 0; part < parts; ++part) {
      unsigned_codes[part] = static_cast<uint8_t>(codes[4 * part + index] + (1 << (bits - 1)));
    }
    join(bits, unsigned_codes, lane + index);
  }
}

GemmWeight::GemmWeight(size_t depth, size_t outputs, int bits)
    : depth(depth), outputs(outputs), bits(depth > low_bit_deepest ? 8 : bits) {}

size_t GemmWeight::step() const { return low_bit() ? low_bit_depth(bits) : 4; }

size_t GemmWeight::vector_bytes() const { return low_bit() ? 64 * low_bit_planes(bits) : 64; }

void GemmWeight::write(size_t output, const int8_t* codes, uint8_t* packed) const {
  int32_t sum = 0;
  for (size_t index = 0; index < depth; ++index) {
    sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(int32_t{codes[index]}));
  }
  std::memcpy(packed + sums_place() + output * sizeof sum, &sum, sizeof sum);
  const size_t panel = output / panel_columns(), column = output % panel_columns();
  const size_t stride = columns(panel) / 16 * vector_bytes();
  uint8_t* lane = packed + panel_place(panel) + column / 16 * vector_bytes() + column % 16 * 4;
  for (size_t first = 0; first < row_bytes(); first += step(), lane += stride) {
    if (low_bit()) {
      write_step(bits, codes + first, lane);
    } else {
      std::memcpy(lane, codes + first, 4);
    }
  }
}

void pack_columns(const GemmWeight& weight, const int8_t* codes, uint8_t* packed) {
  constexpr size_t many = 64;  // outputs that are gathered at once: a line of the cache holds them
  std::memset(packed, 0, weight.sums_place());
  const size_t row = weight.row_bytes();
  std::vector<int8_t> turned(many * row);
  for (size_t first = 0; first < weight.outputs; first += many) {
    const size_t count = weight.outputs - first < many ? weight.outputs - first : many;
    for (size_t depth = 0; depth < weight.depth; ++depth) {
      const int8_t* source = codes + depth * weight.outputs + first;
      for (size_t index = 0; index < count; ++index) turned[index * row + depth] = source[index];
    }
    for (size_t index = 0; index < count; ++index) weight.write(first + index, turned.data() + index * row, packed);
  }
}

void pack_rows(const GemmWeight& weight, const uint8_t* rows, int bits, uint8_t* packed) {
  std::memset(packed, 0, weight.sums_place());
  std::vector<int8_t> codes(weight.row_bytes());
  for (size_t output = 0; output < weight.outputs; ++output) {
    unpack_row(rows + output * packed_row_bytes(weight.depth, bits), bits, weight.depth, codes.data());
    weight.write(output, codes.data(), packed);
  }
}

}  // namespace qcompiler
