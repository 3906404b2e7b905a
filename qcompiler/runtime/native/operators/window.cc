#include "operators/window.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace qcompiler {
WindowAxis WindowAxis::sized(int64_t elements) const {
  WindowAxis made = *this;
  const int64_t room = elements + begin + end, reach = (kernel - 1) * dilation + 1;
  if (room < reach) {
    throw Error("a window over " + std::to_string(reach) + " elements exceeds the padded input of " +
                std::to_string(room));
  }
  made.size = elements;
  made.output = (room - reach) / stride + 1;
  return made;
}

WindowAxis::Elements WindowAxis::elements(int64_t position) const {
  const int64_t start = position * stride - begin;
  const int64_t skipped = start >= 0 ? 0 : std::min(kernel, (-start + dilation - 1) / dilation);
  const int64_t first = start + skipped * dilation;
  const int64_t most = first >= size ? 0 : (size - 1 - first) / dilation + 1;
  return {static_cast<size_t>(first), static_cast<size_t>(std::min(kernel - skipped, most))};
}

std::vector<WindowAxis> read_window(const Attributes& attributes) {
  const std::vector<int64_t> kernel = attributes.integers("kernel_shape", 1, WindowAxis::longest);
  const size_t rank = kernel.size();
  require(rank > 0 && rank + 2 <= Shape::limit, "a pool has one to six spatial axes");
  const std::vector<int64_t> strides = attributes.integers("strides", rank, 1, WindowAxis::longest);
  const std::vector<int64_t> dilations = attributes.integers("dilations", rank, 1, WindowAxis::longest);
  const std::vector<int64_t> pads = attributes.integers("pads", 2 * rank, 0, WindowAxis::most_padding);
  std::vector<WindowAxis> axes;
  for (size_t axis = 0; axis < rank; ++axis) {
    axes.push_back({kernel[axis], strides[axis], dilations[axis], pads[axis], pads[rank + axis]});
  }
  return axes;
}

}  // namespace qcompiler
