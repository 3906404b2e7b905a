#include "kernels/rescale.h"

namespace qcompiler {
namespace {

int64_t rounded(int64_t sum, int32_t multiplier, uint8_t shift) {
  const uint64_t product = static_cast<uint64_t>(sum) * static_cast<uint64_t>(static_cast<int64_t>(multiplier));
  return static_cast<int64_t>(product + (uint64_t{1} << (shift - 1))) >> shift;  // half_up
}

template <typename Code>
void store(const Rescale& rescale, int64_t value, Code* result) {
  const int64_t code = static_cast<int64_t>(static_cast<uint64_t>(value) + static_cast<uint64_t>(int64_t{rescale.zero}));
  *result = static_cast<Code>(code < rescale.low ? rescale.low : code > rescale.high ? rescale.high : code);
}

template <typename Sum, typename Code>
void rows(const Sum* sums, const Sum* bias, const Rescale& rescale, const RescaleArea& area, Code* result) {
  for (size_t row = 0; row < area.rows; ++row, sums += area.sums_stride, result += area.result_stride) {
    for (size_t column = 0; column < area.columns; ++column) {
      const uint64_t raw = static_cast<uint64_t>(int64_t{sums[column]});
      const uint64_t added = bias == nullptr ? 0 : static_cast<uint64_t>(int64_t{bias[column]});
      const Sum sum = static_cast<Sum>(raw + added);
      const size_t factor = rescale.per_column ? column : 0;
      store(rescale, rounded(sum, rescale.multiplier[factor], rescale.shift[factor]), result + column);
    }
  }
}

template <typename Sum>
void rescale_rows(const Sum* sums, const Sum* bias, const Rescale& rescale, const RescaleArea& area, void* result) {
  if (rescale.wide) {
    rows(sums, bias, rescale, area, static_cast<int16_t*>(result));
  } else {
    rows(sums, bias, rescale, area, static_cast<int8_t*>(result));
  }
}

}  // namespace

void set_reference(RescaleKernels& kernels) {
  kernels.from32 = rescale_rows<int32_t>;
  kernels.from64 = rescale_rows<int64_t>;
}

}  // namespace qcompiler
