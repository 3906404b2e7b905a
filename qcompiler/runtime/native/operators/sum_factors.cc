#include "operators/sum_factors.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "operators/broadcast.h"
#include "operators/operands.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;
constexpr uint8_t greatest_digit = 45;
constexpr int64_t greatest_number = int64_t{1} << greatest_digit;

void check_positions(const Shape& factors, const Shape& positions) {
  if (broadcast_shape(factors, positions) == positions) return;
  throw Error("factors of shape " + factors.text() + " do not fit output positions of shape " + positions.text());
}

/// A value for every position of a shape, or one where there is one.
template <typename Element>
std::vector<Element> spread(const Element* values, const Shape& shape, const Shape& positions, bool one) {
  if (one) return {values[0]};
  const Broadcast walk(positions, {shape});
  std::vector<Element> made(walk.elements());
  walk.pieces(0, made.size(), [&](size_t index, const auto& places, size_t count) {
    for (size_t item = 0; item < count; ++item) made[index + item] = values[places[0] + item * walk.step(0)];
  });
  return made;
}

/// B of each row of digits.
std::vector<int64_t> numbers_of(const Tensor& left, const Tensor& negative) {
  const size_t rank = left.shape.rank();
  if (left.type != ElementType::uint8 || negative.type != ElementType::boolean) {
    throw Error("digits are uint8 and bool, not " + element_name(left.type) + " and " + element_name(negative.type));
  }
  require(left.shape == negative.shape && rank > 0 && left.shape[rank - 1] > 0, "digits of different shapes, or none");
  const size_t digits = static_cast<size_t>(left.shape[rank - 1]);
  std::vector<int64_t> made(static_cast<size_t>(left.shape.elements(0, rank - 1)));
  for (size_t index = 0; index < made.size() * digits; ++index) {
    const uint8_t place = left.as<uint8_t>()[index];
    require(place <= greatest_digit, "a digit is at most 2^45");
    const int64_t term = int64_t{1} << place;
    int64_t& number = made[index / digits];
    number += negative.as<uint8_t>()[index] != 0 ? -term : term;
    // Signed digits of a number up to 2^45 may go beyond it for a moment; what they do with sums, the compiler has proven.
    require(number <= 2 * greatest_number && number >= -2 * greatest_number, "digits add up to more than 2^46");
  }
  return made;
}

/// The factor `number * 2^(16 - shift)` as multiplier and shift; false where the multiplier has more than 31 bits.
bool reduced(int64_t number, uint8_t shift, int32_t& multiplier, uint8_t& places) {
  int64_t factor = number * 2;  // of 2^15, so that one shift stays
  int remaining = shift - 15;
  for (; remaining < 1; ++remaining) factor *= 2;
  while (remaining > 1 && factor % 2 == 0) {
    factor /= 2;
    --remaining;
  }
  multiplier = static_cast<int32_t>(factor);
  places = static_cast<uint8_t>(remaining);
  return factor == multiplier;
}

}  // namespace

SumFactors::SumFactors(const Ending& ending, const Inputs& inputs, bool multiplies, const Shape& positions)
    : ending_(ending) {
  check_shift(inputs[multiplies ? 2 : 3]);
  multiplies ? read_multiplier(inputs, positions) : read_digits(inputs, positions);
}

void SumFactors::read_multiplier(const Inputs& inputs, const Shape& positions) {
  check_multiplier(inputs[1]);
  check_positions(inputs[1].shape, positions);
  check_positions(inputs[2].shape, positions);
  const bool one = inputs[1].shape.elements() == 1 && inputs[2].shape.elements() == 1;
  multiplier_ = spread(inputs[1].as<int32_t>(), inputs[1].shape, positions, one);
  shift_ = spread(inputs[2].as<uint8_t>(), inputs[2].shape, positions, one);
}

void SumFactors::read_digits(const Inputs& inputs, const Shape& positions) {
  check_scalar(inputs[3], "a shift");
  const std::vector<int64_t> rows = numbers_of(inputs[1], inputs[2]);
  const Shape shape(inputs[1].shape.begin(), inputs[1].shape.rank() - 1);
  check_positions(shape, positions);
  const uint8_t shift = *inputs[3].as<uint8_t>();
  const std::vector<int64_t> numbers = spread(rows.data(), shape, positions, rows.size() == 1);
  multiplier_.resize(numbers.size());
  shift_.resize(numbers.size());
  bool fits = true;
  for (size_t index = 0; index < numbers.size(); ++index) {
    fits = reduced(numbers[index], shift, multiplier_[index], shift_[index]) && fits;
  }
  if (fits) return;
  scale_ = numbers;
  std::fill(multiplier_.begin(), multiplier_.end(), shift_multiplier);
  std::fill(shift_.begin(), shift_.end(), shift);
}

void SumFactors::finish(const int32_t* sums, size_t position, size_t step, size_t count, void* result) const {
  const bool each = per_position() && step == 1;
  const size_t first = per_position() ? position : 0;
  if (scale_.empty()) {
    return ending_.from32(sums, ending_.with(&multiplier_[first], &shift_[first], each), count, result);
  }
  std::array<int64_t, chunk> wide;
  for (size_t done = 0; done < count; done += chunk) {
    const size_t now = std::min(chunk, count - done);
    std::copy_n(sums + done, now, wide.begin());
    finish(wide.data(), position + done * step, step, now, static_cast<char*>(result) + done * ending_.code_bytes());
  }
}

void SumFactors::finish(const int64_t* sums, size_t position, size_t step, size_t count, void* result) const {
  const bool each = per_position() && step == 1;
  const size_t first = per_position() ? position : 0;
  const Rescale rescale = ending_.with(&multiplier_[first], &shift_[first], each);
  if (scale_.empty()) return ending_.from64(sums, rescale, count, result);
  std::vector<int64_t> scaled(sums, sums + count);
  for (size_t index = 0; index < count; ++index) {
    const uint64_t factor = static_cast<uint64_t>(scale_[first + (each ? index : 0)]);
    scaled[index] = static_cast<int64_t>(static_cast<uint64_t>(scaled[index]) * factor);
  }
  ending_.from64(scaled.data(), rescale, count, result);
}

}  // namespace qcompiler
