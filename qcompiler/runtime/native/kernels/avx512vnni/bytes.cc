#include "kernels/bytes.h"

#include <immintrin.h>

#include "kernels/avx512vnni/lowbit_decode.h"

namespace qcompiler {
namespace {

void flip_bytes(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target) {
  const __m512i bits = _mm512_set1_epi8(static_cast<char>(flip));
  size_t index = 0;
  for (; index + 64 <= count; index += 64) {
    _mm512_storeu_si512(target + index, _mm512_xor_si512(_mm512_loadu_si512(source + index), bits));
  }
  if (index == count) return;
  const __mmask64 left = (uint64_t{1} << (count - index)) - 1;
  _mm512_mask_storeu_epi8(target + index, left, _mm512_xor_si512(_mm512_maskz_loadu_epi8(left, source + index), bits));
}

template <int Bits, size_t Part>
void store_parts(const Planes<Bits>& weights, __m512i middle, int8_t* codes) {
  if constexpr (Part < low_bit_parts(Bits)) {
    _mm512_storeu_si512(codes + 64 * Part, _mm512_sub_epi8(weights.template part<Part>(), middle));
    store_parts<Bits, Part + 1>(weights, middle, codes);
  }
}

template <int Bits>
void expand_blocks(const uint8_t* packed, size_t blocks, int8_t* codes) {
  constexpr size_t parts = low_bit_parts(Bits), planes = low_bit_planes(Bits);
  const __m512i middle = _mm512_set1_epi8(1 << (Bits - 1));
  for (size_t block = 0; block < blocks; ++block, packed += 64 * planes, codes += 64 * parts) {
    const Planes<Bits> weights(packed);
    store_parts<Bits, 0>(weights, middle, codes);
  }
}

void expand(const uint8_t* packed, int bits, size_t blocks, int8_t* codes) {
  (bits == 4 ? expand_blocks<4> : bits == 3 ? expand_blocks<3> : expand_blocks<2>)(packed, blocks, codes);
}

void split(const int16_t* codes, size_t count, uint8_t flip, uint8_t* high, uint8_t* low) {
  const __m256i high_bits = _mm256_set1_epi8(static_cast<char>(flip));
  const __m256i low_bits = _mm256_set1_epi8(static_cast<char>(flip ^ 0x80));
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = count - index >= 32 ? ~uint32_t{0} : (uint32_t{1} << (count - index)) - 1;
    const __m512i words = _mm512_maskz_loadu_epi16(active, codes + index);
    const __m256i upper = _mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 8));
    _mm256_mask_storeu_epi8(high + index, active, _mm256_xor_si256(upper, high_bits));
    _mm256_mask_storeu_epi8(low + index, active, _mm256_xor_si256(_mm512_cvtepi16_epi8(words), low_bits));
  }
}

void join(const int32_t* high, const int32_t* low, size_t count, int64_t* sums) {
  for (size_t index = 0; index < count; index += 8) {
    const __mmask8 active = count - index >= 8 ? 0xff : static_cast<__mmask8>((1u << (count - index)) - 1);
    const __m512i upper = _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(active, high + index));
    const __m512i lower = _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(active, low + index));
    _mm512_mask_storeu_epi64(sums + index, active, _mm512_add_epi64(_mm512_slli_epi64(upper, 8), lower));
  }
}

}  // namespace

void set_avx512vnni(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.expand = expand;
  kernels.split = split;
  kernels.join = join;
}

}  // namespace qcompiler
