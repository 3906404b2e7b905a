// Packed weights (kernels/lowbit.h) shifted to their place in registers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/lowbit.h"

namespace qcompiler {
namespace {

inline __m512i broadcast(const int8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm512_set1_epi32(four);
}

/// A product added to its sum. The empty statement keeps the compiler from holding sums of two rounds at once.
inline __attribute__((always_inline)) __m512i dot(__m512i sum, __m512i u, __m512i a) {
  sum = _mm512_dpbusd_epi32(sum, u, a);
  asm("" : "+v"(sum));
  return sum;
}

/// Bits of every byte, from `Shift` on, that `mask` leaves.
template <size_t Shift>
inline __m512i bits_of(__m512i bytes, char mask) {
  if constexpr (Shift > 0) bytes = _mm512_srli_epi16(bytes, Shift);
  return _mm512_and_si512(bytes, _mm512_set1_epi8(mask));
}

/// The planes of 16 columns.
template <int Bits>
struct Planes {
  static constexpr size_t count = low_bit_planes(Bits);
  __m512i plane[count];

  explicit Planes(const uint8_t* lanes) {
#pragma GCC unroll 3
    for (size_t index = 0; index < count; ++index) plane[index] = _mm512_loadu_si512(lanes + 64 * index);
  }

  /// Unsigned weights of a part.
  template <size_t Part>
  __attribute__((always_inline)) __m512i part() const {
    if constexpr (Bits == 8) return plane[0];
    if constexpr (Bits == 4 || Bits == 2) return bits_of<Bits * Part>(plane[0], (1 << Bits) - 1);
    if constexpr (Bits == 3) {
      if constexpr (Part == 2) return _mm512_or_si512(bits_of<6>(plane[0], 3), bits_of<4>(plane[2], 4));
      if constexpr (Part == 5) return _mm512_or_si512(bits_of<6>(plane[1], 3), bits_of<5>(plane[2], 4));
      return bits_of<3 * (Part % 3)>(plane[Part / 3], 7);
    }
  }
};

}  // namespace
}  // namespace qcompiler
