// QAveragePool and QAveragePoolChannelsLast with their variants: sums of windows, rescaled.
#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/scratch.h"
#include "kernels/table.h"
#include "operators/column_sums.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/sum_factors.h"
#include "operators/window.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;  // codes that are added

/// Calls `work(offset, count)` for the pieces of a window: for every combination of its elements along all axes but
/// the last `inner`, the distance of the first element there. Recursive, outermost axis first.
template <typename Work>
void outer_elements(const std::vector<WindowAxis>& axes, const std::vector<int64_t>& position, size_t axis, size_t until,
                    size_t offset, const Work& work) {
  if (axis == until) return work(offset);
  const WindowAxis::Elements found = axes[axis].elements(position[axis]);
  for (size_t index = 0; index < found.count; ++index) {
    const size_t place = found.first + index * static_cast<size_t>(axes[axis].dilation);
    outer_elements(axes, position, axis + 1, until, offset * static_cast<size_t>(axes[axis].size) + place, work);
  }
}

/// Coordinates of a flat index along the first `count` axes of the output.
std::vector<int64_t> coordinates(const std::vector<WindowAxis>& axes, size_t count, size_t index) {
  std::vector<int64_t> found(count);
  for (size_t axis = count; axis-- > 0;) {
    found[axis] = static_cast<int64_t>(index) % axes[axis].output;
    index /= static_cast<size_t>(axes[axis].output);
  }
  return found;
}

