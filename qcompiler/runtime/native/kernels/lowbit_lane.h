// One weight of a packed lane (lowbit.h), for kernels without vectors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// The unsigned weight of a part, from the byte of a lane in every plane.
inline int32_t low_bit_weight(int bits, const uint8_t* lane, size_t part) {
  if (bits != 3) return (lane[0] >> (part * static_cast<size_t>(bits))) & ((1 << bits) - 1);
  const int32_t last = lane[128];
  switch (part) {
    case 2: return (lane[0] >> 6) | (last >> 6 & 1) << 2;
    case 5: return (lane[64] >> 6) | (last >> 7) << 2;
    case 0: case 1: return lane[0] >> (3 * part) & 7;
    case 3: case 4: return lane[64] >> (3 * (part - 3)) & 7;
    default: return last >> (3 * (part - 6)) & 7;
  }
}

}  // namespace qcompiler
