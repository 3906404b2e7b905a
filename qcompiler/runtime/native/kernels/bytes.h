// Moving bytes: copies that flip bits, and transposes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

struct ByteKernels {
  /// target[i] = source[i] ^ flip
  void (*flip)(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target);
  /// target[c * rows + r] = source[r * columns + c]: a transpose of a matrix of bytes. `begin` to `end` are the columns
  /// that are written.
  void (*turn)(const uint8_t* source, size_t rows, size_t columns, size_t begin, size_t end, uint8_t* target);
};

void set_reference(ByteKernels&);
void set_avx2(ByteKernels&);
void set_avx512vnni(ByteKernels&);

}  // namespace qcompiler
