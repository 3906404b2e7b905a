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
    int32_t* sums = call.sums + index * call.columns + first;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), low[index]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8), high[index]);
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

}  // namespace

void set_avx2(PanelKernels& kernels) {
  kernels.rows = most_rows;
  kernels.flip = 0x80;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
