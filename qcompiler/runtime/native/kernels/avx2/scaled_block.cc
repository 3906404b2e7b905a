// Blocks without a dot product of bytes: codes and activations are widened to 16 bits, where vpmaddwd is exact.
#include "kernels/scaled_block.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 2;

/// Eight columns' exact sums of four products each: `low` and `high` hold the codes of columns 0, 1, 4, 5 and 2, 3, 6, 7.
__m256i products(__m256i low, __m256i high, __m256i x) {
  return _mm256_hadd_epi32(_mm256_madd_epi16(low, x), _mm256_madd_epi16(high, x));
}

__m256i broadcast(const int8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
}

/// Codes of 8 columns and one group in bytes, as `products` takes them.
struct Codes {
  __m256i low, high;
  Codes(__m256i bytes, int shift, int mask) {
    const __m256i part = _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift)),
                                          _mm256_set1_epi8(static_cast<char>(mask)));
    low = _mm256_unpacklo_epi8(part, _mm256_setzero_si256());
    high = _mm256_unpackhi_epi8(part, _mm256_setzero_si256());
  }
};

/// Rows times 8 columns from `column` on.
template <size_t Rows>
void tile(const ScaledBlockCall& call, size_t column) {
  const size_t per_byte = 8 / static_cast<size_t>(call.bits), chunks = call.groups / per_byte;
  const uint8_t* panel = call.panel + column * 4;
  __m256 sums[Rows];
  for (size_t row = 0; row < Rows; ++row) sums[row] = _mm256_setzero_ps();
  for (size_t block = 0; block < call.blocks; ++block) {
    __m256i exact[Rows];
    for (size_t row = 0; row < Rows; ++row) exact[row] = _mm256_setzero_si256();
    const size_t first = block * call.groups * 4;
    for (size_t chunk = 0; chunk < chunks; ++chunk, panel += call.columns * 4) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel));
      for (size_t group = 0; group < per_byte; ++group) {
        const Codes w(bytes, static_cast<int>(group) * call.bits, (1 << call.bits) - 1);
        const size_t place = first + (chunk * per_byte + group) * 4;
        for (size_t row = 0; row < Rows; ++row) {
          exact[row] = _mm256_add_epi32(exact[row], products(w.low, w.high, broadcast(call.row[row] + place)));
        }
      }
    }
    const size_t factors = block * call.columns + column;
    const __m256i zero = call.zeros == nullptr
                             ? _mm256_set1_epi32(call.zero)
                             : _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(call.zeros + factors)));
    for (size_t row = 0; row < Rows; ++row) {
      const __m256i share = _mm256_mullo_epi32(zero, _mm256_set1_epi32(call.row_sums[row][block]));
      const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(exact[row], share)),
                                           _mm256_loadu_ps(call.scales + factors));
      sums[row] = _mm256_add_ps(sums[row], _mm256_mul_ps(product, _mm256_set1_ps(call.row_scales[row][block])));
    }
  }
  for (size_t row = 0; row < Rows; ++row) _mm256_storeu_ps(call.sums + row * call.columns + column, sums[row]);
}

void multiply(const ScaledBlockCall& call) {
  for (size_t column = 0; column < call.columns; column += 8) {
    if (call.rows == 1) {
      tile<1>(call, column);
    } else {
      tile<2>(call, column);
    }
  }
}

}  // namespace

void set_avx2(ScaledBlockKernels& kernels) {
  kernels.rows = most_rows;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
