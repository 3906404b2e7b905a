// QReduceMean, QGlobalAveragePool and their variants: sums over whole axes, rescaled.
#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/column_sums.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/reduction.h"
#include "operators/sum_factors.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;  // codes that are read

class Mean final : public Operator {
 public:
  explicit Mean(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        global_(definition.type.rfind("QGlobal", 0) == 0),
        wide_(definition.type.find("Wide") != std::string::npos),
        multiplies_(definition.type.find("Shift") == std::string::npos),
        keeps_(true),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)) {
    if (global_) return;
    keeps_ = definition.attributes.integer("keepdims", 0, 1) != 0;
    axes_ = definition.attributes.integers("axes", 0, int64_t{Shape::limit} - 1);
    require(!axes_.empty(), "attribute 'axes' names no axis");
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    if (x.type != (wide_ ? ElementType::int16 : ElementType::int8)) {
      throw Error(std::string("codes are ") + (wide_ ? "int16" : "int8") + " here, not " + element_name(x.type));
    }
    check_zero(x, zero_);
    const std::vector<bool> reduced = reduced_axes(x.shape);
    Shape shape;
    for (size_t axis = 0; axis < x.shape.rank(); ++axis) {
      if (!reduced[axis]) shape.append(x.shape[axis]);
      if (reduced[axis] && keeps_) shape.append(1);
    }
    SumFactors(ending_, inputs, multiplies_, shape);  // checks them
    return {ending_.clamp().type, shape};
  }

  void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const override {
    const Tensor& x = inputs[0];
    const Reduction walk(x.shape, reduced_axes(x.shape));
    const SumFactors factors(ending_, inputs, multiplies_, shape);
    const size_t elements = Reduction::elements(walk.kept) * walk.columns;
    const size_t least = std::max<size_t>(1, grain / std::max<size_t>(walk.count, 1));
    threads.ranges(elements, least, [&](size_t begin, size_t end) {
      while (begin < end) {
        const size_t column = begin % walk.columns;
        const size_t count = std::min({end - begin, walk.columns - column, ColumnSums::most});
        char* result = static_cast<char*>(output) + begin * ending_.code_bytes();
        some(x, walk, begin / walk.columns, column, count, factors, begin, result);
        begin += count;
      }
    });
  }

 private:
  std::vector<bool> reduced_axes(const Shape& shape) const {
    std::vector<bool> reduced(shape.rank(), false);
    if (global_) {
      require(shape.rank() >= 2, "a tensor without channels has no spatial axes");
      std::fill(reduced.begin() + 2, reduced.end(), true);
      return reduced;
    }
    for (const int64_t axis : axes_) {
      require(axis < static_cast<int64_t>(shape.rank()), "an axis that the tensor does not have");
      require(!reduced[static_cast<size_t>(axis)], "an axis is named twice");
      reduced[static_cast<size_t>(axis)] = true;
    }
    return reduced;
  }

  /// `count` neighbouring sums from `column` on.
  void some(const Tensor& x, const Reduction& walk, size_t kept, size_t column, size_t count, const SumFactors& factors,
            size_t position, void* result) const {
    ColumnSums sums(kernels_.pooling, wide_, count, walk.count);
    const size_t first = Reduction::place(walk.kept, kept) + column * (walk.lines ? walk.stride : 1);
    const size_t rest = walk.count == 0 ? 0 : Reduction::elements(walk.summed);
    for (size_t index = 0; index < rest; ++index) {
      const char* place = x.as<char>() + (first + Reduction::place(walk.summed, index)) * (wide_ ? 2 : 1);
      walk.lines ? sums.lines(place, walk.stride, walk.unit) : sums.rows(place, walk.unit, walk.stride);
    }
    sums.finish(factors, zero_, walk.count, position, 1, result);
  }

  const Kernels& kernels_;
  Ending ending_;
  bool global_, wide_, multiplies_, keeps_;
  int64_t zero_;
  std::vector<int64_t> axes_;
};

}  // namespace

void add_mean(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Mean>(definition);
  };
  for (const char* family : {"QReduceMean", "QGlobalAveragePool"}) {
    for (const char* width : {"", "Wide"}) {
      registry[std::string(family) + width] = {make, 3};
      registry[std::string(family) + width + "Shift"] = {make, 4};
    }
  }
}

}  // namespace qcompiler
