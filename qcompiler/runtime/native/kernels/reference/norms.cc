#include "kernels/norms.h"

#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

template <typename Code>
Moments row_moments(const Code* x, size_t count) {
  int64_t sum = 0;
  uint64_t squares = 0;
  for (size_t index = 0; index < count; ++index) {
    const int64_t code = x[index];
    sum += code;
    squares += static_cast<uint64_t>(code * code);
  }
  return {sum, static_cast<int64_t>(squares)};
}

Moments moments(Codes x, size_t count) {
  if (x.wide) return row_moments(static_cast<const int16_t*>(x.data), count);
  return row_moments(static_cast<const int8_t*>(x.data), count);
}

/// 32 bits of a, as a signed number.
int64_t lower(uint64_t a) { return static_cast<int32_t>(static_cast<uint32_t>(a)); }

int64_t normal(int64_t code, const NormalRow& row) {
  const int64_t centred = lower(static_cast<uint64_t>(code * row.scale) - static_cast<uint64_t>(int64_t{row.offset}));
  const uint64_t product = static_cast<uint64_t>(centred * row.root);
  return lower(static_cast<uint64_t>(static_cast<int64_t>(product + (uint64_t{1} << (row.shift - 1))) >> row.shift));
}

template <typename Code, typename Result>
void row(const Code* x, size_t count, const NormalRow& row, const NormFactors& factors, Result* result) {
  for (size_t index = 0; index < count; ++index) {
    const uint64_t product = static_cast<uint64_t>(normal(x[index], row) * factors.multiplier[index]);
    const int64_t sum = static_cast<int64_t>(product + static_cast<uint64_t>(factors.addend[index]));
    const int64_t code = (sum >> factors.shift[index]) + factors.zero;
    result[index] = static_cast<Result>(code < factors.low ? factors.low : code > factors.high ? factors.high : code);
  }
}

void normalize(Codes x, size_t count, const NormalRow& with, const NormFactors& factors, CodesOut result) {
  typed(x, result, [&](auto codes, auto out) { row(codes, count, with, factors, out); });
}

}  // namespace

void set_reference(NormKernels& kernels) {
  kernels.moments = moments;
  kernels.normalize = normalize;
}

}  // namespace qcompiler
