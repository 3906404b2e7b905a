#include "operators/convolution_geometry.h"

#include <string>

#include "core/error.h"
#include "operators/byte_sums.h"

namespace qcompiler {
namespace {

constexpr int64_t longest = int64_t{1} << 24;  // no stride, dilation, pad or kernel is longer; products fit 64 bits

bool contains(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

/// The last `rank` of three values.
std::array<int64_t, 3> three(const std::vector<int64_t>& values, size_t first, size_t rank, int64_t missing) {
  std::array<int64_t, 3> result{missing, missing, missing};
  for (size_t axis = 0; axis < rank; ++axis) result[3 - rank + axis] = values[first + axis];
  return result;
}

int64_t input_size(const ConvolutionAttributes& attributes, const Shape& x, size_t axis) {
  return x[axis + (attributes.channels_last ? 1 : 2)];
}

ConvolutionAxis plain_axis(const ConvolutionAttributes& attributes, size_t place, int64_t size, int64_t kernel) {
  ConvolutionAxis axis{};
  axis.kernel = kernel;
  axis.stride = attributes.strides[place];
  axis.dilation = attributes.dilations[place];
  axis.size = size;
  axis.stretch = 1;
  axis.begin = attributes.begins[place];
  axis.padded = size + attributes.begins[place] + attributes.ends[place];
  return axis;
}

ConvolutionAxis transposed_axis(const ConvolutionAttributes& attributes, size_t place, int64_t size, int64_t kernel) {
  ConvolutionAxis axis = plain_axis(attributes, place, size, kernel);
  const int64_t reach = axis.dilation * (kernel - 1);
  axis.stretch = axis.stride;
  axis.stride = 1;
  axis.begin = reach - attributes.begins[place];
  const int64_t end = reach - attributes.ends[place] + attributes.more[place];
  require(size <= (int64_t{1} << 40) / axis.stretch, "the stretched input is too large");
  axis.padded = (size > 0 ? axis.stretch * (size - 1) + 1 : 0) + axis.begin + end;
  return axis;
}

}  // namespace

ConvolutionAttributes ConvolutionAttributes::read(const Definition& definition) {
  const Attributes& given = definition.attributes;
  ConvolutionAttributes read{};
  read.transposed = contains(definition.type, "Transpose");
  read.channels_last = contains(definition.type, "ChannelsLast");
  read.wide = contains(definition.type, "Wide");
  read.packed = contains(definition.type, "Packed");
  read.multiplies = !contains(definition.type, "Shift");
  const std::vector<int64_t> strides = given.integers("strides", 1, longest);
  read.rank = strides.size();
  require(read.rank >= 1 && read.rank <= 3, "attribute 'strides' has no values or more than 3: 1 to 3 spatial axes");
  read.strides = three(strides, 0, read.rank, 1);
  read.dilations = three(given.integers("dilations", read.rank, 1, longest), 0, read.rank, 1);
  const std::vector<int64_t> pads = given.integers("pads", 2 * read.rank, 0, longest);
  read.begins = three(pads, 0, read.rank, 0);
  read.ends = three(pads, read.rank, read.rank, 0);
  if (read.transposed) read.more = three(given.integers("output_padding", read.rank, 0, longest), 0, read.rank, 0);
  read.group = given.integer("group", 1, INT32_MAX);
  const int64_t limit = read.wide ? INT16_MAX : INT8_MAX;
  read.zero = static_cast<int32_t>(given.integer("x_zero_point", -limit - 1, limit));
  read.bits = 8;
  if (read.packed) {
    read.bits = static_cast<int>(given.integer("bits", 2, 4));
    const std::vector<int64_t> sizes = given.integers("weight_shape", read.rank + 2, 0, int64_t{1} << 40);
    read.weight = Shape(sizes.data(), sizes.size());
    check_weight(read, read.weight);
  }
  return read;
}

void check_weight(const ConvolutionAttributes& attributes, const Shape& weight) {
  if (weight.rank() != attributes.rank + 2 || weight[0] < 1) {
    throw Error("a weight of shape " + weight.text() + " is not [outputs, channels / group, kernel...] with " +
                std::to_string(attributes.rank) + " spatial axes");
  }
  for (size_t axis = 2; axis < weight.rank(); ++axis) {
    if (weight[axis] < 1 || weight[axis] > longest) {
      throw Error("a weight of shape " + weight.text() + " has no possible kernel: its axes have 1 to 2^24 taps");
    }
  }
  if (weight[0] % attributes.group != 0) {
    throw Error(std::to_string(attributes.group) + " groups do not divide " + std::to_string(weight[0]) + " outputs");
  }
  if (attributes.wide) check_wide_sum(weight.elements(1, weight.rank()));
}

ConvolutionGeometry geometry_of(const ConvolutionAttributes& attributes, const Shape& x, const Shape& weight) {
  if (x.rank() != attributes.rank + 2) {
    throw Error("activations of shape " + x.text() + " do not have " + std::to_string(attributes.rank) +
                " spatial axes");
  }
  ConvolutionGeometry made{};
  made.batch = x[0];
  made.channels = x[attributes.channels_last ? x.rank() - 1 : 1];
  made.outputs = weight[0];
  made.group = attributes.group;
  if (weight[1] * made.group != made.channels) {
    throw Error(std::to_string(made.group) + " groups do not fit " + std::to_string(made.channels) +
                " channels and a weight of shape " + weight.text());
  }
  for (size_t place = 0; place < 3; ++place) {
    const bool there = place + attributes.rank >= 3;
    const size_t axis = there ? place + attributes.rank - 3 : 0;
    const int64_t size = there ? input_size(attributes, x, axis) : 1;
    const int64_t kernel = there ? weight[2 + axis] : 1;
    const auto make = attributes.transposed ? transposed_axis : plain_axis;
    made.axes[place] = make(attributes, place, size, kernel);
    ConvolutionAxis& found = made.axes[place];
    const int64_t left = found.padded - found.dilation * (kernel - 1) - 1;
    if (left < 0) {
      throw Error("a kernel of shape " + weight.text() + " does not fit into activations of shape " + x.text());
    }
    found.output = left / found.stride + 1;
  }
  // Throws where the image, or the result, is too large to be addressed.
  Shape({made.channels, made.axes[0].padded, made.axes[1].padded, made.axes[2].padded});
  return made;
}

Shape result_shape(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry) {
  std::vector<int64_t> sizes{geometry.batch};
  if (!attributes.channels_last) sizes.push_back(geometry.outputs);
  for (size_t place = 3 - attributes.rank; place < 3; ++place) sizes.push_back(geometry.axes[place].output);
  if (attributes.channels_last) sizes.push_back(geometry.outputs);
  return Shape(sizes.data(), sizes.size());
}

}  // namespace qcompiler
