// QMaxPool: the greatest code of each window along one axis.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/scratch.h"
#include "kernels/table.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/window.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;

class MaxPool final : public Operator {
 public:
  explicit MaxPool(const Definition& definition)
      : kernels_(definition.kernels),
        axis_(static_cast<size_t>(definition.attributes.integer("axis", 0, int64_t{Shape::limit} - 1))),
        window_{definition.attributes.integer("kernel", 1, WindowAxis::longest),
                definition.attributes.integer("stride", 1, WindowAxis::longest),
                definition.attributes.integer("dilation", 1, WindowAxis::longest),
                definition.attributes.integer("begin", 0, WindowAxis::most_padding),
                definition.attributes.integer("end", 0, WindowAxis::most_padding)},
        type_(static_cast<ElementType>(definition.attributes.integer("to", 0, 64))) {}

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    check_codes(x);
    require(axis_ < x.shape.rank(), "attribute 'axis' names no axis of the tensor");
    if (type_ != x.type) throw Error("codes stay " + element_name(x.type) + ", not " + element_name(type_));
    Shape shape = x.shape;
    shape[axis_] = window_.sized(x.shape[axis_]).output;
    return {type_, Shape(shape.begin(), shape.rank())};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& x = inputs[0];
    const WindowAxis axis = window_.sized(x.shape[axis_]);
    const size_t inner = static_cast<size_t>(x.shape.elements(axis_ + 1, x.shape.rank()));
    const size_t outer = static_cast<size_t>(x.shape.elements(0, axis_));
    if (inner > 1) {
      rows(x, axis, outer, inner, static_cast<char*>(output), threads);
    } else if (inner == 1) {
      lines(x, axis, outer, static_cast<char*>(output), threads);
    }
  }

 private:
  bool wide() const { return type_ == ElementType::int16; }
  size_t bytes() const { return wide() ? 2 : 1; }

  /// Codes that never win.
  void fill_least(char* codes, size_t count) const {
    if (wide()) {
      std::fill_n(reinterpret_cast<int16_t*>(codes), count, int16_t{-32768});
    } else {
      std::fill_n(reinterpret_cast<int8_t*>(codes), count, int8_t{-128});
    }
  }

  /// Axes behind the pooled one: whole rows of codes are compared.
  void rows(const Tensor& x, const WindowAxis& axis, size_t outer, size_t inner, char* output,
            const Threads& threads) const {
    const size_t positions = static_cast<size_t>(axis.output), size = static_cast<size_t>(axis.size);
    const size_t work = inner * static_cast<size_t>(axis.kernel);
    threads.ranges(outer * positions, std::max<size_t>(1, grain / work), [&](size_t begin, size_t end) {
      for (size_t index = begin; index < end; ++index) {
        const WindowAxis::Elements found = axis.elements(static_cast<int64_t>(index % positions));
        char* result = output + index * inner * bytes();
        if (found.count == 0) {
          fill_least(result, inner);
          continue;
        }
        const char* first = x.as<char>() + (index / positions * size + found.first) * inner * bytes();
        const size_t stride = static_cast<size_t>(axis.dilation) * inner;
        kernels_.pooling.greatest(first, wide(), found.count, stride, inner, result);
      }
    });
  }

  /// The last axis: lines are laid out one behind the other with their padding, and every window is computed, also
  /// those between strides and across lines; then the wanted ones are picked.
  void lines(const Tensor& x, const WindowAxis& axis, size_t outer, char* output, const Threads& threads) const {
    const size_t size = static_cast<size_t>(axis.size), padded = static_cast<size_t>(axis.size + axis.begin + axis.end);
    const size_t reach = static_cast<size_t>((axis.kernel - 1) * axis.dilation + 1);
    const size_t together = std::max<size_t>(1, 4096 / padded);
    threads.ranges(outer, std::max<size_t>(1, grain / padded), [&](size_t begin, size_t end) {
      const Scratch laid(together * padded * bytes()), greatest(together * padded * bytes());
      fill_least(laid.as<char>(), together * padded);
      while (begin < end) {
        const size_t count = std::min(together, end - begin);
        for (size_t line = 0; line < count; ++line) {
          char* place = laid.as<char>() + (line * padded + static_cast<size_t>(axis.begin)) * bytes();
          std::memcpy(place, x.as<char>() + (begin + line) * size * bytes(), size * bytes());
        }
        const size_t columns = count * padded - reach + 1;
        kernels_.pooling.greatest(laid.as<char>(), wide(), static_cast<size_t>(axis.kernel),
                                  static_cast<size_t>(axis.dilation), columns, greatest.as<char>());
        if (wide()) {
          pick(greatest.as<int16_t>(), axis, count, padded, reinterpret_cast<int16_t*>(output), begin);
        } else {
          pick(greatest.as<int8_t>(), axis, count, padded, reinterpret_cast<int8_t*>(output), begin);
        }
        begin += count;
      }
    });
  }

  template <typename Code>
  static void pick(const Code* from, const WindowAxis& axis, size_t lines, size_t padded, Code* output, size_t begin) {
    const size_t positions = static_cast<size_t>(axis.output), stride = static_cast<size_t>(axis.stride);
    for (size_t line = 0; line < lines; ++line) {
      const Code* first = from + line * padded;
      Code* result = output + (begin + line) * positions;
      if (stride == 1) {
        std::memcpy(result, first, positions * sizeof(Code));
      } else if (stride == 2) {
        for (size_t index = 0; index < positions; ++index) result[index] = first[2 * index];
      } else {
        for (size_t index = 0; index < positions; ++index) result[index] = first[stride * index];
      }
    }
  }

  const Kernels& kernels_;
  size_t axis_;
  WindowAxis window_;
  ElementType type_;
};

}  // namespace

void add_max_pool(Registry& registry) {
  registry["QMaxPool"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                            return std::make_unique<MaxPool>(definition);
                          },
                          1};
}

}  // namespace qcompiler
