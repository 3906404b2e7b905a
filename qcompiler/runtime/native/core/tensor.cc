#include "core/tensor.h"

#include <algorithm>

#include "core/error.h"

namespace qcompiler {
namespace {

constexpr int64_t most_elements = int64_t{1} << 40;

void check_product(const Shape& shape) {
  int64_t product = 1;
  for (int64_t size : shape) {
    if (size < 0) throw Error("a tensor of shape " + shape.text() + " has a negative size");
    if (size != 0 && product > most_elements / size) {
      throw Error("a tensor of shape " + shape.text() + " has more than 2^40 elements");
    }
    product *= std::max<int64_t>(size, 1);
  }
}

}  // namespace

size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::uint8:
    case ElementType::int8:
    case ElementType::boolean:
      return 1;
    case ElementType::uint16:
    case ElementType::int16:
      return 2;
    case ElementType::float32:
    case ElementType::int32:
      return 4;
    case ElementType::int64:
      return 8;
    default:
      throw Error("elements of type " + element_name(type) + " cannot be used");
  }
}

std::string element_name(ElementType type) {
  switch (type) {
    case ElementType::float32: return "float";
    case ElementType::uint8: return "uint8";
    case ElementType::int8: return "int8";
    case ElementType::uint16: return "uint16";
    case ElementType::int16: return "int16";
    case ElementType::int32: return "int32";
    case ElementType::int64: return "int64";
    case ElementType::boolean: return "bool";
    case ElementType::uint4: return "uint4";
    case ElementType::int4: return "int4";
    case ElementType::undefined: return "undefined";
  }
  return "number " + std::to_string(static_cast<int32_t>(type));
}

Shape::Shape(std::initializer_list<int64_t> sizes) : Shape(sizes.begin(), sizes.size()) {}

Shape::Shape(const int64_t* sizes, size_t rank) {
  if (rank > limit) throw Error("a tensor has " + std::to_string(rank) + " axes; at most 8 are supported");
  std::copy(sizes, sizes + rank, sizes_.begin());
  rank_ = rank;
  check_product(*this);
}

void Shape::append(int64_t size) {
  if (rank_ == limit) throw Error("a tensor has more than 8 axes");
  sizes_[rank_++] = size;
  check_product(*this);
}

int64_t Shape::elements(size_t first, size_t last) const {
  int64_t product = 1;
  for (size_t axis = first; axis < last; ++axis) product *= sizes_[axis];
  return product;
}

size_t Shape::axis(int64_t axis) const {
  const int64_t rank = static_cast<int64_t>(rank_);
  if (axis < -rank || axis >= rank) {
    throw Error("axis " + std::to_string(axis) + " does not exist in a tensor of shape " + text());
  }
  return static_cast<size_t>(axis < 0 ? axis + rank : axis);
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

std::string Shape::text() const {
  std::string text = "[";
  for (size_t axis = 0; axis < rank_; ++axis) text += (axis ? ", " : "") + std::to_string(sizes_[axis]);
  return text + "]";
}

}  // namespace qcompiler
