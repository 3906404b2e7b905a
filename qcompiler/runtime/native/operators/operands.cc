#include "operators/operands.h"

#include <string>

#include "core/error.h"

namespace qcompiler {
namespace {

template <typename Element>
void widen_from(const Element* from, size_t step, size_t count, int64_t zero, int64_t* into) {
  for (size_t index = 0; index < count; ++index) {
    const uint64_t code = static_cast<uint64_t>(int64_t{from[index * step]});
    into[index] = static_cast<int64_t>(code - static_cast<uint64_t>(zero));
  }
}

}  // namespace

void check_codes(const Tensor& codes) {
  if (codes.type != ElementType::int8 && codes.type != ElementType::int16) {
    throw Error("codes are int8 or int16 here, not " + element_name(codes.type));
  }
}

void check_zero(const Tensor& codes, int64_t zero) {
  const int64_t limit = codes.type == ElementType::int8 ? 128 : 32768;
  if (zero < -limit || zero >= limit) {
    throw Error("the zero point " + std::to_string(zero) + " is no " + element_name(codes.type));
  }
}

void check_scalar(const Tensor& tensor, const char* what) {
  if (tensor.shape.rank() != 0) throw Error(std::string(what) + " is one number here, not " + tensor.shape.text());
}

Codes codes_at(const Tensor& codes, size_t place) {
  const bool wide = codes.type == ElementType::int16;
  return {codes.as<char>() + place * (wide ? 2 : 1), wide};
}

int64_t code_at(const Tensor& codes, size_t place) {
  return codes.type == ElementType::int16 ? codes.as<int16_t>()[place] : codes.as<int8_t>()[place];
}

void widen(const Tensor& codes, size_t place, size_t step, size_t count, int64_t zero, int64_t* into) {
  switch (codes.type) {
    case ElementType::int8: return widen_from(codes.as<int8_t>() + place, step, count, zero, into);
    case ElementType::int16: return widen_from(codes.as<int16_t>() + place, step, count, zero, into);
    case ElementType::int32: return widen_from(codes.as<int32_t>() + place, step, count, zero, into);
    case ElementType::int64: return widen_from(codes.as<int64_t>() + place, step, count, zero, into);
    default: throw Error("codes are int8, int16, int32 or int64, not " + element_name(codes.type));
  }
}

}  // namespace qcompiler
