#include "kernels/softmax.h"

namespace qcompiler {
namespace {

constexpr uint64_t limit = (uint64_t{1} << 21) - 1;

template <typename Code>
uint64_t row_terms(const Code* x, size_t count, const SoftmaxExponent& exponent, int32_t* terms) {
  int32_t greatest = INT32_MIN;
  for (size_t index = 0; index < count; ++index) greatest = x[index] > greatest ? x[index] : greatest;
  uint64_t sum = 0;
  for (size_t index = 0; index < count; ++index) {
    const uint32_t distance = static_cast<uint32_t>(greatest - x[index]);
    terms[index] = sizeof(Code) == 1 ? exponent.by_distance[distance] : softmax_term(exponent, distance);
    sum += static_cast<uint64_t>(terms[index]);
  }
  return sum;
}

uint64_t terms(Codes x, size_t count, const SoftmaxExponent& exponent, int32_t* terms) {
  if (x.wide) return row_terms(static_cast<const int16_t*>(x.data), count, exponent, terms);
  return row_terms(static_cast<const int8_t*>(x.data), count, exponent, terms);
}

template <typename Code>
void row_shares(const int32_t* terms, size_t count, const SoftmaxShare& share, Code* result) {
  const uint64_t half = uint64_t{1} << (share.shift - 1);
  for (size_t index = 0; index < count; ++index) {
    const uint64_t product = static_cast<uint64_t>(terms[index]) * share.factor;
    const int32_t code = static_cast<int32_t>((product + half) >> share.shift) + share.zero;
    result[index] = static_cast<Code>(code < share.low ? share.low : code > share.high ? share.high : code);
  }
}

void shares(const int32_t* terms, size_t count, const SoftmaxShare& share, CodesOut result) {
  if (result.wide) return row_shares(terms, count, share, static_cast<int16_t*>(result.data));
  row_shares(terms, count, share, static_cast<int8_t*>(result.data));
}

}  // namespace

int32_t softmax_term(const SoftmaxExponent& exponent, uint32_t distance) {
  const uint64_t half = exponent.right == 0 ? 0 : uint64_t{1} << (exponent.right - 1);
  const uint64_t shifted = (uint64_t{distance} * exponent.multiplier + half) >> exponent.right << exponent.left;
  const uint32_t t = static_cast<uint32_t>(shifted < limit ? shifted : limit);
  const uint32_t index = (t >> 8) & 255, between = t & 255;
  const uint32_t fall = static_cast<uint32_t>(softmax_powers[index] - softmax_powers[index + 1]);
  const uint32_t power = static_cast<uint32_t>(softmax_powers[index]) - ((fall * between + 128) >> 8);
  return static_cast<int32_t>(power >> (t >> 16));
}

void set_reference(SoftmaxKernels& kernels) {
  kernels.terms = terms;
  kernels.shares = shares;
}

}  // namespace qcompiler
