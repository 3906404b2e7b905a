// What a convolution's attributes and shapes say, in three spatial axes (missing ones are put in front, of length 1).
//
// Every convolution is computed on an image: the input's codes with their padding around them. A transposed one is a
// plain one with stride 1 on an image in which the codes lie `stretch` apart, with its kernel mirrored
// (qcompiler/quant/integer/convolution.py).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/operator.h"

namespace qcompiler {

/// The node's operator type and attributes.
struct ConvolutionAttributes {
  bool transposed, channels_last, wide, packed, multiplies;
  size_t rank;  ///< Spatial axes, 1 to 3.
  std::array<int64_t, 3> strides, dilations, begins, ends, more;
  int64_t group;
  int32_t zero;  ///< Code of zero in x.
  int bits;      ///< Of a packed weight; 8 otherwise.
  Shape weight;  ///< Shape of the codes of a packed weight.

  static ConvolutionAttributes read(const Definition& definition);
};

struct ConvolutionAxis {
  int64_t kernel, stride, dilation;
  int64_t size;     ///< Codes of the input.
  int64_t stretch;  ///< Distance of neighbouring codes in the image.
  int64_t begin;    ///< Place of the first code in the image; negative where codes are cut away.
  int64_t padded;   ///< Length of the image.
  int64_t output;   ///< Length of the result.

  /// The input's index at a place of the image, or -1 where a code of zero lies there.
  int64_t source(int64_t place) const {
    const int64_t distance = place - begin;
    if (distance < 0 || distance % stretch != 0) return -1;
    return distance / stretch < size ? distance / stretch : -1;
  }
};

struct ConvolutionGeometry {
  int64_t batch, channels, outputs, group;
  std::array<ConvolutionAxis, 3> axes;

  int64_t pixels() const { return axes[0].output * axes[1].output * axes[2].output; }
  int64_t input_pixels() const { return axes[0].size * axes[1].size * axes[2].size; }
  int64_t image_pixels() const { return axes[0].padded * axes[1].padded * axes[2].padded; }
};

/// Checks the codes of a weight `[outputs, channels / group, kernel...]` against the attributes.
void check_weight(const ConvolutionAttributes& attributes, const Shape& weight);

/// Where everything lies. Throws where the shapes do not fit or the kernel is longer than the image.
ConvolutionGeometry geometry_of(const ConvolutionAttributes& attributes, const Shape& x, const Shape& weight);

/// Shape of the result, with the axes of the node.
Shape result_shape(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry);

}  // namespace qcompiler
