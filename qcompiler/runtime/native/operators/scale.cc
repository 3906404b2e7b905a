#include "operators/scale.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "operators/operands.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;

/// Whether results are the codes themselves: same type, zero point and scale, and no clamp.
bool changes_nothing(const Clamp& clamp, ElementType type, int64_t zero, int32_t multiplier, uint8_t shift) {
  const int64_t limit = type == ElementType::int8 ? 128 : 32768;
  return clamp.type == type && clamp.zero == zero && clamp.low == -limit && clamp.high == limit - 1 && shift < 31 &&
         multiplier == int32_t{1} << shift;
}

}  // namespace

Scale::Scale(const Kernels& kernels, const Ending& ending, ElementType type, int64_t zero, int32_t multiplier,
             uint8_t shift)
    : kernels_(kernels), ending_(ending), zero_(zero), multiplier_(multiplier), shift_(shift) {
  const int64_t limit = type == ElementType::int8 ? 128 : 32768;
  const bool codes = (type == ElementType::int8 || type == ElementType::int16) && zero >= -limit && zero < limit;
  if (!codes) return;
  copies_ = changes_nothing(ending.clamp(), type, zero, multiplier, shift);
  fast_ = FastSum::prepare({type == ElementType::int16, zero, multiplier}, {false, 0, 0}, shift, ending.clamp());
}

void Scale::run(const Tensor& codes, size_t place, size_t count, void* result) const {
  if (copies_) {
    std::memcpy(result, codes_at(codes, place).data, count * ending_.code_bytes());
    return;
  }
  if (fast_) {
    kernels_.elementwise.scale(codes_at(codes, place), fast_->pairs(), count, {result, ending_.code_bytes() == 2});
    return;
  }
  const Rescale rescale = ending_.with(&multiplier_, &shift_, false);
  if (codes.type == ElementType::int32 && zero_ == 0) {
    return ending_.from32(codes.as<int32_t>() + place, rescale, count, result);
  }
  std::array<int64_t, chunk> sums;
  for (size_t done = 0; done < count; done += chunk) {
    const size_t now = std::min(chunk, count - done);
    widen(codes, place + done, 1, now, zero_, sums.data());
    ending_.from64(sums.data(), rescale, now, static_cast<char*>(result) + done * ending_.code_bytes());
  }
}

}  // namespace qcompiler
