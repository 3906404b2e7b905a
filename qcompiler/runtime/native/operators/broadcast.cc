#include "operators/broadcast.h"

#include "core/error.h"

namespace qcompiler {

Shape broadcast_shape(const Shape& first, const Shape& second) {
  const size_t rank = std::max(first.rank(), second.rank());
  Shape result;
  for (size_t axis = 0; axis < rank; ++axis) {
    const int64_t one = axis + first.rank() < rank ? 1 : first[axis + first.rank() - rank];
    const int64_t other = axis + second.rank() < rank ? 1 : second[axis + second.rank() - rank];
    if (one != other && one != 1 && other != 1) {
      throw Error("shapes " + first.text() + " and " + second.text() + " do not broadcast");
    }
    result.append(one == 1 ? other : one);
  }
  return Shape(result.begin(), result.rank());  // checks the number of elements
}

namespace {

/// Distance of neighbours along an axis of the result, in elements of an operand that broadcasts to it.
size_t stride_of(const Shape& operand, size_t rank, size_t axis) {
  if (axis + operand.rank() < rank) return 0;
  const size_t own = axis + operand.rank() - rank;
  return operand[own] == 1 ? 0 : static_cast<size_t>(operand.elements(own + 1, operand.rank()));
}

}  // namespace

Broadcast::Broadcast(const Shape& result, std::initializer_list<Shape> operands)
    : elements_(static_cast<size_t>(result.elements())) {
  axes_ = 0;
  for (size_t axis = 0; axis < result.rank(); ++axis) {
    const size_t size = static_cast<size_t>(result[axis]);
    if (size == 1) continue;
    std::array<size_t, most_operands> strides{};
    size_t operand = 0;
    bool continues = axes_ > 0;
    for (const Shape& shape : operands) {
      strides[operand] = stride_of(shape, result.rank(), axis);
      continues = continues && strides_[axes_ - 1][operand] == strides[operand] * size;
      ++operand;
    }
    if (!continues) ++axes_;
    sizes_[axes_ - 1] = continues ? sizes_[axes_ - 1] * size : size;
    strides_[axes_ - 1] = strides;
  }
  if (axes_ == 0) sizes_[axes_++] = 1;  // one element
}

std::array<size_t, Broadcast::most_operands> Broadcast::places(size_t index) const {
  std::array<size_t, most_operands> found{};
  for (size_t axis = axes_; axis-- > 0;) {
    const size_t position = axis == 0 ? index : index % sizes_[axis];
    index /= sizes_[axis];
    for (size_t operand = 0; operand < most_operands; ++operand) found[operand] += position * strides_[axis][operand];
  }
  return found;
}

}  // namespace qcompiler
