// Which elements a reduction over axes adds up, as runs that kernels take.
#pragma once

#include <cstddef>
#include <vector>

#include "core/tensor.h"

namespace qcompiler {

/// Axes of a tensor, neighbours of one kind merged. The innermost one or two are the kernel's: either `columns` sums
/// side by side, each over `unit` rows (innermost axis kept), or `columns` lines of `unit` elements (innermost axis
/// reduced). The others are walked.
struct Reduction {
  struct Axis {
    size_t size, stride;
  };

  /// `reduced[axis]` says whether the axis is summed over.
  Reduction(const Shape& shape, const std::vector<bool>& reduced);

  bool lines = false;
  size_t columns = 1, unit = 1, stride = 0;  ///< Stride of rows, or of lines.
  size_t count = 1;                          ///< Elements of one sum.
  std::vector<Axis> kept, summed;            ///< Walked axes, outermost first.

  /// First element of the sums that belong to index `index` of the kept walked axes.
  static size_t place(const std::vector<Axis>& axes, size_t index);
  static size_t elements(const std::vector<Axis>& axes);
};

}  // namespace qcompiler
