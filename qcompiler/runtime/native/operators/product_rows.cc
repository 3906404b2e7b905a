#include <cstring>

#include "operators/matrix_product.h"

namespace qcompiler {
namespace {

constexpr size_t thread_work = size_t{1} << 16;  // bytes that are worth a thread

void write_row(const ByteKernels& kernels, const uint8_t* codes, size_t depth, size_t row_bytes, uint8_t flip,
               uint8_t* row) {
  kernels.flip(codes, depth, flip, row);
  std::memset(row + depth, 0, row_bytes - depth);
}

void write_planes(const int16_t* codes, size_t depth, size_t row_bytes, uint8_t flip, uint8_t* high, uint8_t* low) {
  const uint8_t low_flip = flip ^ 0x80;
  for (size_t index = 0; index < depth; ++index) {
    const uint32_t code = static_cast<uint32_t>(codes[index]);
    high[index] = static_cast<uint8_t>((code >> 8) ^ flip);
    low[index] = static_cast<uint8_t>(code ^ low_flip);
  }
  std::memset(high + depth, 0, row_bytes - depth);
  std::memset(low + depth, 0, row_bytes - depth);
}

}  // namespace

ProductRows::ProductRows(const Kernels& kernels, const void* codes, bool wide, size_t count, size_t depth,
                         size_t row_bytes, uint8_t flip, const Threads& threads)
    : count_(count), row_bytes_(row_bytes), wide_(wide), bytes_(count * row_bytes * (wide ? 2 : 1)) {
  uint8_t* bytes = bytes_.as<uint8_t>();
  threads.ranges(count, thread_work / (row_bytes + 1) + 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      uint8_t* row = bytes + index * row_bytes;
      if (wide) {
        write_planes(static_cast<const int16_t*>(codes) + index * depth, depth, row_bytes, flip, row,
                     row + count * row_bytes);
      } else {
        write_row(kernels.bytes, static_cast<const uint8_t*>(codes) + index * depth, depth, row_bytes, flip, row);
      }
    }
  });
}

}  // namespace qcompiler
