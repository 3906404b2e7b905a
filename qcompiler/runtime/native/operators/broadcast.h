// Broadcasting turned into runs: kernels see pieces of flat arrays, each operand contiguous or one repeated element.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "core/tensor.h"

namespace qcompiler {

/// The shape that two shapes broadcast to (NumPy's rules); an Error where they do not.
Shape broadcast_shape(const Shape& first, const Shape& second);

/// How operands walk along the elements of a result. Axes that all operands pass in one go are merged.
class Broadcast {
 public:
  static constexpr size_t most_operands = 3;

  /// `operands` shapes that broadcast to `result`.
  Broadcast(const Shape& result, std::initializer_list<Shape> operands);

  size_t elements() const { return elements_; }
  /// Length of the innermost merged axis.
  size_t run() const { return sizes_[axes_ - 1]; }
  /// 1 where the operand is contiguous along a run, 0 where one element is repeated.
  size_t step(size_t operand) const { return strides_[axes_ - 1][operand]; }

  /// Position of each operand at element `index` of the result.
  std::array<size_t, most_operands> places(size_t index) const;

  /// Calls `work(index, places, count)` for the pieces of runs that make up the elements `begin` to before `end`.
  template <typename Work>
  void pieces(size_t begin, size_t end, const Work& work) const {
    while (begin < end) {
      const size_t count = std::min(end - begin, run() - begin % run());
      work(begin, places(begin), count);
      begin += count;
    }
  }

 private:
  size_t elements_ = 0, axes_ = 1;
  std::array<size_t, Shape::limit> sizes_{};
  std::array<std::array<size_t, most_operands>, Shape::limit> strides_{};
};

}  // namespace qcompiler
