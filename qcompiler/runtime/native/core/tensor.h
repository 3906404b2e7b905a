// Views of tensors: element type, shape and address. Nothing here owns data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace qcompiler {

/// Element types with ONNX's numbers (TensorProto.DataType).
enum class ElementType : int32_t {
  undefined = 0,
  float32 = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  int32 = 6,
  int64 = 7,
  boolean = 9,
  uint4 = 21,
  int4 = 22,
};

/// Bytes of one element; an Error for types that no operator here takes (4-bit types have no whole bytes).
size_t element_bytes(ElementType type);

/// The type's name in ONNX's words, for messages.
std::string element_name(ElementType type);

/// Sizes of the axes of a tensor, outermost first. At most `limit` axes.
class Shape {
 public:
  static constexpr size_t limit = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  /// Copies `rank` sizes; an Error for too many axes, a negative size, or a product beyond 2^40.
  Shape(const int64_t* sizes, size_t rank);

  size_t rank() const { return rank_; }
  int64_t operator[](size_t axis) const { return sizes_[axis]; }
  int64_t& operator[](size_t axis) { return sizes_[axis]; }
  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + rank_; }
  void append(int64_t size);

  /// Number of elements of the axes from `first` to before `last`.
  int64_t elements(size_t first, size_t last) const;
  int64_t elements() const { return elements(0, rank_); }
  /// Position of an axis that may count from the end; an Error where there is none.
  size_t axis(int64_t axis) const;
  bool operator==(const Shape& other) const;
  bool operator!=(const Shape& other) const { return !(*this == other); }
  std::string text() const;

 private:
  std::array<int64_t, limit> sizes_{};
  size_t rank_ = 0;
};

/// A tensor that is read. `data` is null where it was absent, or where an operator has adopted a packed form of it.
struct Tensor {
  ElementType type = ElementType::undefined;
  Shape shape;
  const void* data = nullptr;

  template <typename Element>
  const Element* as() const {
    return static_cast<const Element*>(data);
  }
  size_t bytes() const { return static_cast<size_t>(shape.elements()) * element_bytes(type); }
};

/// The tensors that a node reads, in order. An optional input that is absent has type `undefined`.
struct Inputs {
  const Tensor* items = nullptr;
  size_t count = 0;

  const Tensor& operator[](size_t index) const { return items[index]; }
  bool has(size_t index) const { return index < count && items[index].type != ElementType::undefined; }
};

}  // namespace qcompiler
