#include "provider/quantized_weight.h"

#include <cmath>
#include <cstdlib>

#include "core/error.h"

namespace qcompiler {
namespace {

/// A code of any of the types; 4-bit codes lie in pairs, the first in the low bits.
int32_t code_at(const Tensor& tensor, size_t index) {
  const auto nibble = [&] { return (tensor.as<uint8_t>()[index / 2] >> (index % 2 * 4)) & 15; };
  switch (tensor.type) {
    case ElementType::int8: return tensor.as<int8_t>()[index];
    case ElementType::uint8: return tensor.as<uint8_t>()[index];
    case ElementType::uint4: return nibble();
    case ElementType::int4: return (nibble() ^ 8) - 8;
    default: throw Error("weights are " + element_name(tensor.type) + "; int8, uint8, int4 and uint4 can be taken");
  }
}

/// Along which axis the outputs lie, and how many codes lie behind it.
struct Layout {
  size_t outputs, behind;
  size_t output(size_t index) const { return index / behind % outputs; }
};

Layout layout_of(const Tensor& weight, bool rows_first) {
  require(weight.shape.rank() >= 2, "the weight is no matrix");
  const size_t axis = rows_first ? 0 : weight.shape.rank() - 1;
  require(weight.shape.elements() > 0, "the weight is empty");
  return {static_cast<size_t>(weight.shape[axis]),
          static_cast<size_t>(weight.shape.elements(axis + 1, weight.shape.rank()))};
}

void check_scales(const QuantizedGroup& group, const Layout& layout, bool rows_first, SignedWeight& made) {
  const Shape& shape = group.w.scale.shape;
  const size_t count = static_cast<size_t>(shape.elements());
  if (count != 1) {
    const size_t axis = group.weight.shape.axis(group.weight_axis);
    require(axis == (rows_first ? 0 : group.weight.shape.rank() - 1), "scales of the weight lie along another axis");
    require(shape.rank() == 1 && count == layout.outputs, "the weight has not one scale per output");
  }
  const float* scales = group.w.scale.as<float>();
  made.scales.assign(scales, scales + count);
  for (float scale : made.scales) require(std::isfinite(scale) && scale > 0, "a scale is not positive and finite");
}

/// From [rows][columns] to [columns][rows].
void turn(SignedWeight& made) {
  const size_t rows = static_cast<size_t>(made.shape[0]), columns = static_cast<size_t>(made.shape[1]);
  std::vector<int8_t> turned(made.codes.size());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      turned[column * rows + row] = made.codes[row * columns + column];
    }
  }
  made.codes = std::move(turned);
  made.shape = Shape{static_cast<int64_t>(columns), static_cast<int64_t>(rows)};
}

}  // namespace

SignedWeight SignedWeight::read(const QuantizedGroup& group, bool rows_first) {
  const Tensor& weight = group.weight;
  const bool is_matrix = !group.product.is("Conv");
  require(!is_matrix || weight.shape.rank() == 2, "the weight of a matrix product has not two axes");
  const Layout layout = layout_of(weight, rows_first);
  SignedWeight made;
  made.shape = weight.shape;
  made.outputs = layout.outputs;
  check_scales(group, layout, rows_first, made);
  made.sums.assign(layout.outputs, 0);
  made.magnitudes.assign(layout.outputs, 0);
  const Tensor& zero = group.w.zero;
  require(zero.type == ElementType::undefined || zero.type == weight.type, "weight and zero point differ in type");
  const size_t count = static_cast<size_t>(weight.shape.elements());
  made.codes.resize(count);
  for (size_t index = 0; index < count; ++index) {
    const size_t output = layout.output(index);
    const size_t place = made.scales.size() == 1 ? 0 : output;
    const int32_t code = code_at(weight, index) - (zero.type == ElementType::undefined ? 0 : code_at(zero, place));
    require(code >= -128 && code <= 127, "without its zero point the weight leaves 8 bits");
    made.codes[index] = static_cast<int8_t>(code);
    made.sums[output] += code;
    made.magnitudes[output] += std::abs(code);
  }
  if (is_matrix && rows_first) turn(made);
  return made;
}

}  // namespace qcompiler
