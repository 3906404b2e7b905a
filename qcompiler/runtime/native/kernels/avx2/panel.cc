// Panels by vpmaddwd: bytes of full range are widened to 16 bits, even and odd ones apart, so that nothing saturates
// and every sum stays in its column.
#include "kernels/panel.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 4;

/// Four bytes, of 32 columns' lanes the even and the odd ones as 16-bit numbers.
struct Halves {
  __m256i even, odd;
};

Halves weights_of(const int8_t* bytes) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  return {_mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), _mm256_srai_epi16(both, 8)};
}

Halves activations_of(const uint8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  const __m256i both = _mm256_set1_epi32(four);
  return {_mm256_and_si256(both, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(both, 8)};
}

__m256i added(__m256i sum, const Halves& a, const Halves& w) {
  const __m256i even = _mm256_madd_epi16(a.even, w.even), odd = _mm256_madd_epi16(a.odd, w.odd);
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

/// 16 columns of the panel, from `first` on.
template <size_t Rows>
void tile(const PanelCall& call, size_t first) {
  __m256i low[Rows], high[Rows];
#pragma GCC unroll 4
  for (size_t index = 0; index < Rows; ++index) low[index] = high[index] = _mm256_setzero_si256();
  const int8_t* weights = call.panel + 4 * first;
  const uint8_t* row[Rows];
  for (size_t index = 0; index < Rows; ++index) row[index] = call.row[index];
  for (size_t run = 0; run < call.runs; ++run) {
    for (size_t group = 0; group < call.groups; ++group, weights += 4 * call.columns) {
      const Halves left = weights_of(weights), right = weights_of(weights + 32);
#pragma GCC unroll 4
      for (size_t index = 0; index < Rows; ++index) {
        const Halves a = activations_of(row[index] + 4 * group);
        low[index] = added(low[index], a, left);
        high[index] = added(high[index], a, right);
      }
    }
    for (size_t index = 0; index < Rows; ++index) row[index] += call.run_stride;
  }
#pragma GCC unroll 4
  for (size_t index = 0; index < Rows; ++index) {
    __m256i* sums = reinterpret_cast<__m256i*>(call.sums + index * call.columns + first);
    if (call.add) low[index] = _mm256_add_epi32(low[index], _mm256_loadu_si256(sums));
    if (call.add) high[index] = _mm256_add_epi32(high[index], _mm256_loadu_si256(sums + 1));
    _mm256_storeu_si256(sums, low[index]);
    _mm256_storeu_si256(sums + 1, high[index]);
  }
}

void multiply(const PanelCall& call) {
  for (size_t first = 0; first < call.columns; first += 16) {
    switch (call.rows) {
      case 1: tile<1>(call, first); break;
      case 2: tile<2>(call, first); break;
      case 3: tile<3>(call, first); break;
      default: tile<4>(call, first); break;
    }
  }
}

/// Four rows of 16 bytes become 16 columns of 4 bytes; what they hold is added to the columns' sums.
void fill_block(const __m128i* rows, int8_t* panel, __m256i* sums) {
  const __m128i low = _mm_unpacklo_epi8(rows[0], rows[1]), high = _mm_unpackhi_epi8(rows[0], rows[1]);
  const __m128i low_behind = _mm_unpacklo_epi8(rows[2], rows[3]), high_behind = _mm_unpackhi_epi8(rows[2], rows[3]);
  const __m256i left = _mm256_set_m128i(_mm_unpackhi_epi16(low, low_behind), _mm_unpacklo_epi16(low, low_behind));
  const __m256i right = _mm256_set_m128i(_mm_unpackhi_epi16(high, high_behind), _mm_unpacklo_epi16(high, high_behind));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel), left);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + 32), right);
  const __m256i bytes = _mm256_set1_epi8(1), words = _mm256_set1_epi16(1);  // sums of two bytes fit 16 bits
  sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, left), words));
  sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, right), words));
}

/// Up to 16 bytes, filled up with zeros.
__m128i load(const int8_t* bytes, size_t count) {
  if (count >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  int8_t copy[16] = {};
  if (count > 0) std::memcpy(copy, bytes, count);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(copy));
}

void fill(const PanelFill& call) {
  for (size_t first = 0; first < call.columns; first += 16) {
    const size_t width = call.width > first ? call.width - first : 0;
    __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t depth = 0; depth < call.depth; depth += 4) {
      __m128i rows[4];
      for (size_t index = 0; index < 4; ++index) {
        const bool inside = depth + index < call.depth && width > 0;
        rows[index] = inside ? load(call.source + (depth + index) * call.stride + first, width) : _mm_setzero_si128();
      }
      fill_block(rows, call.panel + depth * call.columns + 4 * first, sums);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(call.sums + first), sums[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(call.sums + first + 8), sums[1]);
  }
}

}  // namespace

void set_avx2(PanelKernels& kernels) {
  kernels.rows = most_rows;
  kernels.flip = 0x80;
  kernels.multiply = multiply;
  kernels.fill = fill;
}

}  // namespace qcompiler
