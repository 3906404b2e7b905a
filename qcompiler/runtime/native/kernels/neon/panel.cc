// Panels by smull and sadalp: products of two bytes fit 16 bits, but no sum of two does, so every pair goes to 32 bits.
#include "kernels/panel.h"

#include <arm_neon.h>

#include <cstring>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 4;

/// Four bytes in every lane.
int8x16_t repeated(const uint8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/// 8 columns of the panel, from `first` on. An accumulator holds two columns, two halves of a sum each.
template <size_t Rows>
void tile(const PanelCall& call, size_t first) {
  int32x4_t sums[Rows][4];
  for (size_t index = 0; index < 4 * Rows; ++index) (&sums[0][0])[index] = vdupq_n_s32(0);
  const int8_t* weights = call.panel + 4 * first;
  for (size_t run = 0; run < call.runs; ++run) {
    const ptrdiff_t offset = static_cast<ptrdiff_t>(run) * call.run_stride;
    for (size_t group = 0; group < call.groups; ++group, weights += 4 * call.columns) {
      const int8x16_t left = vld1q_s8(weights), right = vld1q_s8(weights + 16);
      for (size_t index = 0; index < Rows; ++index) {
        const int8x16_t codes = repeated(call.row[index] + offset + static_cast<ptrdiff_t>(4 * group));
        int32x4_t* sum = sums[index];
        sum[0] = vpadalq_s16(sum[0], vmull_s8(vget_low_s8(left), vget_low_s8(codes)));
        sum[1] = vpadalq_s16(sum[1], vmull_high_s8(left, codes));
        sum[2] = vpadalq_s16(sum[2], vmull_s8(vget_low_s8(right), vget_low_s8(codes)));
        sum[3] = vpadalq_s16(sum[3], vmull_high_s8(right, codes));
      }
    }
  }
  for (size_t index = 0; index < Rows; ++index) {
    int32_t* result = call.sums + index * call.columns + first;
    vst1q_s32(result, vpaddq_s32(sums[index][0], sums[index][1]));
    vst1q_s32(result + 4, vpaddq_s32(sums[index][2], sums[index][3]));
  }
}

void multiply(const PanelCall& call) {
  for (size_t first = 0; first < call.columns; first += 8) {
    switch (call.rows) {
      case 1: tile<1>(call, first); break;
      case 2: tile<2>(call, first); break;
      case 3: tile<3>(call, first); break;
      default: tile<4>(call, first); break;
    }
  }
}

/// 16 columns of up to 4 depths: st4 interleaves them as it stores them.
void fill_group(const int8_t* const* rows, int8_t* panel, int32_t* sums) {
  const int8x16x4_t group = {{vld1q_s8(rows[0]), vld1q_s8(rows[1]), vld1q_s8(rows[2]), vld1q_s8(rows[3])}};
  vst4q_s8(panel, group);
  const int16x8_t low = vaddq_s16(vaddl_s8(vget_low_s8(group.val[0]), vget_low_s8(group.val[1])),
                                  vaddl_s8(vget_low_s8(group.val[2]), vget_low_s8(group.val[3])));
  const int16x8_t high =
      vaddq_s16(vaddl_high_s8(group.val[0], group.val[1]), vaddl_high_s8(group.val[2], group.val[3]));
  vst1q_s32(sums, vaddw_s16(vld1q_s32(sums), vget_low_s16(low)));
  vst1q_s32(sums + 4, vaddw_high_s16(vld1q_s32(sums + 4), low));
  vst1q_s32(sums + 8, vaddw_s16(vld1q_s32(sums + 8), vget_low_s16(high)));
  vst1q_s32(sums + 12, vaddw_high_s16(vld1q_s32(sums + 12), high));
}

/// Codes of a row that are there, and zeros behind them.
void copy(const PanelFill& call, size_t depth, size_t column, int8_t* codes) {
  std::memset(codes, 0, 16);
  if (depth >= call.depth || column >= call.width) return;
  const size_t left = call.width - column;
  std::memcpy(codes, call.source + depth * call.stride + column, left < 16 ? left : 16);
}

void fill(const PanelFill& call) {
  std::memset(call.sums, 0, call.columns * sizeof(int32_t));
  for (size_t depth = 0; depth < call.depth; depth += 4) {
    for (size_t column = 0; column < call.columns; column += 16) {
      int8_t copies[4][16];
      const int8_t* rows[4];
      for (size_t index = 0; index < 4; ++index) {
        const bool whole = depth + index < call.depth && column + 16 <= call.width;
        if (!whole) copy(call, depth + index, column, copies[index]);
        rows[index] = whole ? call.source + (depth + index) * call.stride + column : copies[index];
      }
      fill_group(rows, call.panel + depth * call.columns + 4 * column, call.sums + column);
    }
  }
}

}  // namespace

void set_neon(PanelKernels& kernels) {
  kernels.rows = most_rows;
  kernels.flip = 0;
  kernels.multiply = multiply;
  kernels.fill = fill;
}

}  // namespace qcompiler
