#include "kernels/bytes.h"

#include <immintrin.h>

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

}  // namespace

void set_avx512vnni(ByteKernels& kernels) { kernels.flip = flip_bytes; }

}  // namespace qcompiler
