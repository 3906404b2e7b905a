#include "kernels/bytes.h"

#include <immintrin.h>

namespace qcompiler {
namespace {

void flip_bytes(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target) {
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(flip));
  size_t index = 0;
  for (; index + 32 <= count; index += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + index));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + index), _mm256_xor_si256(codes, bits));
  }
  for (; index < count; ++index) target[index] = source[index] ^ flip;
}

/// Two blocks of 16 x 16 bytes, one in each half of the registers: columns `place` and `place + 16` onwards.
void load_blocks(const uint8_t* source, size_t columns, size_t behind, __m256i* rows) {
  for (size_t row = 0; row < 16; ++row) {
    const __m128i* place = reinterpret_cast<const __m128i*>(source + row * columns);
    const __m128i* second = reinterpret_cast<const __m128i*>(source + row * columns + behind);
    rows[row] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(place)), _mm_loadu_si128(second), 1);
  }
}

/// Interleaving row i with row i + 8 four times transposes 16 rows.
void transpose(__m256i* rows) {
  __m256i next[16];
  for (int round = 0; round < 4; ++round) {
    for (int row = 0; row < 8; ++row) {
      next[2 * row] = _mm256_unpacklo_epi8(rows[row], rows[row + 8]);
      next[2 * row + 1] = _mm256_unpackhi_epi8(rows[row], rows[row + 8]);
    }
    for (int row = 0; row < 16; ++row) rows[row] = next[row];
  }
}

void blocks(const uint8_t* source, size_t rows, size_t columns, size_t behind, uint8_t* target) {
  __m256i lines[16];
  load_blocks(source, columns, behind, lines);
  transpose(lines);
  for (size_t column = 0; column < 16; ++column) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + column * rows), _mm256_castsi256_si128(lines[column]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + (column + behind) * rows),
                     _mm256_extracti128_si256(lines[column], 1));
  }
}

/// Last blocks reach back over the ones before them.
void turn(const uint8_t* source, size_t rows, size_t columns, size_t begin, size_t end, uint8_t* target) {
  if (rows < 16 || end - begin < 16) {
    for (size_t column = begin; column < end; ++column) {
      for (size_t row = 0; row < rows; ++row) target[column * rows + row] = source[row * columns + column];
    }
    return;
  }
  for (size_t place = begin; place < end; place += 32) {
    const size_t column = place + 16 <= end ? place : end - 16;
    const size_t second = place + 32 <= end ? place + 16 : end - 16;
    for (size_t step = 0; step < rows; step += 16) {
      const size_t row = step + 16 <= rows ? step : rows - 16;
      blocks(source + row * columns + column, rows, columns, second - column, target + column * rows + row);
    }
  }
}

/// Bits of every byte, from `shift` on, that `mask` leaves.
__m256i bits_of(__m256i bytes, int shift, char mask) {
  return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8(mask));
}

__m256i code_of(const __m256i* planes, int bits, size_t part) {
  if (bits == 4) return bits_of(planes[0], static_cast<int>(4 * part), 15);
  if (bits == 2) return bits_of(planes[0], static_cast<int>(2 * part), 3);
  switch (part) {
    case 2: return _mm256_or_si256(bits_of(planes[0], 6, 3), bits_of(planes[2], 4, 4));
    case 5: return _mm256_or_si256(bits_of(planes[1], 6, 3), bits_of(planes[2], 5, 4));
    default: return bits_of(planes[part / 3], static_cast<int>(part % 3 * 3), 7);
  }
}

void expand(const uint8_t* packed, int bits, size_t blocks, int8_t* codes) {
  const size_t parts = low_bit_parts(bits), count = low_bit_planes(bits);
  const __m256i middle = _mm256_set1_epi8(static_cast<char>(1 << (bits - 1)));
  for (size_t block = 0; block < blocks; ++block, packed += 64 * count, codes += 64 * parts) {
    for (size_t half = 0; half < 64; half += 32) {
      __m256i planes[3];
      for (size_t plane = 0; plane < count; ++plane) {
        planes[plane] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + 64 * plane + half));
      }
      for (size_t part = 0; part < parts; ++part) {
        const __m256i code = _mm256_sub_epi8(code_of(planes, bits, part), middle);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + 64 * part + half), code);
      }
    }
  }
}

__m256i load(const void* place) { return _mm256_loadu_si256(static_cast<const __m256i*>(place)); }

void store(void* place, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(place), value); }

/// The lower bytes of 32 words, each of which is below 256.
__m256i narrow(__m256i first, __m256i second) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xd8);
}

void split(const int16_t* codes, size_t count, uint8_t flip, uint8_t* high, uint8_t* low) {
  const __m256i high_bits = _mm256_set1_epi8(static_cast<char>(flip));
  const __m256i low_bits = _mm256_set1_epi8(static_cast<char>(flip ^ 0x80));
  const __m256i byte = _mm256_set1_epi16(255);
  size_t index = 0;
  for (; index + 32 <= count; index += 32) {
    const __m256i first = load(codes + index), second = load(codes + index + 16);
    const __m256i upper = narrow(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
    const __m256i lower = narrow(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte));
    store(high + index, _mm256_xor_si256(upper, high_bits));
    store(low + index, _mm256_xor_si256(lower, low_bits));
  }
  for (; index < count; ++index) {
    const uint16_t bits = static_cast<uint16_t>(codes[index]);
    high[index] = static_cast<uint8_t>(static_cast<uint8_t>(bits >> 8) ^ flip);
    low[index] = static_cast<uint8_t>(static_cast<uint8_t>(bits) ^ flip ^ 0x80);
  }
}

void join(const int32_t* high, const int32_t* low, size_t count, int64_t* sums) {
  size_t index = 0;
  for (; index + 4 <= count; index += 4) {
    const __m256i upper = _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high + index)));
    const __m256i lower = _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low + index)));
    store(sums + index, _mm256_add_epi64(_mm256_slli_epi64(upper, 8), lower));
  }
  for (; index < count; ++index) sums[index] = int64_t{high[index]} * 256 + low[index];
}

}  // namespace

void set_avx2(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.turn = turn;
  kernels.expand = expand;
  kernels.split = split;
  kernels.join = join;
}

}  // namespace qcompiler
