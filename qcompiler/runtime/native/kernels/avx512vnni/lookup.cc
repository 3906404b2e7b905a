#include "kernels/lookup.h"

#include <immintrin.h>

namespace qcompiler {
namespace {

__mmask64 first_bytes(size_t count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; }

/// 64 results from a table of 128 words that hold two entries each: a word by the upper seven bits of the position
/// (the look-up takes six, a blend the seventh), its half by the lowest.
__m512i looked_up(__m512i position, const __m512i table[4]) {
  const __m512i even = _mm512_srli_epi16(position, 1), odd = _mm512_srli_epi16(position, 9);
  const __mmask32 even_upper = _mm512_test_epi16_mask(position, _mm512_set1_epi16(0x80));
  const __mmask32 odd_upper = _mm512_movepi16_mask(position);
  __m512i at_even = _mm512_mask_blend_epi16(even_upper, _mm512_permutex2var_epi16(table[0], even, table[1]),
                                            _mm512_permutex2var_epi16(table[2], even, table[3]));
  __m512i at_odd = _mm512_mask_blend_epi16(odd_upper, _mm512_permutex2var_epi16(table[0], odd, table[1]),
                                           _mm512_permutex2var_epi16(table[2], odd, table[3]));
  const __mmask32 even_second = _mm512_test_epi16_mask(position, _mm512_set1_epi16(1));
  const __mmask32 odd_first = _mm512_testn_epi16_mask(position, _mm512_set1_epi16(0x100));
  at_even = _mm512_mask_srli_epi16(at_even, even_second, at_even, 8);
  at_odd = _mm512_mask_slli_epi16(at_odd, odd_first, at_odd, 8);
  return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaaull, at_even, at_odd);
}

void bytes(const int8_t* x, const int8_t* table, size_t count, int8_t* result) {
  __m512i entries[4];
  for (int part = 0; part < 4; ++part) entries[part] = _mm512_loadu_si512(table + 64 * part);
  const __m512i offset = _mm512_set1_epi8(-128);
  for (size_t index = 0; index < count; index += 64) {
    const __mmask64 active = first_bytes(count - index);
    const __m512i position = _mm512_xor_si512(_mm512_maskz_loadu_epi8(active, x + index), offset);
    _mm512_mask_storeu_epi8(result + index, active, looked_up(position, entries));
  }
}

/// 32 results: words by six bits of the position, blends for the two upper ones.
void words(const int8_t* x, const int16_t* table, size_t count, int16_t* result) {
  __m512i entries[8];
  for (int part = 0; part < 8; ++part) entries[part] = _mm512_loadu_si512(table + 32 * part);
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = static_cast<__mmask32>(first_bytes(count - index));
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active, x + index));
    const __mmask32 second = _mm512_test_epi16_mask(code, _mm512_set1_epi16(0x40));
    const __mmask32 negative = _mm512_movepi16_mask(code);
    __m512i found[4];
    for (int part = 0; part < 4; ++part) {
      found[part] = _mm512_permutex2var_epi16(entries[2 * part], code, entries[2 * part + 1]);
    }
    const __m512i below = _mm512_mask_blend_epi16(second, found[0], found[1]);
    const __m512i above = _mm512_mask_blend_epi16(second, found[2], found[3]);
    _mm512_mask_storeu_epi16(result + index, active, _mm512_mask_blend_epi16(negative, above, below));
  }
}

}  // namespace

void set_avx512vnni(LookupKernels& kernels) {
  kernels.bytes = bytes;
  kernels.words = words;
}

}  // namespace qcompiler
