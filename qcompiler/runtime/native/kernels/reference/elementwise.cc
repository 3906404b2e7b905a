#include "kernels/elementwise.h"

namespace qcompiler {
namespace {

int32_t code(Codes codes, size_t index) {
  return codes.wide ? static_cast<const int16_t*>(codes.data)[index] : static_cast<const int8_t*>(codes.data)[index];
}

void store(int64_t value, int16_t least, int16_t greatest, size_t index, CodesOut result) {
  const int64_t clipped = value < least ? least : value > greatest ? greatest : value;
  if (result.wide) {
    static_cast<int16_t*>(result.data)[index] = static_cast<int16_t>(clipped);
  } else {
    static_cast<int8_t*>(result.data)[index] = static_cast<int8_t>(clipped);
  }
}

/// The products wrap; their sum does not.
int32_t dot(int32_t a, int32_t b, const int16_t multiplier[2], int32_t constant) {
  const uint32_t first = static_cast<uint32_t>(a * multiplier[0]), second = static_cast<uint32_t>(b * multiplier[1]);
  return static_cast<int32_t>(first + second + static_cast<uint32_t>(constant));
}

int32_t rounded(int32_t a, int32_t b, const PairSum& with) {
  const uint32_t upper = static_cast<uint32_t>(dot(a, b, with.high, with.constant_high));
  const uint32_t lower = static_cast<uint32_t>(dot(a, b, with.low, with.constant_low) >> 16);
  return static_cast<int32_t>(upper + lower) >> with.shift;
}

void sum(Codes a, Codes b, const PairSum& with, size_t count, CodesOut result) {
  for (size_t index = 0; index < count; ++index) {
    store(rounded(code(a, index), code(b, index), with), with.least, with.greatest, index, result);
  }
}

void scale(Codes a, const PairSum& with, size_t count, CodesOut result) {
  for (size_t index = 0; index < count; ++index) {
    store(rounded(code(a, index), 0, with), with.least, with.greatest, index, result);
  }
}

void multiply(Codes a, Codes b, const CodeProduct& with, size_t count, CodesOut result) {
  for (size_t index = 0; index < count; ++index) {
    const int64_t product = int64_t{code(a, index) - with.zero[0]} * int64_t{code(b, index) - with.zero[1]};
    store((product * with.multiplier + with.constant) >> with.shift, with.least, with.greatest, index, result);
  }
}

}  // namespace

void set_reference(ElementwiseKernels& kernels) {
  kernels.sum = sum;
  kernels.scale = scale;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
