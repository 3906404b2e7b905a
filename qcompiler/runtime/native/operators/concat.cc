// QConcat and QConcatShift: two tensors of codes, each rescaled, joined along an axis.
#include <algorithm>
#include <optional>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/scale.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;

class Concat final : public Operator {
 public:
  explicit Concat(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        multiplies_(definition.type == "QConcat"),
        axis_(definition.attributes.integer("axis", -int64_t{Shape::limit}, int64_t{Shape::limit} - 1)),
        zero_{definition.attributes.integer("a_zero_point", INT32_MIN, INT32_MAX),
              definition.attributes.integer("b_zero_point", INT32_MIN, INT32_MAX)} {}

  Result result(const Inputs& inputs) const override {
    for (size_t operand = 0; operand < 2; ++operand) {
      check_codes(inputs[operand]);
      if (multiplies_) {
        check_scalar(multiplier(inputs, operand), "a multiplier");
        check_multiplier(multiplier(inputs, operand));
      }
      check_scalar(shift(inputs, operand), "a shift");
      check_shift(shift(inputs, operand));
    }
    return {ending_.clamp().type, joined(inputs[0].shape, inputs[1].shape)};
  }

  void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const override {
    const size_t axis = shape.axis(axis_), row = static_cast<size_t>(shape.elements(axis, shape.rank()));
    const size_t first_row = static_cast<size_t>(inputs[0].shape.elements(axis, shape.rank()));
    const Scale first = scale(inputs, 0), second = scale(inputs, 1);
    const size_t elements = static_cast<size_t>(shape.elements());
    threads.ranges(elements, grain, [&](size_t begin, size_t end) {
      while (begin < end) {  // pieces of rows that come from one operand
        const size_t outer = begin / row, inner = begin % row;
        const bool behind = inner >= first_row;
        const size_t count = std::min(end - begin, (behind ? row : first_row) - inner);
        const size_t place = behind ? outer * (row - first_row) + inner - first_row : outer * first_row + inner;
        char* result = static_cast<char*>(output) + begin * ending_.code_bytes();
        (behind ? second : first).run(inputs[behind ? 1 : 0], place, count, result);
        begin += count;
      }
    });
  }

 private:
  const Tensor& multiplier(const Inputs& inputs, size_t operand) const { return inputs[2 + 2 * operand]; }
  const Tensor& shift(const Inputs& inputs, size_t operand) const {
    return inputs[multiplies_ ? 3 + 2 * operand : 2 + operand];
  }

  Scale scale(const Inputs& inputs, size_t operand) const {
    const int32_t factor = multiplies_ ? *multiplier(inputs, operand).as<int32_t>() : shift_multiplier;
    const uint8_t places = *shift(inputs, operand).as<uint8_t>();
    return Scale(kernels_, ending_, inputs[operand].type, zero_[operand], factor, places);
  }

  Shape joined(const Shape& first, const Shape& second) const {
    require(first.rank() == second.rank() && first.rank() > 0, "tensors of different ranks, or scalars, do not join");
    const size_t axis = first.axis(axis_);
    Shape made = first;
    made[axis] += second[axis];
    for (size_t other = 0; other < first.rank(); ++other) {
      if (other != axis && first[other] != second[other]) {
        throw Error("shapes " + first.text() + " and " + second.text() + " do not join along axis " +
                    std::to_string(axis));
      }
    }
    return Shape(made.begin(), made.rank());  // checks the number of elements
  }

  const Kernels& kernels_;
  Ending ending_;
  bool multiplies_;
  int64_t axis_;
  int64_t zero_[2];
};

}  // namespace

void add_concat(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Concat>(definition);
  };
  registry["QConcat"] = {make, 6};
  registry["QConcatShift"] = {make, 4};
}

}  // namespace qcompiler
