#include "kernels/rescale.h"

#include <arm_neon.h>

#include <cstring>

namespace qcompiler {
namespace {

/// Factors and bounds of 4 columns; those in 64-bit lanes for the first two and the last two.
struct Four {
  int32x4_t multiplier;
  int64x2_t half[2], right[2];  ///< 2^(c-1), and -c: a shift to the left by a negative number is one to the right.
  int64x2_t zero;
  int32x4_t low, high;

  Four(const Rescale& with, const int32_t* multipliers, const uint8_t* shifts)
      : multiplier(vld1q_s32(multipliers)),
        zero(vdupq_n_s64(with.zero)),
        low(vdupq_n_s32(with.low)),
        high(vdupq_n_s32(with.high)) {
    for (int part = 0; part < 2; ++part) {
      const int64_t pair[2] = {shifts[2 * part], shifts[2 * part + 1]};
      const int64x2_t shift = vld1q_s64(pair);
      half[part] = vshlq_s64(vdupq_n_s64(1), vsubq_s64(shift, vdupq_n_s64(1)));
      right[part] = vnegq_s64(shift);
    }
  }

  /// Codes of two products in 64 bits, saturated to 32.
  int32x2_t rounded(int64x2_t product, int part) const {
    return vqmovn_s64(vaddq_s64(vshlq_s64(vaddq_s64(product, half[part]), right[part]), zero));
  }

  int32x4_t clipped(int64x2_t first, int64x2_t second) const {
    const int32x4_t codes = vcombine_s32(rounded(first, 0), rounded(second, 1));
    return vminq_s32(vmaxq_s32(codes, low), high);
  }
};

/// sums + bias of 4 columns, times their multipliers.
int32x4_t codes_of(const int32_t* sums, const int32_t* bias, const Four& with) {
  const int32x4_t added = bias == nullptr ? vld1q_s32(sums) : vaddq_s32(vld1q_s32(sums), vld1q_s32(bias));
  const int64x2_t first = vmull_s32(vget_low_s32(added), vget_low_s32(with.multiplier));
  return with.clipped(first, vmull_high_s32(added, with.multiplier));
}

/// The lower 64 bits of a * b, b not negative.
int64x2_t product(int64x2_t a, int32x2_t b) {
  const uint32x2_t factor = vreinterpret_u32_s32(b);
  const uint32x2_t lower = vmovn_u64(vreinterpretq_u64_s64(a)), upper = vshrn_n_u64(vreinterpretq_u64_s64(a), 32);
  const uint64x2_t high = vshlq_n_u64(vmovl_u32(vmul_u32(upper, factor)), 32);
  return vreinterpretq_s64_u64(vaddq_u64(vmull_u32(lower, factor), high));
}

int32x4_t codes_of(const int64_t* sums, const int64_t* bias, const Four& with) {
  int64x2_t first = vld1q_s64(sums), second = vld1q_s64(sums + 2);
  if (bias != nullptr) {
    first = vaddq_s64(first, vld1q_s64(bias));
    second = vaddq_s64(second, vld1q_s64(bias + 2));
  }
  return with.clipped(product(first, vget_low_s32(with.multiplier)), product(second, vget_high_s32(with.multiplier)));
}

void store(int16_t* result, int32x4_t codes) { vst1_s16(result, vmovn_s32(codes)); }

void store(int8_t* result, int32x4_t codes) {
  const int16x4_t words = vmovn_s32(codes);
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  std::memcpy(result, &four, sizeof four);
}

/// Up to 4 columns of all rows.
template <typename Sum, typename Code>
void block(const Sum* sums, const Sum* bias, const Four& with, const RescaleArea& area, size_t count, Code* result) {
  Sum some[4] = {}, added[4] = {};
  Code codes[4];
  if (count < 4 && bias != nullptr) std::memcpy(added, bias, count * sizeof(Sum));
  for (size_t row = 0; row < area.rows; ++row, sums += area.sums_stride, result += area.result_stride) {
    if (count == 4) {
      store(result, codes_of(sums, bias, with));
      continue;
    }
    std::memcpy(some, sums, count * sizeof(Sum));
    store(codes, codes_of(some, added, with));
    std::memcpy(result, codes, count * sizeof(Code));
  }
}

template <typename Sum, typename Code>
void rows(const Sum* sums, const Sum* bias, const Rescale& with, const RescaleArea& area, Code* result) {
  for (size_t column = 0; column < area.columns; column += 4) {
    const size_t left = area.columns - column, count = left < 4 ? left : 4;
    int32_t multiplier[4] = {};
    uint8_t shift[4] = {1, 1, 1, 1};
    for (size_t index = 0; index < count; ++index) {
      multiplier[index] = with.multiplier[with.per_column ? column + index : 0];
      shift[index] = with.shift[with.per_column ? column + index : 0];
    }
    const Sum* added = bias == nullptr ? nullptr : bias + column;
    block(sums + column, added, Four(with, multiplier, shift), area, count, result + column);
  }
}

template <typename Sum>
void rescale(const Sum* sums, const Sum* bias, const Rescale& with, const RescaleArea& area, void* result) {
  if (with.wide) {
    rows(sums, bias, with, area, static_cast<int16_t*>(result));
  } else {
    rows(sums, bias, with, area, static_cast<int8_t*>(result));
  }
}

}  // namespace

void set_neon(RescaleKernels& kernels) {
  kernels.from32 = rescale<int32_t>;
  kernels.from64 = rescale<int64_t>;
}

}  // namespace qcompiler
