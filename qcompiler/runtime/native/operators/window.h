// Windows of a pool: kernel, strides, dilations and pads of the spatial axes, and which elements each window holds.
#pragma once

#include <cstddef>
#include <vector>

#include "core/attributes.h"
#include "core/tensor.h"

namespace qcompiler {

/// One spatial axis. The numbers are bounded so that positions fit 64 bits.
struct WindowAxis {
  static constexpr int64_t longest = int64_t{1} << 31;       ///< Of kernel, stride and dilation.
  static constexpr int64_t most_padding = int64_t{1} << 20;  ///< Padded lines are laid out in memory.

  int64_t kernel, stride, dilation, begin, end;
  int64_t size = 0, output = 0;

  /// Computes `output` for a size; an Error where the window exceeds the padded input.
  WindowAxis sized(int64_t elements) const;

  /// The elements of the window at output position `position` that exist: `count` from `first` on, `dilation` apart.
  struct Elements {
    size_t first, count;
  };
  Elements elements(int64_t position) const;
};

/// The attributes kernel_shape, strides, dilations and pads.
std::vector<WindowAxis> read_window(const Attributes& attributes);

}  // namespace qcompiler
