// The pixels of a result one after the other, and where their operands begin in an image.
#pragma once

#include <algorithm>

#include "operators/convolution_geometry.h"

namespace qcompiler {

class ConvolutionPixels {
 public:
  /// `channels`: bytes of a pixel of the image.
  ConvolutionPixels(const ConvolutionGeometry& geometry, size_t channels, size_t first)
      : axes_(geometry.axes),
        step_(static_cast<size_t>(geometry.axes[2].stride) * channels),
        line_(static_cast<size_t>(geometry.axes[2].padded) * channels) {
    const int64_t pixel = static_cast<int64_t>(first), line = pixel / axes_[2].output;
    depth_ = line / axes_[1].output;
    height_ = line % axes_[1].output;
    width_ = static_cast<size_t>(pixel % axes_[2].output);
  }

  /// The addresses of the next `count` operands.
  void take(const uint8_t* image, size_t count, const uint8_t** row) {
    while (count > 0) {
      const int64_t line = depth_ * axes_[0].stride * axes_[1].padded + height_ * axes_[1].stride;
      const uint8_t* begin = image + static_cast<size_t>(line) * line_ + width_ * step_;
      const size_t here = std::min(count, static_cast<size_t>(axes_[2].output) - width_);
      for (size_t index = 0; index < here; ++index) row[index] = begin + index * step_;
      count -= here;
      row += here;
      width_ += here;
      if (width_ == static_cast<size_t>(axes_[2].output)) next_line();
    }
  }

 private:
  void next_line() {
    width_ = 0;
    if (++height_ < axes_[1].output) return;
    height_ = 0;
    ++depth_;
  }

  const std::array<ConvolutionAxis, 3>& axes_;
  size_t step_, line_;
  int64_t depth_, height_;
  size_t width_;
};

}  // namespace qcompiler
