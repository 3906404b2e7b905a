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

}  // namespace

void set_avx512vnni(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.expand = expand;
}

}  // namespace qcompiler
