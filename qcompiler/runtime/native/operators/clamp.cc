#include "operators/clamp.h"

#include <limits>
#include <string>

#include "core/error.h"

namespace qcompiler {
namespace {

constexpr int64_t least = std::numeric_limits<int32_t>::min();
constexpr int64_t greatest = std::numeric_limits<int32_t>::max();

int64_t type_limit(ElementType type) {
  switch (type) {
    case ElementType::int8: return 127;
    case ElementType::int16: return 32767;
    case ElementType::int32: return greatest;
    default: throw Error("attribute 'to' names " + element_name(type) + "; results are int8, int16 or int32");
  }
}

}  // namespace

Clamp Clamp::read(const Attributes& attributes) {
  Clamp clamp{};
  clamp.type = static_cast<ElementType>(attributes.integer("to", 0, 64));
  const int64_t limit = type_limit(clamp.type);
  clamp.zero = static_cast<int32_t>(attributes.integer("y_zero_point", least, greatest));
  clamp.low = static_cast<int32_t>(attributes.integer("low", -limit - 1, limit));
  clamp.high = static_cast<int32_t>(attributes.integer("high", clamp.low, limit));
  return clamp;
}

void check_multiplier(const Tensor& multiplier) {
  if (multiplier.type != ElementType::int32) {
    throw Error("a multiplier is " + element_name(multiplier.type) + "; it is int32");
  }
  const int64_t count = multiplier.shape.elements();
  int32_t sign = 0;
  for (int64_t index = 0; index < count; ++index) sign |= multiplier.as<int32_t>()[index];
  require(sign >= 0, "a multiplier is negative");
}

void check_shift(const Tensor& shift) {
  if (shift.type != ElementType::uint8) throw Error("a shift is " + element_name(shift.type) + "; it is uint8");
  const int64_t count = shift.shape.elements();
  bool wrong = false;
  for (int64_t index = 0; index < count; ++index) wrong |= static_cast<uint8_t>(shift.as<uint8_t>()[index] - 1) > 61;
  require(!wrong, "a shift is outside 1 to 62");
}

}  // namespace qcompiler
