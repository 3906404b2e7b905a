#include "operators/packed_rows.h"

#include "core/error.h"

namespace qcompiler {

void unpack_row(const uint8_t* row, int bits, size_t depth, int8_t* codes) {
  const uint64_t mask = (uint64_t{1} << bits) - 1, sign = uint64_t{1} << (bits - 1);
  for (size_t first = 0; first < depth; first += 8, row += bits) {
    uint64_t word = 0;  // little endian
    for (int index = 0; index < bits; ++index) word |= uint64_t{row[index]} << (8 * index);
    for (size_t index = first; index < first + 8 && index < depth; ++index, word >>= bits) {
      codes[index] = static_cast<int8_t>(static_cast<int32_t>((word & mask) ^ sign) - static_cast<int32_t>(sign));
    }
  }
}

void check_packed_rows(const Tensor& weight, int bits, const Shape& codes) {
  const Shape wanted{codes[0], static_cast<int64_t>(packed_row_bytes(static_cast<size_t>(codes[1]), bits))};
  if (weight.type == ElementType::uint8 && weight.shape == wanted) return;
  throw Error("a weight of " + element_name(weight.type) + " " + weight.shape.text() + " is not the packed form of " +
              std::to_string(bits) + "-bit codes " + codes.text());
}

}  // namespace qcompiler
