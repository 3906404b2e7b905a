#include "kernels/pooling.h"

#include <arm_neon.h>

namespace qcompiler {
namespace {

void add4(int32_t* sums, int32x4_t more) { vst1q_s32(sums, vaddq_s32(vld1q_s32(sums), more)); }

void add8(int32_t* sums, int16x8_t words) {
  add4(sums, vmovl_s16(vget_low_s16(words)));
  add4(sums + 4, vmovl_s16(vget_high_s16(words)));
}

/// 16 columns: up to 256 codes of 8 bits fit a sum of 16 bits.
void rows16(const int8_t* x, size_t rows, size_t stride, int32_t* sums) {
  for (size_t done = 0; done < rows; done += 256) {
    const size_t end = rows - done < 256 ? rows : done + 256;
    int16x8_t first = vdupq_n_s16(0), second = vdupq_n_s16(0);
    for (size_t row = done; row < end; ++row) {
      const int8x16_t codes = vld1q_s8(x + row * stride);
      first = vaddw_s8(first, vget_low_s8(codes));
      second = vaddw_s8(second, vget_high_s8(codes));
    }
    add8(sums, first);
    add8(sums + 8, second);
  }
}

void rows16(const int16_t* x, size_t rows, size_t stride, int32_t* sums) {
  int32x4_t total[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
  for (size_t row = 0; row < rows; ++row) {
    const int16x8_t first = vld1q_s16(x + row * stride), second = vld1q_s16(x + row * stride + 8);
    total[0] = vaddw_s16(total[0], vget_low_s16(first));
    total[1] = vaddw_s16(total[1], vget_high_s16(first));
    total[2] = vaddw_s16(total[2], vget_low_s16(second));
    total[3] = vaddw_s16(total[3], vget_high_s16(second));
  }
  for (int part = 0; part < 4; ++part) add4(sums + 4 * part, total[part]);
}

template <typename Code>
void rows_of(const Code* x, size_t count, size_t stride, size_t columns, int32_t* sums) {
  size_t column = 0;
  for (; column + 16 <= columns; column += 16) rows16(x + column, count, stride, sums + column);
  for (; column < columns; ++column) {
    uint32_t sum = static_cast<uint32_t>(sums[column]);
    for (size_t row = 0; row < count; ++row) sum += static_cast<uint32_t>(int32_t{x[row * stride + column]});
    sums[column] = static_cast<int32_t>(sum);
  }
}

void add_rows(const void* x, bool wide, size_t count, size_t stride, size_t columns, int32_t* sums) {
  if (wide) return rows_of(static_cast<const int16_t*>(x), count, stride, columns, sums);
  rows_of(static_cast<const int8_t*>(x), count, stride, columns, sums);
}

int32x4_t folded(int32x4_t total, const int8_t* x) { return vpadalq_s16(total, vpaddlq_s8(vld1q_s8(x))); }
int32x4_t folded(int32x4_t total, const int16_t* x) { return vpadalq_s16(total, vld1q_s16(x)); }

template <typename Code>
void lines_of(const Code* x, size_t lines, size_t stride, size_t count, int32_t* sums) {
  constexpr size_t lanes = 16 / sizeof(Code);
  for (size_t line = 0; line < lines; ++line, x += stride) {
    int32x4_t total = vdupq_n_s32(0);
    size_t index = 0;
    for (; index + lanes <= count; index += lanes) total = folded(total, x + index);
    uint32_t sum = static_cast<uint32_t>(sums[line]) + static_cast<uint32_t>(vaddvq_s32(total));
    for (; index < count; ++index) sum += static_cast<uint32_t>(int32_t{x[index]});
    sums[line] = static_cast<int32_t>(sum);
  }
}

void add_lines(const void* x, bool wide, size_t lines, size_t stride, size_t count, int32_t* sums) {
  if (wide) return lines_of(static_cast<const int16_t*>(x), lines, stride, count, sums);
  lines_of(static_cast<const int8_t*>(x), lines, stride, count, sums);
}

int8x16_t load(const int8_t* x) { return vld1q_s8(x); }
int16x8_t load(const int16_t* x) { return vld1q_s16(x); }
int8x16_t larger(int8x16_t first, int8x16_t second) { return vmaxq_s8(first, second); }
int16x8_t larger(int16x8_t first, int16x8_t second) { return vmaxq_s16(first, second); }
void store(int8_t* result, int8x16_t codes) { vst1q_s8(result, codes); }
void store(int16_t* result, int16x8_t codes) { vst1q_s16(result, codes); }

template <typename Code>
void greatest_of(const Code* x, size_t rows, size_t stride, size_t columns, Code* result) {
  constexpr size_t lanes = 16 / sizeof(Code);
  size_t column = 0;
  for (; column + lanes <= columns; column += lanes) {
    auto most = load(x + column);
    for (size_t row = 1; row < rows; ++row) most = larger(most, load(x + row * stride + column));
    store(result + column, most);
  }
  for (; column < columns; ++column) {
    Code most = x[column];
    for (size_t row = 1; row < rows; ++row) most = x[row * stride + column] > most ? x[row * stride + column] : most;
    result[column] = most;
  }
}

void greatest(const void* x, bool wide, size_t rows, size_t stride, size_t columns, void* result) {
  if (wide) return greatest_of(static_cast<const int16_t*>(x), rows, stride, columns, static_cast<int16_t*>(result));
  greatest_of(static_cast<const int8_t*>(x), rows, stride, columns, static_cast<int8_t*>(result));
}

}  // namespace

void set_neon(PoolingKernels& kernels) {
  kernels.add_rows = add_rows;
  kernels.add_lines = add_lines;
  kernels.greatest = greatest;
}

}  // namespace qcompiler
