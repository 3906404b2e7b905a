#include "operators/packed_rows.h"

#include <cstring>

#include "core/error.h"

namespace qcompiler {

namespace {

constexpr uint64_t every_byte = 0x0101010101010101;

/// A number that repeats the lowest `width` bits of 64 in every `period` bits.
constexpr uint64_t repeated(int width, int period) {
  uint64_t made = 0;
  for (int place = 0; place < 64; place += period) made |= ((uint64_t{1} << width) - 1) << place;
  return made;
}

/// Eight codes of `bits` bits, side by side, as eight bytes: halves move apart, then quarters, then the codes.
template <int bits>
uint64_t spread(uint64_t word) {
  word = (word | word << (32 - 4 * bits)) & repeated(4 * bits, 32);
  word = (word | word << (16 - 2 * bits)) & repeated(2 * bits, 16);
  word = (word | word << (8 - bits)) & repeated(bits, 8);
  const uint64_t sign = every_byte << (bits - 1), top = every_byte << 7;
  return (((word ^ sign) | top) - sign) ^ top;  // no byte borrows from the next
}

template <int bits>
uint64_t eight_codes(const uint8_t* group) {
  uint64_t word = 0;  // little endian
  for (int index = 0; index < bits; ++index) word |= uint64_t{group[index]} << (8 * index);
  return spread<bits>(word);
}

template <int bits>
void unpack(const uint8_t* row, size_t depth, int8_t* codes) {
  const size_t whole = depth / 8 * 8;
  for (size_t first = 0; first < whole; first += 8, row += bits) {
    const uint64_t word = eight_codes<bits>(row);
    for (int index = 0; index < 8; ++index) codes[first + index] = static_cast<int8_t>(word >> (8 * index));
  }
  if (whole == depth) return;
  uint64_t word = eight_codes<bits>(row);
  for (size_t index = whole; index < depth; ++index, word >>= 8) codes[index] = static_cast<int8_t>(word);
}

}  // namespace

void unpack_row(const uint8_t* row, int bits, size_t depth, int8_t* codes) {
  if (bits == 8) std::memcpy(codes, row, depth);
  if (bits == 4) unpack<4>(row, depth, codes);
  if (bits == 3) unpack<3>(row, depth, codes);
  if (bits == 2) unpack<2>(row, depth, codes);
}

void check_packed_rows(const Tensor& weight, int bits, const Shape& codes) {
  const Shape wanted{codes[0], static_cast<int64_t>(packed_row_bytes(static_cast<size_t>(codes[1]), bits))};
  if (weight.type == ElementType::uint8 && weight.shape == wanted) return;
  throw Error("a weight of " + element_name(weight.type) + " " + weight.shape.text() + " is not the packed form of " +
              std::to_string(bits) + "-bit codes " + codes.text());
}

}  // namespace qcompiler
