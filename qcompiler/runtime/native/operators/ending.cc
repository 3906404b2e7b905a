#include "operators/ending.h"

namespace qcompiler {
namespace {

/// Results of 32 bits are rare (between the axes of a resize): no kernel of their own.
template <typename Sum>
void to32(const Sum* sums, const Rescale& rescale, size_t count, int32_t* result) {
  for (size_t index = 0; index < count; ++index) {
    const size_t factor = rescale.per_column ? index : 0;
    const uint8_t shift = rescale.shift[factor];
    const uint64_t multiplier = static_cast<uint64_t>(int64_t{rescale.multiplier[factor]});
    const uint64_t product = static_cast<uint64_t>(int64_t{sums[index]}) * multiplier;
    const int64_t rounded = static_cast<int64_t>(product + (uint64_t{1} << (shift - 1))) >> shift;
    const uint64_t zero = static_cast<uint64_t>(int64_t{rescale.zero});
    const int64_t code = static_cast<int64_t>(static_cast<uint64_t>(rounded) + zero);
    result[index] = static_cast<int32_t>(code < rescale.low ? rescale.low : code > rescale.high ? rescale.high : code);
  }
}

}  // namespace

void Ending::from32(const int32_t* sums, const Rescale& rescale, size_t count, void* result) const {
  if (!narrow()) return to32(sums, rescale, count, static_cast<int32_t*>(result));
  kernels_.rescale.from32(sums, nullptr, rescale, {1, count, count, count}, result);
}

void Ending::from64(const int64_t* sums, const Rescale& rescale, size_t count, void* result) const {
  if (!narrow()) return to32(sums, rescale, count, static_cast<int32_t*>(result));
  kernels_.rescale.from64(sums, nullptr, rescale, {1, count, count, count}, result);
}

}  // namespace qcompiler
