// Packed weights (kernels/lowbit.h) of 8 columns times signed activations by vpmaddubsw: u <= 15, so that sums of
// several products of two fit 16 bits. Weights of 8 bits are widened to 16 first.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/lowbit.h"

namespace qcompiler {
namespace {

inline __m256i broadcast(const int8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm256_set1_epi32(four);
}

/// Bits of every byte, from `Shift` on, that `mask` leaves.
template <size_t Shift>
inline __m256i bits_of(__m256i bytes, char mask) {
  if constexpr (Shift > 0) bytes = _mm256_srli_epi16(bytes, Shift);
  return _mm256_and_si256(bytes, _mm256_set1_epi8(mask));
}

/// The planes of 8 columns; they lie 64 bytes apart.
template <int Bits>
struct Planes {
  __m256i plane[low_bit_planes(Bits)];

  explicit Planes(const uint8_t* lanes) {
    for (size_t index = 0; index < low_bit_planes(Bits); ++index) {
      plane[index] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes + 64 * index));
    }
  }

  /// Unsigned weights of a part.
  template <size_t Part>
  __attribute__((always_inline)) __m256i part() const {
    if constexpr (Bits != 3) {
      return bits_of<Bits * Part>(plane[0], (1 << Bits) - 1);
    } else {
      if constexpr (Part == 2) return _mm256_or_si256(bits_of<6>(plane[0], 3), bits_of<4>(plane[2], 4));
      if constexpr (Part == 5) return _mm256_or_si256(bits_of<6>(plane[1], 3), bits_of<5>(plane[2], 4));
      return bits_of<3 * (Part % 3)>(plane[Part / 3], 7);
    }
  }
};

/// Adds a step of all parts from `Part` on, in 16 bits.
template <int Bits, size_t Rows, size_t Part>
inline __attribute__((always_inline)) void add_parts(const Planes<Bits>& w, const int8_t* const* row, size_t offset,
                                                     __m256i* words) {
  if constexpr (Part < low_bit_parts(Bits)) {
    const __m256i u = w.template part<Part>();
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) {
      words[index] =
          _mm256_add_epi16(words[index], _mm256_maddubs_epi16(u, broadcast(row[index] + offset + 4 * Part)));
    }
    add_parts<Bits, Rows, Part + 1>(w, row, offset, words);
  }
}

/// Steps whose sums fit 16 bits: parts * 2 * (2^bits - 1) * 128 each.
template <int Bits>
constexpr size_t word_steps = 32767 / (low_bit_parts(Bits) * 2 * ((1 << Bits) - 1) * 128);

/// Adds so many steps to the sums of 8 columns; steps lie `stride` bytes apart.
template <int Bits, size_t Rows>
inline __attribute__((always_inline)) void add_steps(const uint8_t* lanes, size_t stride, const int8_t* const* row,
                                                     size_t steps, __m256i* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t first = 0; first < steps; first += word_steps<Bits>) {
    const size_t end = first + word_steps<Bits> < steps ? first + word_steps<Bits> : steps;
    __m256i words[Rows];
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) words[index] = _mm256_setzero_si256();
    for (size_t step = first; step < end; ++step, lanes += stride) {
      add_parts<Bits, Rows, 0>(Planes<Bits>(lanes), row, step * low_bit_depth(Bits), words);
    }
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) {
      sums[index] = _mm256_add_epi32(sums[index], _mm256_madd_epi16(words[index], ones));
    }
  }
}

/// The same for bytes: products of full range do not fit 16 bits.
template <size_t Rows>
inline __attribute__((always_inline)) void add_bytes(const uint8_t* lanes, size_t stride, const int8_t* const* row,
                                                     size_t steps, __m256i* sums) {
  for (size_t step = 0; step < steps; ++step, lanes += stride) {
    const __m256i u = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes));
    const __m256i even = _mm256_and_si256(u, _mm256_set1_epi16(0xff)), odd = _mm256_srli_epi16(u, 8);
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) {
      const __m256i a = broadcast(row[index] + 4 * step);
      const __m256i even_a = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), odd_a = _mm256_srai_epi16(a, 8);
      const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(even, even_a), _mm256_madd_epi16(odd, odd_a));
      sums[index] = _mm256_add_epi32(sums[index], both);
    }
  }
}

}  // namespace
}  // namespace qcompiler
