#include "kernels/lookup.h"

#include <immintrin.h>

#include <cstring>


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

/// The pieces of 8 codes, taken apart. Loading whole pieces and transposing them is faster than gathering numbers.
struct Taken {
  Taken(const Pieces& pieces, const uint16_t* offset) {
    const char* base = reinterpret_cast<const char*>(pieces.piece);
    __m256i row[4];
    for (int index = 0; index < 4; ++index) {
      const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + offset[index]));
      const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + offset[index + 4]));
      row[index] = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
    }
    const __m256i first = _mm256_unpacklo_epi32(row[0], row[1]), second = _mm256_unpacklo_epi32(row[2], row[3]);
    start = _mm256_unpacklo_epi64(first, second);
    slope = _mm256_unpackhi_epi64(first, second);
    bend = _mm256_unpacklo_epi64(_mm256_unpackhi_epi32(row[0], row[1]), _mm256_unpackhi_epi32(row[2], row[3]));
  }

  __m256i start, slope, bend;
};

template <bool curved>
__m256i between(const Pieces& pieces, const uint16_t* offset, __m128i fractions) {
  const Taken taken(pieces, offset);
  const __m256i fraction = _mm256_cvtepu16_epi32(fractions);
  __m256i value = _mm256_add_epi32(taken.start, _mm256_mullo_epi32(taken.slope, fraction));
  if (curved) {
    const __m256i area = _mm256_mullo_epi16(fraction, _mm256_sub_epi32(_mm256_set1_epi32(128), fraction));  // <= 2^12
    const __m256i bent = _mm256_add_epi32(_mm256_mullo_epi32(area, taken.bend), _mm256_set1_epi32(256));
    value = _mm256_sub_epi32(value, _mm256_srai_epi32(bent, 9));
  }
  return _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(4096)), 13);
}

void store16(int8_t* result, __m256i codes) {
  const __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(result), packed);
}

void store16(int16_t* result, __m256i codes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(result), codes); }

/// 16 codes.
template <bool curved>
__m256i interpolated(const int16_t* x, const Pieces& pieces) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  const __m256i position = _mm256_xor_si256(codes, _mm256_set1_epi16(INT16_MIN));
  const __m256i fraction = _mm256_and_si256(position, _mm256_set1_epi16(127));
  uint16_t offset[16];  // of pieces, in bytes: position / 128 * 16
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(offset),
                      _mm256_and_si256(_mm256_srli_epi16(position, 3), _mm256_set1_epi16(0x1ff0)));
  const __m256i first = between<curved>(pieces, offset, _mm256_castsi256_si128(fraction));
  const __m256i second = between<curved>(pieces, offset + 8, _mm256_extracti128_si256(fraction, 1));
  __m256i found = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
  found = _mm256_max_epi16(found, _mm256_set1_epi16(static_cast<int16_t>(pieces.least)));
  return _mm256_min_epi16(found, _mm256_set1_epi16(static_cast<int16_t>(pieces.greatest)));
}

template <bool curved, typename Code>
void interpolate_to(const int16_t* x, const Pieces& pieces, size_t count, Code* result) {
  size_t index = 0;
  for (; index + 16 <= count; index += 16) store16(result + index, interpolated<curved>(x + index, pieces));
  if (index == count) return;
  int16_t codes[16] = {};
  Code found[16];
  std::memcpy(codes, x + index, (count - index) * sizeof(int16_t));
  store16(found, interpolated<curved>(codes, pieces));
  std::memcpy(result + index, found, (count - index) * sizeof(Code));
}

template <typename Code>
void interpolate_as(const int16_t* x, const Pieces& pieces, size_t count, Code* result) {
  pieces.curved ? interpolate_to<true>(x, pieces, count, result) : interpolate_to<false>(x, pieces, count, result);
}

void interpolate(const int16_t* x, const Pieces& pieces, size_t count, bool wide, void* result) {
  if (wide) return interpolate_as(x, pieces, count, static_cast<int16_t*>(result));
  interpolate_as(x, pieces, count, static_cast<int8_t*>(result));
}

}  // namespace

void set_avx2(LookupKernels& kernels) {
  kernels.bytes = bytes;
  kernels.interpolate = interpolate;
}

}  // namespace qcompiler
