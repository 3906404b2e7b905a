#include "kernels/norms.h"

#include <arm_neon.h>

#include <cstring>

#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

int16x8_t words(const int8_t* x) { return vmovl_s8(vld1_s8(x)); }
int16x8_t words(const int16_t* x) { return vld1q_s16(x); }
void store(int8_t* result, int16x8_t codes) { vst1_s8(result, vmovn_s16(codes)); }
void store(int16_t* result, int16x8_t codes) { vst1q_s16(result, codes); }

template <typename Code>
Moments row_moments(const Code* x, size_t count) {
  int32x4_t sum = vdupq_n_s32(0);
  int64x2_t squares = vdupq_n_s64(0);
  const auto add = [&](int16x8_t codes) {
    sum = vpadalq_s16(sum, codes);
    squares = vpadalq_s32(squares, vmull_s16(vget_low_s16(codes), vget_low_s16(codes)));
    squares = vpadalq_s32(squares, vmull_high_s16(codes, codes));
  };
  size_t index = 0;
  for (; index + 8 <= count; index += 8) add(words(x + index));
  if (index < count) {
    Code rest[8] = {};
    std::memcpy(rest, x + index, (count - index) * sizeof(Code));
    add(words(rest));
  }
  return {vaddlvq_s32(sum), vaddvq_s64(squares)};
}

Moments moments(Codes x, size_t count) {
  if (x.wide) return row_moments(static_cast<const int16_t*>(x.data), count);
  return row_moments(static_cast<const int8_t*>(x.data), count);
}

/// The factors of 8 elements.
struct Part {
  const int32_t* multiplier;
  const int64_t* addend;
  const uint8_t* shift;
};

/// A row's numbers and the bounds of results in all lanes.
struct Normal {
  Normal(const NormalRow& row, const NormFactors& factors)
      : scale(vdupq_n_s32(row.scale)),
        offset(vdupq_n_s32(row.offset)),
        root(vdup_n_s32(row.root)),
        right(vdupq_n_s64(-int64_t{row.shift})),
        zero(vdupq_n_s64(factors.zero)),
        low(vdupq_n_s32(factors.low)),
        high(vdupq_n_s32(factors.high)) {}

  /// Codes of two elements, saturated to 32 bits. Negative shifts to the left are shifts to the right.
  int32x2_t two(int32x2_t centred, const Part& part, size_t place) const {
    const int32x2_t normal = vmovn_s64(vrshlq_s64(vmull_s32(centred, root), right));  // rounds half up
    const int64x2_t sum = vmlal_s32(vld1q_s64(part.addend + place), normal, vld1_s32(part.multiplier + place));
    const int64_t shifts[2] = {-int64_t{part.shift[place]}, -int64_t{part.shift[place + 1]}};
    return vqmovn_s64(vaddq_s64(vshlq_s64(sum, vld1q_s64(shifts)), zero));
  }

  int16x4_t four(int16x4_t codes, const Part& part, size_t place) const {
    const int32x4_t centred = vsubq_s32(vmulq_s32(vmovl_s16(codes), scale), offset);
    const int32x2_t first = two(vget_low_s32(centred), part, place);
    const int32x4_t found = vcombine_s32(first, two(vget_high_s32(centred), part, place + 2));
    return vmovn_s32(vminq_s32(vmaxq_s32(found, low), high));
  }

  int16x8_t operator()(int16x8_t codes, const Part& part) const {
    return vcombine_s16(four(vget_low_s16(codes), part, 0), four(vget_high_s16(codes), part, 4));
  }

  int32x4_t scale, offset;
  int32x2_t root;
  int64x2_t right, zero;
  int32x4_t low, high;
};

template <typename Code, typename Result>
void row(const Code* x, size_t count, const Normal& normal, const NormFactors& factors, Result* result) {
  size_t index = 0;
  for (; index + 8 <= count; index += 8) {
    const Part part{factors.multiplier + index, factors.addend + index, factors.shift + index};
    store(result + index, normal(words(x + index), part));
  }
  if (index == count) return;
  const size_t left = count - index;
  Code codes[8] = {};
  int32_t multiplier[8] = {};
  int64_t addend[8] = {};
  uint8_t shift[8] = {};
  Result results[8];
  std::memcpy(codes, x + index, left * sizeof(Code));
  std::memcpy(multiplier, factors.multiplier + index, left * sizeof(int32_t));
  std::memcpy(addend, factors.addend + index, left * sizeof(int64_t));
  std::memcpy(shift, factors.shift + index, left);
  store(results, normal(words(codes), {multiplier, addend, shift}));
  std::memcpy(result + index, results, left * sizeof(Result));
}

void normalize(Codes x, size_t count, const NormalRow& with, const NormFactors& factors, CodesOut result) {
  const Normal normal(with, factors);
  typed(x, result, [&](auto codes, auto out) { row(codes, count, normal, factors, out); });
}

}  // namespace

void set_neon(NormKernels& kernels) {
  kernels.moments = moments;
  kernels.normalize = normalize;
}

}  // namespace qcompiler
