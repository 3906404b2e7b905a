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

}  // namespace

void set_avx2(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.turn = turn;
}

}  // namespace qcompiler
