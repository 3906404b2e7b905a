#include "kernels/bytes.h"

namespace qcompiler {
namespace {

void flip_bytes(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target) {
  for (size_t index = 0; index < count; ++index) target[index] = source[index] ^ flip;
}

void turn(const uint8_t* source, size_t rows, size_t columns, size_t begin, size_t end, uint8_t* target) {
  for (size_t column = begin; column < end; ++column) {
    for (size_t row = 0; row < rows; ++row) target[column * rows + row] = source[row * columns + column];
  }
}

/// The unsigned code of one part, from the bytes of up to three planes.
unsigned code_of(const uint8_t* planes, int bits, size_t part) {
  if (bits == 4) return planes[0] >> (4 * part) & 15;
  if (bits == 2) return planes[0] >> (2 * part) & 3;
  const unsigned first = planes[0], second = planes[64], third = planes[128];
  switch (part) {
    case 0: return first & 7;
    case 1: return first >> 3 & 7;
    case 2: return first >> 6 | (third >> 6 & 1) << 2;
    case 3: return second & 7;
    case 4: return second >> 3 & 7;
    case 5: return second >> 6 | (third >> 7) << 2;
    case 6: return third & 7;
    default: return third >> 3 & 7;
  }
}

void expand(const uint8_t* packed, int bits, size_t blocks, int8_t* codes) {
  const size_t parts = low_bit_parts(bits), planes = low_bit_planes(bits);
  for (size_t block = 0; block < blocks; ++block, packed += 64 * planes, codes += 64 * parts) {
    for (size_t part = 0; part < parts; ++part) {
      for (size_t index = 0; index < 64; ++index) {
        const int code = static_cast<int>(code_of(packed + index, bits, part)) - (1 << (bits - 1));
        codes[64 * part + index] = static_cast<int8_t>(code);
      }
    }
  }
}

void split(const int16_t* codes, size_t count, uint8_t flip, uint8_t* high, uint8_t* low) {
  for (size_t index = 0; index < count; ++index) {
    const uint16_t bits = static_cast<uint16_t>(codes[index]);
    high[index] = static_cast<uint8_t>(static_cast<uint8_t>(bits >> 8) ^ flip);
    low[index] = static_cast<uint8_t>(static_cast<uint8_t>(bits) ^ flip ^ 0x80);
  }
}

void join(const int32_t* high, const int32_t* low, size_t count, int64_t* sums) {
  for (size_t index = 0; index < count; ++index) sums[index] = int64_t{high[index]} * 256 + low[index];
}

}  // namespace

void set_reference(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.turn = turn;
  kernels.expand = expand;
  kernels.split = split;
  kernels.join = join;
}

}  // namespace qcompiler
