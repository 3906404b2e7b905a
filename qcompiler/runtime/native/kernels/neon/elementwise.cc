#include "kernels/elementwise.h"

#include <arm_neon.h>

#include <cstring>

#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

constexpr size_t lanes = 8;

int16x8_t load(const int8_t* codes) { return vmovl_s8(vld1_s8(codes)); }
int16x8_t load(const int16_t* codes) { return vld1q_s16(codes); }
void store(int8_t* result, int16x8_t codes) { vst1_s8(result, vmovn_s16(codes)); }
void store(int16_t* result, int16x8_t codes) { vst1q_s16(result, codes); }

/// PairSum of 8 codes.
struct Sum {
  explicit Sum(const PairSum& with)
      : with(with),
        constant_high(vdupq_n_s32(with.constant_high)),
        constant_low(vdupq_n_s32(with.constant_low)),
        right(vdupq_n_s32(-with.shift)),
        least(vdupq_n_s16(with.least)),
        greatest(vdupq_n_s16(with.greatest)) {}

  int16x4_t rounded(int16x4_t a, int16x4_t b) const {
    const int32x4_t high = vmlal_n_s16(vmlal_n_s16(constant_high, a, with.high[0]), b, with.high[1]);
    const int32x4_t low = vmlal_n_s16(vmlal_n_s16(constant_low, a, with.low[0]), b, with.low[1]);
    return vqmovn_s32(vshlq_s32(vsraq_n_s32(high, low, 16), right));
  }

  int16x8_t operator()(int16x8_t a, int16x8_t b) const {
    const int16x4_t first = rounded(vget_low_s16(a), vget_low_s16(b));
    const int16x8_t codes = vcombine_s16(first, rounded(vget_high_s16(a), vget_high_s16(b)));
    return vminq_s16(vmaxq_s16(codes, least), greatest);
  }

  const PairSum& with;
  int32x4_t constant_high, constant_low, right;
  int16x8_t least, greatest;
};

/// CodeProduct of 8 codes.
struct Product {
  explicit Product(const CodeProduct& with)
      : zero_a(vdupq_n_s16(with.zero[0])),
        zero_b(vdupq_n_s16(with.zero[1])),
        least(vdupq_n_s16(with.least)),
        greatest(vdupq_n_s16(with.greatest)),
        multiplier(vdup_n_s32(with.multiplier)),
        constant(vdupq_n_s64(with.constant)),
        right(vdupq_n_s64(-int64_t{with.shift})) {}

  int32x2_t two(int32x2_t product) const {
    return vqmovn_s64(vshlq_s64(vmlal_s32(constant, product, multiplier), right));
  }

  int16x4_t rounded(int32x4_t product) const {
    return vqmovn_s32(vcombine_s32(two(vget_low_s32(product)), two(vget_high_s32(product))));
  }

  int16x8_t operator()(int16x8_t a, int16x8_t b) const {
    const int16x8_t from_a = vsubq_s16(a, zero_a), from_b = vsubq_s16(b, zero_b);
    const int16x4_t first = rounded(vmull_s16(vget_low_s16(from_a), vget_low_s16(from_b)));
    const int16x8_t codes = vcombine_s16(first, rounded(vmull_high_s16(from_a, from_b)));
    return vminq_s16(vmaxq_s16(codes, least), greatest);
  }

  int16x8_t zero_a, zero_b, least, greatest;
  int32x2_t multiplier;
  int64x2_t constant, right;
};

template <typename A, typename B, typename Result, typename Work>
void each(const A* a, const B* b, size_t count, Result* result, const Work& work) {
  size_t index = 0;
  for (; index + lanes <= count; index += lanes) store(result + index, work(load(a + index), load(b + index)));
  if (index == count) return;
  A rest_a[lanes] = {};
  B rest_b[lanes] = {};
  Result rest[lanes];
  std::memcpy(rest_a, a + index, (count - index) * sizeof(A));
  std::memcpy(rest_b, b + index, (count - index) * sizeof(B));
  store(rest, work(load(rest_a), load(rest_b)));
  std::memcpy(result + index, rest, (count - index) * sizeof(Result));
}

void sum(Codes a, Codes b, const PairSum& with, size_t count, CodesOut result) {
  const Sum work(with);
  typed(a, b, result, [&](auto first, auto second, auto out) { each(first, second, count, out, work); });
}

/// The second multipliers do not count: it is a that stands in their place.
void scale(Codes a, const PairSum& with, size_t count, CodesOut result) {
  PairSum one = with;
  one.high[1] = one.low[1] = 0;
  const Sum work(one);
  typed(a, result, [&](auto first, auto out) { each(first, first, count, out, work); });
}

void multiply(Codes a, Codes b, const CodeProduct& with, size_t count, CodesOut result) {
  const Product work(with);
  typed(a, b, result, [&](auto first, auto second, auto out) { each(first, second, count, out, work); });
}

}  // namespace

void set_neon(ElementwiseKernels& kernels) {
  kernels.sum = sum;
  kernels.scale = scale;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
