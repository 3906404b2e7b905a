// Moving bytes: copies that flip bits, transposes, and weights of few bits back to bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lowbit.h"

namespace qcompiler {

struct ByteKernels {
  /// target[i] = source[i] ^ flip
  void (*flip)(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target);
  /// target[c * rows + r] = source[r * columns + c]: a transpose of a matrix of bytes. `begin` to `end` are the columns
  /// that are written.
  void (*turn)(const uint8_t* source, size_t rows, size_t columns, size_t begin, size_t end, uint8_t* target);
  /// Blocks of low_bit_parts(bits) * 64 codes from low_bit_planes(bits) * 64 bytes: byte j of a block holds the codes
  /// j, 64 + j, 128 + j and so on, as unsigned numbers code + 2^(bits - 1), in the bits that kernels/lowbit.h names.
  void (*expand)(const uint8_t* packed, int bits, size_t blocks, int8_t* codes);
  /// Codes of 16 bits as two planes: high[i] = (codes[i] >> 8) ^ flip, low[i] = (codes[i] & 255) ^ flip ^ 0x80.
  void (*split)(const int16_t* codes, size_t count, uint8_t flip, uint8_t* high, uint8_t* low);
  /// sums[i] = 256 * high[i] + low[i]
  void (*join)(const int32_t* high, const int32_t* low, size_t count, int64_t* sums);
};

void set_reference(ByteKernels&);
void set_avx2(ByteKernels&);
void set_avx512vnni(ByteKernels&);

}  // namespace qcompiler
