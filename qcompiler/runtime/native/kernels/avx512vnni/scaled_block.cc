// Blocks by vpdpbusd with the codes as its unsigned operand: nothing is to be taken off for a sign.
#include "kernels/scaled_block.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 3;  // 3 rows of 4 vectors are 12 exact and 12 float sums

__m512i broadcast(const int8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm512_set1_epi32(four);
}

/// The codes of one of the groups that share a byte.
template <int Bits>
__m512i codes(__m512i bytes, size_t group) {
  if (Bits == 8) return bytes;
  const __m512i shifted = group == 0 ? bytes : _mm512_srli_epi16(bytes, static_cast<unsigned>(group * Bits));
  return _mm512_and_si512(shifted, _mm512_set1_epi8((1 << Bits) - 1));
}

template <int Bits, size_t Rows, size_t Vectors>
void tile(const ScaledBlockCall& call) {
  constexpr size_t per_byte = 8 / Bits;
  const size_t chunks = call.groups / per_byte;
  const uint8_t* panel = call.panel;
  __m512 sums[Rows][Vectors];
  for (size_t row = 0; row < Rows; ++row) {
    for (size_t vector = 0; vector < Vectors; ++vector) sums[row][vector] = _mm512_setzero_ps();
  }
  for (size_t block = 0; block < call.blocks; ++block) {
    __m512i exact[Rows][Vectors];
#pragma GCC unroll 3
    for (size_t row = 0; row < Rows; ++row) {
      const __m512i start = _mm512_set1_epi32(call.zeros == nullptr ? -call.zero * call.row_sums[row][block] : 0);
#pragma GCC unroll 4
      for (size_t vector = 0; vector < Vectors; ++vector) exact[row][vector] = start;
    }
    const size_t first = block * call.groups * 4;
    for (size_t chunk = 0; chunk < chunks; ++chunk, panel += Vectors * 64) {
      __m512i bytes[Vectors];
#pragma GCC unroll 4
      for (size_t vector = 0; vector < Vectors; ++vector) bytes[vector] = _mm512_loadu_si512(panel + 64 * vector);
#pragma GCC unroll 4
      for (size_t group = 0; group < per_byte; ++group) {
        const size_t place = first + (chunk * per_byte + group) * 4;
#pragma GCC unroll 4
        for (size_t vector = 0; vector < Vectors; ++vector) {
          const __m512i w = codes<Bits>(bytes[vector], group);
#pragma GCC unroll 3
          for (size_t row = 0; row < Rows; ++row) {
            exact[row][vector] = _mm512_dpbusd_epi32(exact[row][vector], w, broadcast(call.row[row] + place));
          }
        }
      }
    }
#pragma GCC unroll 4
    for (size_t vector = 0; vector < Vectors; ++vector) {
      const size_t column = block * call.columns + 16 * vector;
      const __m512 scale = _mm512_loadu_ps(call.scales + column);
#pragma GCC unroll 3
      for (size_t row = 0; row < Rows; ++row) {
        __m512i sum = exact[row][vector];
        if (call.zeros != nullptr) {
          const __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(call.zeros + column)));
          sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(zero, _mm512_set1_epi32(call.row_sums[row][block])));
        }
        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
        const __m512 scaled = _mm512_mul_ps(product, _mm512_set1_ps(call.row_scales[row][block]));
        sums[row][vector] = _mm512_add_ps(sums[row][vector], scaled);
      }
    }
  }
#pragma GCC unroll 3
  for (size_t row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (size_t vector = 0; vector < Vectors; ++vector) {
      _mm512_storeu_ps(call.sums + row * call.columns + 16 * vector, sums[row][vector]);
    }
  }
}

template <int Bits, size_t Rows>
void by_columns(const ScaledBlockCall& call) {
  switch (call.columns / 16) {
    case 1: return tile<Bits, Rows, 1>(call);
    case 2: return tile<Bits, Rows, 2>(call);
    case 3: return tile<Bits, Rows, 3>(call);
    default: return tile<Bits, Rows, 4>(call);
  }
}

template <int Bits>
void by_rows(const ScaledBlockCall& call) {
  switch (call.rows) {
    case 1: return by_columns<Bits, 1>(call);
    case 2: return by_columns<Bits, 2>(call);
    default: return by_columns<Bits, 3>(call);
  }
}

void multiply(const ScaledBlockCall& call) {
  if (call.bits == 2) return by_rows<2>(call);
  if (call.bits == 4) return by_rows<4>(call);
  by_rows<8>(call);
}

}  // namespace

void set_avx512vnni(ScaledBlockKernels& kernels) {
  kernels.rows = most_rows;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
