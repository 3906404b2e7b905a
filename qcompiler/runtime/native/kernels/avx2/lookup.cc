#include "kernels/lookup.h"

#include <cstring>

#include "kernels/avx2/rounding.h"

namespace qcompiler {
namespace {

/// 16 rows of 16 entries. Row r is stored as its difference (exclusive or) from row r - 1, rows 0 and 8 as they are, so
/// that the rows up to the wanted one add up to it.
struct Rows {
  explicit Rows(const int8_t* table) {
    for (size_t index = 0; index < 16; ++index) {
      const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * index));
      const bool first = index % 8 == 0;
      const __m128i previous = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * (first ? 0 : index - 1)));
      difference[index] = _mm256_broadcastsi128_si256(first ? row : _mm_xor_si128(row, previous));
    }
  }

  /// A shuffle gives 0 where its index is negative. Saturating subtractions keep negative indices negative: those of
  /// codes from 0 on in the lower half of the table, those below 0 in the upper half, and those of later rows.
  __m256i operator()(__m256i code) const {
    const __m256i step = _mm256_set1_epi8(16);
    __m256i below = _mm256_xor_si256(code, _mm256_set1_epi8(-128)), above = code;
    __m256i found = _mm256_setzero_si256();
    for (size_t index = 0; index < 8; ++index) {
      found = _mm256_xor_si256(found, _mm256_shuffle_epi8(difference[index], below));
      found = _mm256_xor_si256(found, _mm256_shuffle_epi8(difference[8 + index], above));
      below = _mm256_subs_epi8(below, step);
      above = _mm256_subs_epi8(above, step);
    }
    return found;
  }

  __m256i difference[16];
};

void bytes(const int8_t* x, const int8_t* table, size_t count, int8_t* result) {
  const Rows rows(table);
  size_t index = 0;
  for (; index + 32 <= count; index += 32) {
    const __m256i found = rows(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + index)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + index), found);
  }
  for (; index < count; ++index) result[index] = table[x[index] + 128];
}

__m256i gathered(const int32_t* table, __m256i index) { return _mm256_i32gather_epi32(table, index, 4); }

__m256i interpolated(__m128i codes, const Pieces& pieces) {
  const __m256i position = _mm256_add_epi32(_mm256_cvtepi16_epi32(codes), _mm256_set1_epi32(32768));
  const __m256i piece = _mm256_srli_epi32(position, 7), fraction = _mm256_and_si256(position, _mm256_set1_epi32(127));
  __m256i value = _mm256_mullo_epi32(gathered(pieces.slope, piece), fraction);
  value = _mm256_add_epi32(value, gathered(pieces.start, piece));
  if (pieces.curved) {
    const __m256i area = _mm256_mullo_epi32(fraction, _mm256_sub_epi32(_mm256_set1_epi32(128), fraction));
    const __m256i bend = _mm256_mullo_epi32(area, gathered(pieces.bend, piece));
    value = _mm256_sub_epi32(value, _mm256_srai_epi32(_mm256_add_epi32(bend, _mm256_set1_epi32(256)), 9));
  }
  value = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(4096)), 13);
  value = _mm256_max_epi32(value, _mm256_set1_epi32(pieces.least));
  return _mm256_min_epi32(value, _mm256_set1_epi32(pieces.greatest));
}

template <typename Code>
void interpolate_to(const int16_t* x, const Pieces& pieces, size_t count, Code* result) {
  size_t index = 0;
  for (; index + 8 <= count; index += 8) {
    store(result + index, interpolated(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + index)), pieces));
  }
  if (index == count) return;
  int16_t codes[8] = {};
  Code found[8];
  std::memcpy(codes, x + index, (count - index) * sizeof(int16_t));
  store(found, interpolated(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)), pieces));
  std::memcpy(result + index, found, (count - index) * sizeof(Code));
}

void interpolate(const int16_t* x, const Pieces& pieces, size_t count, bool wide, void* result) {
  if (wide) return interpolate_to(x, pieces, count, static_cast<int16_t*>(result));
  interpolate_to(x, pieces, count, static_cast<int8_t*>(result));
}

}  // namespace

void set_avx2(LookupKernels& kernels) {
  kernels.bytes = bytes;
  kernels.interpolate = interpolate;
}

}  // namespace qcompiler