class AveragePool final : public Operator {
 public:
  explicit AveragePool(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        last_(definition.type.find("ChannelsLast") != std::string::npos),
        wide_(definition.type.find("Wide") != std::string::npos),
        multiplies_(definition.type.find("Shift") == std::string::npos),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)),
        axes_(read_window(definition.attributes)) {
    size_t rows = 1;
    for (size_t axis = 0; axis < axes_.size(); ++axis) {
      count_ *= static_cast<size_t>(axes_[axis].kernel);
      if (axis + 1 < axes_.size()) rows *= static_cast<size_t>(axes_[axis].kernel);
      require(count_ <= size_t{1} << 31, "a window of more than 2^31 elements");
    }
    require(last_ || rows <= ColumnSums::most_wide, "a window of more than 32767 rows");
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    if (x.type != (wide_ ? ElementType::int16 : ElementType::int8)) {
      throw Error(std::string("codes are ") + (wide_ ? "int16" : "int8") + " here, not " + element_name(x.type));
    }
    check_zero(x, zero_);
    const std::vector<WindowAxis> axes = sized(x.shape);
    SumFactors(ending_, inputs, multiplies_, positions(axes));  // checks them
    Shape shape{x.shape[0]};
    if (!last_) shape.append(x.shape[1]);
    for (const WindowAxis& axis : axes) shape.append(axis.output);
    if (last_) shape.append(x.shape[x.shape.rank() - 1]);
    return {ending_.clamp().type, Shape(shape.begin(), shape.rank())};
  }

  void run(const Inputs& inputs, void* output, const Threads& threads) const override {
    const std::vector<WindowAxis> axes = sized(inputs[0].shape);
    const SumFactors factors(ending_, inputs, multiplies_, positions(axes));
    last_ ? pixels(inputs[0], axes, factors, output, threads) : rows(inputs[0], axes, factors, output, threads);
  }

 private:
  std::vector<WindowAxis> sized(const Shape& shape) const {
    if (shape.rank() != axes_.size() + 2) {
      throw Error("a tensor of rank " + std::to_string(shape.rank()) + " under a window of " +
                  std::to_string(axes_.size()) + " axes");
    }
    std::vector<WindowAxis> axes;
    for (size_t axis = 0; axis < axes_.size(); ++axis) axes.push_back(axes_[axis].sized(shape[axis + (last_ ? 1 : 2)]));
    return axes;
  }

  Shape positions(const std::vector<WindowAxis>& axes) const {
    Shape shape;
    for (const WindowAxis& axis : axes) shape.append(axis.output);
    if (last_) shape.append(1);
    return shape;
  }

  static size_t outputs(const std::vector<WindowAxis>& axes, size_t count) {
    size_t product = 1;
    for (size_t axis = 0; axis < count; ++axis) product *= static_cast<size_t>(axes[axis].output);
    return product;
  }

  static size_t sizes(const std::vector<WindowAxis>& axes) {
    size_t product = 1;
    for (const WindowAxis& axis : axes) product *= static_cast<size_t>(axis.size);
    return product;
  }

  size_t bytes() const { return wide_ ? 2 : 1; }

  /// Channels last: sums side by side, one output pixel after the other.
  void pixels(const Tensor& x, const std::vector<WindowAxis>& axes, const SumFactors& factors, void* output,
              const Threads& threads) const {
    const size_t channels = static_cast<size_t>(x.shape[x.shape.rank() - 1]), places = outputs(axes, axes.size());
    const size_t work = std::max<size_t>(1, channels * count_);
    threads.ranges(static_cast<size_t>(x.shape[0]) * places, std::max<size_t>(1, grain / work), [&](size_t begin, size_t end) {
      for (size_t pixel = begin; pixel < end; ++pixel) {
        const char* image = x.as<char>() + pixel / places * sizes(axes) * channels * bytes();
        for (size_t channel = 0; channel < channels; channel += ColumnSums::most) {
          ColumnSums sums(kernels_.pooling, wide_, std::min(channels - channel, ColumnSums::most), count_);
          const size_t count = window(image + channel * bytes(), axes, pixel % places, channels, sums);
          char* result = static_cast<char*>(output) + (pixel * channels + channel) * ending_.code_bytes();
          sums.finish(factors, zero_, count, pixel % places, 0, result);
        }
      }
    });
  }

  /// Adds the elements of one window; gives their number.
  size_t window(const char* image, const std::vector<WindowAxis>& axes, size_t place, size_t channels,
                ColumnSums& sums) const {
    const WindowAxis& inner = axes.back();
    const std::vector<int64_t> position = coordinates(axes, axes.size(), place);
    const WindowAxis::Elements found = inner.elements(position.back());
    size_t count = 0;
    outer_elements(axes, position, 0, axes.size() - 1, 0, [&](size_t row) {
      const size_t first = row * static_cast<size_t>(inner.size) + found.first;
      if (found.count == 0) return;
      sums.rows(image + first * channels * bytes(), found.count, static_cast<size_t>(inner.dilation) * channels);
      count += found.count;
    });
    return count;
  }

  /// Channels first: rows of the input are added, then neighbours in the row of their sums.
  void rows(const Tensor& x, const std::vector<WindowAxis>& axes, const SumFactors& factors, void* output,
            const Threads& threads) const {
    const WindowAxis& inner = axes.back();
    const size_t lines = outputs(axes, axes.size() - 1), width = static_cast<size_t>(inner.output);
    const size_t planes = static_cast<size_t>(x.shape[0] * x.shape[1]), plane_bytes = sizes(axes) * bytes();
    const size_t padded = static_cast<size_t>(inner.size + inner.begin + inner.end);
    const size_t work = std::max<size_t>(1, padded * (count_ / static_cast<size_t>(inner.kernel)));
    threads.ranges(planes * lines, std::max<size_t>(1, grain / work), [&](size_t begin, size_t end) {
      const Scratch columns(padded * sizeof(int32_t)), totals(width * sizeof(int64_t));
      for (size_t line = begin; line < end; ++line) {
        column_sums(x.as<char>() + line / lines * plane_bytes, axes, line % lines, padded, columns.as<int32_t>());
        char* result = static_cast<char*>(output) + line * width * ending_.code_bytes();
        if (wide_ && count_ > ColumnSums::most_wide) {
          neighbours(columns.as<int32_t>(), inner, totals.as<int64_t>());
          factors.finish(totals.as<int64_t>(), line % lines * width, 1, width, result);
        } else {
          neighbours(columns.as<int32_t>(), inner, totals.as<int32_t>());
          factors.finish(totals.as<int32_t>(), line % lines * width, 1, width, result);
        }
      }
    });
  }

  /// Sums over all axes but the last, centred, with zeros as padding around them.
  void column_sums(const char* plane, const std::vector<WindowAxis>& axes, size_t line, size_t padded,
                   int32_t* sums) const {
    const WindowAxis& inner = axes.back();
    const size_t width = static_cast<size_t>(inner.size);
    std::fill_n(sums, padded, 0);
    int32_t* inside = sums + inner.begin;
    uint32_t count = 0;
    outer_elements(axes, coordinates(axes, axes.size() - 1, line), 0, axes.size() - 1, 0, [&](size_t row) {
      kernels_.pooling.add_rows(plane + row * width * bytes(), wide_, 1, 0, width, inside);
      ++count;
    });
    const uint32_t share = count * static_cast<uint32_t>(zero_);
    for (size_t index = 0; index < width; ++index) {
      inside[index] = static_cast<int32_t>(static_cast<uint32_t>(inside[index]) - share);
    }
  }

  template <typename Sum>
  static void neighbours(const int32_t* columns, const WindowAxis& axis, Sum* sums) {
    const size_t width = static_cast<size_t>(axis.output), stride = static_cast<size_t>(axis.stride);
    std::fill_n(sums, width, Sum{0});
    for (int64_t element = 0; element < axis.kernel; ++element) {
      const int32_t* from = columns + element * axis.dilation;
      if (stride == 1) {
        for (size_t index = 0; index < width; ++index) sums[index] += from[index];
      } else {
        for (size_t index = 0; index < width; ++index) sums[index] += from[index * stride];
      }
    }
  }

  const Kernels& kernels_;
  Ending ending_;
  bool last_, wide_, multiplies_;
  int64_t zero_;
  std::vector<WindowAxis> axes_;
  size_t count_ = 1;  ///< Elements of a window.
};

}  // namespace

void add_average_pool(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<AveragePool>(definition);
  };
  for (const char* layout : {"", "ChannelsLast"}) {
    for (const char* width : {"", "Wide"}) {
      const std::string type = std::string("QAveragePool") + layout + width;
      registry[type] = {make, 3};
      registry[type + "Shift"] = {make, 4};
    }
  }
}

}  // namespace qcompiler
