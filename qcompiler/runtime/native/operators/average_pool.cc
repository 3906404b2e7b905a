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

/// Rows of the last axis that windows at one position of the outer axes read.
class OuterRows {
 public:
  explicit OuterRows(const std::vector<WindowAxis>& axes) : axes_(axes) {}

  /// Finds the rows for flat position `index` of the outer axes of the output.
  void find(size_t index) {
    rows_.assign(1, 0);
    size_t rest = index, behind = 1;
    for (size_t axis = 0; axis + 1 < axes_.size(); ++axis) behind *= static_cast<size_t>(axes_[axis].output);
    for (size_t axis = 0; axis + 1 < axes_.size(); ++axis) {
      behind /= static_cast<size_t>(axes_[axis].output);
      extend(axes_[axis], static_cast<int64_t>(rest / behind));
      rest %= behind;
    }
  }

  size_t count() const { return rows_.size(); }

  /// Calls `work(first, count, distance)` for runs of rows at equal distances.
  template <typename Work>
  void runs(const Work& work) const {
    for (size_t begin = 0, end; begin < rows_.size(); begin = end) {
      end = begin + 1;
      const size_t distance = end < rows_.size() ? rows_[end] - rows_[begin] : 0;
      while (end < rows_.size() && rows_[end] - rows_[end - 1] == distance) ++end;
      work(rows_[begin], end - begin, distance);
    }
  }

 private:
  void extend(const WindowAxis& axis, int64_t position) {
    const WindowAxis::Elements found = axis.elements(position);
    next_.clear();
    for (const size_t row : rows_) {
      for (size_t index = 0; index < found.count; ++index) {
        const size_t place = found.first + index * static_cast<size_t>(axis.dilation);
        next_.push_back(row * static_cast<size_t>(axis.size) + place);
      }
    }
    rows_.swap(next_);
  }

  const std::vector<WindowAxis>& axes_;
  std::vector<size_t> rows_, next_;
};

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

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
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
    const WindowAxis& inner = axes.back();
    const size_t channels = static_cast<size_t>(x.shape[x.shape.rank() - 1]), width = static_cast<size_t>(inner.output);
    const size_t lines = outputs(axes, axes.size() - 1);
    const size_t work = std::max<size_t>(1, width * channels * count_);
    const size_t total = static_cast<size_t>(x.shape[0]) * lines;
    threads.ranges(total, std::max<size_t>(1, grain / work), [&](size_t begin, size_t end) {
      OuterRows rows(axes);
      for (size_t line = begin; line < end; ++line) {
        rows.find(line % lines);
        const char* image = x.as<char>() + line / lines * sizes(axes) * channels * bytes();
        for (size_t column = 0; column < width; ++column) {
          char* result = static_cast<char*>(output) + (line * width + column) * channels * ending_.code_bytes();
          pixel(image, inner, rows, column, line % lines * width + column, channels, factors, result);
        }
      }
    });
  }

  /// The window at one output pixel, for all channels.
  void pixel(const char* image, const WindowAxis& inner, const OuterRows& rows, size_t column, size_t position,
             size_t channels, const SumFactors& factors, char* result) const {
    const WindowAxis::Elements found = inner.elements(static_cast<int64_t>(column));
    const size_t size = static_cast<size_t>(inner.size), step = static_cast<size_t>(inner.dilation) * channels;
    for (size_t channel = 0; channel < channels; channel += ColumnSums::most) {
      ColumnSums sums(kernels_.pooling, wide_, std::min(channels - channel, ColumnSums::most), count_);
      rows.runs([&](size_t first, size_t count, size_t distance) {
        for (size_t row = 0; row < count && found.count != 0; ++row) {
          const size_t place = (first + row * distance) * size + found.first;
          sums.rows(image + (place * channels + channel) * bytes(), found.count, step);
        }
      });
      sums.finish(factors, zero_, rows.count() * found.count, position, 0, result + channel * ending_.code_bytes());
    }
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
      // several lines are finished together
      const size_t together = std::min(lines, std::max<size_t>(1, 4096 / std::max<size_t>(width, 1)));
      const Scratch columns(padded * sizeof(int32_t)), totals(together * width * sizeof(int64_t));
      OuterRows rows(axes);
      for (size_t line = begin, count; line < end; line += count) {
        count = std::min({end - line, lines - line % lines, together});
        char* result = static_cast<char*>(output) + line * width * ending_.code_bytes();
        const auto add = [&](auto* sums) {
          for (size_t part = 0; part < count; ++part) {
            rows.find((line + part) % lines);
            column_sums(x.as<char>() + line / lines * plane_bytes, inner, rows, columns.as<int32_t>());
            neighbours(columns.as<int32_t>(), inner, sums + part * width);
          }
          factors.finish(sums, line % lines * width, 1, count * width, result);
        };
        wide_ && count_ > ColumnSums::most_wide ? add(totals.as<int64_t>()) : add(totals.as<int32_t>());
      }
    });
  }

  /// Sums over all axes but the last, centred, with zeros as padding around them.
  void column_sums(const char* plane, const WindowAxis& inner, const OuterRows& rows, int32_t* sums) const {
    const size_t width = static_cast<size_t>(inner.size);
    const uint32_t share = static_cast<uint32_t>(rows.count()) * static_cast<uint32_t>(zero_);
    int32_t* inside = sums + inner.begin;
    std::fill(sums, inside, 0);
    std::fill_n(inside, width, static_cast<int32_t>(0 - share));
    std::fill_n(inside + width, inner.end, 0);
    rows.runs([&](size_t first, size_t count, size_t distance) {
      kernels_.pooling.add_rows(plane + first * width * bytes(), wide_, count, distance * width, width, inside);
    });
  }

  template <typename Sum>
  static void neighbours(const int32_t* columns, const WindowAxis& axis, Sum* sums) {
    const size_t width = static_cast<size_t>(axis.output), stride = static_cast<size_t>(axis.stride);
    for (size_t index = 0; index < width; ++index) sums[index] = columns[index * stride];
    for (int64_t element = 1; element < axis.kernel; ++element) {
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
