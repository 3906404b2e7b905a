// Packed weights (kernels/lowbit.h) shifted to their place in registers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace qcompiler {
namespace {

inline __m512i broadcast(const int8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm512_set1_epi32(four);
}

/// Bits of every byte, from `shift` on, that `mask` leaves.
inline __m512i bits_of(__m512i bytes, int shift, char mask) {
  return _mm512_and_si512(_mm512_srli_epi16(bytes, static_cast<unsigned>(shift)), _mm512_set1_epi8(mask));
}

/// The lanes of 16 columns, one vector of unsigned weights per part.
template <int Bits>
void decode(const uint8_t* lanes, __m512i* parts);

template <>
inline void decode<8>(const uint8_t* lanes, __m512i* parts) {
  parts[0] = _mm512_loadu_si512(lanes);
}

template <>
inline void decode<4>(const uint8_t* lanes, __m512i* parts) {
  const __m512i both = _mm512_loadu_si512(lanes);
  parts[0] = bits_of(both, 0, 15);
  parts[1] = bits_of(both, 4, 15);
}

template <>
inline void decode<2>(const uint8_t* lanes, __m512i* parts) {
  const __m512i four = _mm512_loadu_si512(lanes);
  parts[0] = bits_of(four, 0, 3);
  parts[1] = bits_of(four, 2, 3);
  parts[2] = bits_of(four, 4, 3);
  parts[3] = bits_of(four, 6, 3);
}

template <>
inline void decode<3>(const uint8_t* lanes, __m512i* parts) {
  const __m512i first = _mm512_loadu_si512(lanes), second = _mm512_loadu_si512(lanes + 64);
  const __m512i third = _mm512_loadu_si512(lanes + 128);
  parts[0] = bits_of(first, 0, 7);
  parts[1] = bits_of(first, 3, 7);
  parts[2] = _mm512_or_si512(bits_of(first, 6, 3), bits_of(third, 4, 4));
  parts[3] = bits_of(second, 0, 7);
  parts[4] = bits_of(second, 3, 7);
  parts[5] = _mm512_or_si512(bits_of(second, 6, 3), bits_of(third, 5, 4));
  parts[6] = bits_of(third, 0, 7);
  parts[7] = bits_of(third, 3, 7);
}

}  // namespace
}  // namespace qcompiler
