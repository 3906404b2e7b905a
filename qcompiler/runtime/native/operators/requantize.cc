// Requantize and RequantizeShift: codes or accumulators to codes of another scale.
#include <algorithm>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/clamp.h"
#include "operators/families.h"

namespace qcompiler {
namespace {

constexpr int32_t shift_multiplier = 1 << 16;  // a shift to the left by 16 is a product with 2^16

Shape broadcast(const Shape& first, const Shape& second) {
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
  return result;
}

int64_t read(const Tensor& tensor, int64_t index) {
  switch (tensor.type) {
    case ElementType::int8: return tensor.as<int8_t>()[index];
    case ElementType::int16: return tensor.as<int16_t>()[index];
    case ElementType::int32: return tensor.as<int32_t>()[index];
    case ElementType::int64: return tensor.as<int64_t>()[index];
    default: throw Error("codes are int8, int16, int32 or int64, not " + element_name(tensor.type));
  }
}

/// Position in `operand` of element `index` of `shape`, which it broadcasts against.
int64_t position(const Shape& operand, const Shape& shape, int64_t index) {
  int64_t place = 0, step = 1;
  for (size_t axis = shape.rank(); axis-- > 0 && axis + operand.rank() >= shape.rank();) {
    const int64_t size = operand[axis + operand.rank() - shape.rank()];
    if (size != 1) place += step * (index % shape[axis]);
    index /= shape[axis];
    step *= size;
  }
  return place;
}

class Requantize final : public Operator {
 public:
  explicit Requantize(const Definition& definition)
      : kernels_(definition.kernels),
        multiplies_(definition.type == "Requantize"),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)),
        clamp_(Clamp::read(definition.attributes)) {
    require(clamp_.type != ElementType::int32, "Requantize gives int8 or int16");
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& shift = inputs[multiplies_ ? 2 : 1];
    if (multiplies_) check_multiplier(inputs[1]);
    check_shift(shift);
    if (inputs[0].shape.elements() > 0) read(inputs[0], 0);
    const Shape factors = multiplies_ ? broadcast(inputs[1].shape, shift.shape) : shift.shape;
    return {clamp_.type, broadcast(inputs[0].shape, factors)};
  }

  void run(const Inputs& inputs, void* output, const Threads& threads) const override {
    const Shape shape = result(inputs).shape;
    threads.ranges(static_cast<size_t>(shape.elements()), 4096, [&](size_t begin, size_t end) {
      for (size_t index = begin; index < end; ++index) one(inputs, shape, static_cast<int64_t>(index), output);
    });
  }

 private:
  void one(const Inputs& inputs, const Shape& shape, int64_t index, void* output) const {
    const Tensor& shifts = inputs[multiplies_ ? 2 : 1];
    const int64_t sum = read(inputs[0], position(inputs[0].shape, shape, index)) - zero_;
    const int32_t multiplier =
        multiplies_ ? inputs[1].as<int32_t>()[position(inputs[1].shape, shape, index)] : shift_multiplier;
    const uint8_t shift = shifts.as<uint8_t>()[position(shifts.shape, shape, index)];
    const bool wide = clamp_.type == ElementType::int16;
    const Rescale rescale{&multiplier, &shift, false, clamp_.zero, clamp_.low, clamp_.high, wide};
    void* place = static_cast<char*>(output) + index * (wide ? 2 : 1);
    kernels_.rescale.from64(&sum, nullptr, rescale, {1, 1, 1, 1}, place);
  }

  const Kernels& kernels_;
  bool multiplies_;
  int64_t zero_;
  Clamp clamp_;
};

}  // namespace

void add_requantize(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Requantize>(definition);
  };
  registry["Requantize"] = {make, 3};
  registry["RequantizeShift"] = {make, 2};
}

}  // namespace qcompiler
