// Panels by sdot: four bytes of a row meet the four bytes of every column, signed times signed.
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

/// Four groups of 16 columns from `first` on: a row's 16 bytes are loaded once.
template <size_t Rows>
void four_groups(const PanelCall& call, const int8_t* weights, const uint8_t* const* row, int32x4_t (*sums)[4]) {
  int8x16_t codes[Rows];
  for (size_t index = 0; index < Rows; ++index) codes[index] = vreinterpretq_s8_u8(vld1q_u8(row[index]));
  const size_t step = 4 * call.columns;
  for (size_t part = 0; part < 4; ++part) {
    const int8x16_t w0 = vld1q_s8(weights + 16 * part), w1 = vld1q_s8(weights + step + 16 * part);
    const int8x16_t w2 = vld1q_s8(weights + 2 * step + 16 * part), w3 = vld1q_s8(weights + 3 * step + 16 * part);
    for (size_t index = 0; index < Rows; ++index) {
      int32x4_t sum = vdotq_laneq_s32(sums[index][part], w0, codes[index], 0);
      sum = vdotq_laneq_s32(sum, w1, codes[index], 1);
      sum = vdotq_laneq_s32(sum, w2, codes[index], 2);
      sums[index][part] = vdotq_laneq_s32(sum, w3, codes[index], 3);
    }
  }
}

template <size_t Rows>
void one_group(const int8_t* weights, const uint8_t* const* row, int32x4_t (*sums)[4]) {
  for (size_t index = 0; index < Rows; ++index) {
    const int8x16_t codes = repeated(row[index]);
    for (size_t part = 0; part < 4; ++part) {
      sums[index][part] = vdotq_s32(sums[index][part], vld1q_s8(weights + 16 * part), codes);
    }
  }
}

/// 16 columns of the panel, from `first` on.
template <size_t Rows>
void tile(const PanelCall& call, size_t first) {
  int32x4_t sums[Rows][4];
  for (size_t index = 0; index < 4 * Rows; ++index) (&sums[0][0])[index] = vdupq_n_s32(0);
  const int8_t* weights = call.panel + 4 * first;
  for (size_t run = 0; run < call.runs; ++run) {
    const uint8_t* row[Rows];
    for (size_t index = 0; index < Rows; ++index) {
      row[index] = call.row[index] + static_cast<ptrdiff_t>(run) * call.run_stride;
    }
    size_t group = 0;
    for (; group + 4 <= call.groups; group += 4, weights += 16 * call.columns) {
      four_groups<Rows>(call, weights, row, sums);
      for (size_t index = 0; index < Rows; ++index) row[index] += 16;
    }
    for (; group < call.groups; ++group, weights += 4 * call.columns) {
      one_group<Rows>(weights, row, sums);
      for (size_t index = 0; index < Rows; ++index) row[index] += 4;
    }
  }
  for (size_t index = 0; index < Rows; ++index) {
    for (size_t part = 0; part < 4; ++part) {
      vst1q_s32(call.sums + index * call.columns + first + 4 * part, sums[index][part]);
    }
  }
}

void multiply(const PanelCall& call) {
  for (size_t first = 0; first < call.columns; first += 16) {
    switch (call.rows) {
      case 1: tile<1>(call, first); break;
      case 2: tile<2>(call, first); break;
      case 3: tile<3>(call, first); break;
      default: tile<4>(call, first); break;
    }
  }
}

}  // namespace

void set_dotprod(PanelKernels& kernels) {
  kernels.rows = most_rows;
  kernels.flip = 0;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
