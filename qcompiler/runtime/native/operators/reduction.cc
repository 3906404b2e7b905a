#include "operators/reduction.h"

namespace qcompiler {
namespace {

struct Merged {
  size_t size, stride;
  bool reduced;
};

/// Outermost first; without axes of size 1, neighbours of one kind as one.
std::vector<Merged> merge(const Shape& shape, const std::vector<bool>& reduced) {
  std::vector<Merged> found;
  for (size_t axis = 0; axis < shape.rank(); ++axis) {
    const size_t size = static_cast<size_t>(shape[axis]);
    const size_t stride = static_cast<size_t>(shape.elements(axis + 1, shape.rank()));
    if (size == 1) continue;
    if (!found.empty() && found.back().reduced == reduced[axis]) {
      found.back() = {found.back().size * size, stride, reduced[axis]};
    } else {
      found.push_back({size, stride, reduced[axis]});
    }
  }
  return found;
}

}  // namespace

Reduction::Reduction(const Shape& shape, const std::vector<bool>& reduced) {
  std::vector<Merged> axes = merge(shape, reduced);
  for (const Merged& axis : axes) {
    if (axis.reduced) count *= axis.size;
  }
  if (!axes.empty()) {
    lines = axes.back().reduced;
    (lines ? unit : columns) = axes.back().size;
    axes.pop_back();
  }
  if (!axes.empty()) {  // of the other kind
    (lines ? columns : unit) = axes.back().size;
    stride = axes.back().stride;
    axes.pop_back();
  }
  for (const Merged& axis : axes) (axis.reduced ? summed : kept).push_back({axis.size, axis.stride});
}

size_t Reduction::place(const std::vector<Axis>& axes, size_t index) {
  size_t found = 0;
  for (size_t axis = axes.size(); axis-- > 0;) {
    found += index % axes[axis].size * axes[axis].stride;
    index /= axes[axis].size;
  }
  return found;
}

size_t Reduction::elements(const std::vector<Axis>& axes) {
  size_t product = 1;
  for (const Axis& axis : axes) product *= axis.size;
  return product;
}

}  // namespace qcompiler
