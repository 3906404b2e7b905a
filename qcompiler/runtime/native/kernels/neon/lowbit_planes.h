// Packed weights brought to their place, 16 at a time. Every instruction set of aarch64 compiles its own copy.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "kernels/lowbit.h"

namespace qcompiler {
namespace {

/// Bytes of 4 columns, and the weights of a part of them.
template <int Bits>
struct Planes;

template <>
struct Planes<4> {
  explicit Planes(const uint8_t* lanes) : bytes(vld1q_u8(lanes)) {}
  uint8x16_t part(size_t index) const {
    return index == 0 ? vandq_u8(bytes, vdupq_n_u8(15)) : vshrq_n_u8(bytes, 4);
  }
  uint8x16_t bytes;
};

template <>
struct Planes<2> {
  explicit Planes(const uint8_t* lanes) : bytes(vld1q_u8(lanes)) {}
  uint8x16_t part(size_t index) const {
    return vandq_u8(vshlq_u8(bytes, vdupq_n_s8(static_cast<int8_t>(-2 * static_cast<int>(index)))), vdupq_n_u8(3));
  }
  uint8x16_t bytes;
};

template <>
struct Planes<3> {
  explicit Planes(const uint8_t* lanes)
      : first(vld1q_u8(lanes)), second(vld1q_u8(lanes + 64)), third(vld1q_u8(lanes + 128)) {}

  uint8x16_t part(size_t index) const {
    const uint8x16_t low = vdupq_n_u8(7), top = vdupq_n_u8(4);
    switch (index) {
      case 0: return vandq_u8(first, low);
      case 1: return vandq_u8(vshrq_n_u8(first, 3), low);
      case 2: return vorrq_u8(vshrq_n_u8(first, 6), vandq_u8(vshrq_n_u8(third, 4), top));
      case 3: return vandq_u8(second, low);
      case 4: return vandq_u8(vshrq_n_u8(second, 3), low);
      case 5: return vorrq_u8(vshrq_n_u8(second, 6), vandq_u8(vshrq_n_u8(third, 5), top));
      case 6: return vandq_u8(third, low);
      default: return vandq_u8(vshrq_n_u8(third, 3), low);
    }
  }

  uint8x16_t first, second, third;
};

/// Four codes in every lane.
int8x16_t repeated(const int8_t* codes) {
  int32_t four;
  std::memcpy(&four, codes, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

}  // namespace
}  // namespace qcompiler
