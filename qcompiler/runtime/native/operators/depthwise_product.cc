#include "operators/depthwise_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "operators/convolution_image.h"

namespace qcompiler {
namespace {

constexpr size_t most_sums = 4096;  // that are rescaled together: 16 KiB stay in the first cache

constexpr size_t most_flat = size_t{1} << 16;  // lanes of a row whose weights are laid out: a few MB with all taps

size_t whole_vectors(size_t channels) { return (channels + 15) / 16 * 16; }

/// What the kernels see of output rows. Where neighbouring pixels lie next to each other (stride 1) and their channels
/// do not fill vectors, a row is treated as one pixel with many channels, whose weights repeat.
class Rows {
 public:
  explicit Rows(const DepthwiseProduct& product)
      : product_(product),
        width_(static_cast<size_t>(product.geometry.axes[2].output)),
        flat_(product.geometry.axes[2].stride == 1 && product.plan.channels % 16 != 0 &&
              product.plan.channels * width_ <= most_flat),
        repeats_(flat_ ? width_ : 1),
        columns_(whole_vectors(product.plan.channels * repeats_)),
        line_(static_cast<size_t>(product.geometry.axes[2].padded) * product.plan.channels),
        weights_(product.plan.taps() * columns_ * 4),
        bias_(columns_ * bias_bytes()),
        multiplier_(columns_ * sizeof(int32_t)),
        shift_(columns_) {
    const size_t step = static_cast<size_t>(product.geometry.axes[2].dilation) * product.plan.channels;
    for (size_t group = 0; group < product.plan.groups; ++group) {
      for (size_t tap = 0; tap < product.plan.width; ++tap) offsets_.push_back(group * lanes_row() + tap * step);
    }
    if (flat_) repeat();
  }

  /// Positions of the interleaved rows, with room for whole vectors behind the last.
  size_t lanes() const { return plane_lanes() * (product_.wide ? 2 : 1); }
  /// Bytes of the sums, of both planes and joined where codes have 16 bits.
  size_t sums_bytes() const { return most() * (product_.wide ? 4 : 1) * sizeof(int32_t); }
  /// Output rows that are rescaled together, where they are short.
  size_t at_once() const { return std::max<size_t>(1, most_sums / (pixels() * columns_)); }

  void rows(size_t first, size_t count, const uint8_t* zeros, uint32_t* lanes, int32_t* sums) const {
    if (pixels() > chunk()) {
      for (size_t index = first; index < first + count; ++index) long_row(index, zeros, lanes, sums);
      return;
    }
    for (size_t plane = 0; plane < (product_.wide ? 2 : 1); ++plane) {
      for (size_t index = 0; index < count; ++index) {
        interleave(first + index, plane, zeros, lanes);
        multiply(lanes, pixels(), sums + plane * most() + index * pixels() * columns_);
      }
    }
    rescale(sums, count * pixels(), first * width_);
  }

 private:
  size_t bias_bytes() const { return product_.wide ? sizeof(int64_t) : sizeof(int32_t); }
  /// Sums of one plane.
  size_t most() const { return std::max(chunk(), at_once() * pixels()) * columns_; }
  size_t plane_lanes() const { return product_.plan.groups * lanes_row() + columns_ + 64; }
  size_t lanes_row() const { return whole_vectors(line_); }
  size_t chunk() const { return std::max<size_t>(8, most_sums / columns_ / 8 * 8); }
  size_t pixels() const { return flat_ ? 1 : width_; }
  size_t step() const { return static_cast<size_t>(product_.geometry.axes[2].stride) * product_.plan.channels; }

  /// A row in several parts.
  void long_row(size_t index, const uint8_t* zeros, uint32_t* lanes, int32_t* sums) const {
    const size_t planes = product_.wide ? 2 : 1;
    for (size_t plane = 0; plane < planes; ++plane) interleave(index, plane, zeros, lanes + plane * plane_lanes());
    for (size_t first = 0; first < width_; first += chunk()) {
      const size_t count = std::min(chunk(), width_ - first);
      for (size_t plane = 0; plane < planes; ++plane) {
        multiply(lanes + plane * plane_lanes() + first * step(), count, sums + plane * most());
      }
      rescale(sums, count, index * width_ + first);
    }
  }

  void multiply(const uint32_t* lanes, size_t count, int32_t* sums) const {
    const uint32_t* weights = flat_ ? weights_.as<uint32_t>() : product_.weights;
    product_.kernels.depthwise.multiply(
        {lanes, count, step(), offsets_.size(), offsets_.data(), weights, columns_, sums});
  }

  /// So many rows of sums, pixels or whole rows of them, into the result from a pixel on.
  void rescale(int32_t* sums, size_t count, size_t pixel) const {
    const size_t valid = product_.plan.channels * repeats_;
    uint8_t* target = product_.result + pixel * product_.plan.channels * product_.code_bytes;
    Rescale factors = product_.factors.rescale(0);
    if (flat_) factors.multiplier = multiplier_.as<int32_t>();
    if (flat_) factors.shift = shift_.as<uint8_t>();
    const RescaleArea area{count, valid, columns_, valid};
    if (!product_.wide) {
      const int32_t* bias = flat_ ? bias_.as<int32_t>() : product_.factors.bias32(0);
      product_.kernels.rescale.from32(sums, bias, factors, area, target);
      return;
    }
    int64_t* joined = reinterpret_cast<int64_t*>(sums + 2 * most());
    product_.kernels.bytes.join(sums, sums + most(), count * columns_, joined);
    const int64_t* bias = flat_ ? bias_.as<int64_t>() : product_.factors.bias64(0);
    product_.kernels.rescale.from64(joined, bias, factors, area, target);
  }

  /// The weights and factors of a row of pixels.
  void repeat() {
    const size_t channels = product_.plan.channels;
    const Rescale given = product_.factors.rescale(0);
    std::memset(weights_.as<void>(), 0, product_.plan.taps() * columns_ * 4);
    for (size_t index = 0; index < repeats_; ++index) {
      const size_t place = index * channels;
      for (size_t tap = 0; tap < product_.plan.taps(); ++tap) {
        std::memcpy(weights_.as<uint32_t>() + tap * columns_ + place, product_.weights + tap * product_.plan.columns,
                    channels * 4);
      }
      const void* bias = product_.factors.bias32(0);
      if (product_.wide) bias = product_.factors.bias64(0);
      std::memcpy(bias_.as<uint8_t>() + place * bias_bytes(), bias, channels * bias_bytes());
      std::memcpy(multiplier_.as<int32_t>() + place, given.multiplier, channels * 4);
      std::memcpy(shift_.as<uint8_t>() + place, given.shift, channels);
    }
  }

  void interleave(size_t index, size_t plane_of_bytes, const uint8_t* zeros, uint32_t* lanes) const {
    const auto& axes = product_.geometry.axes;
    const int64_t depth = static_cast<int64_t>(index) / axes[1].output * axes[0].stride;
    const int64_t height = static_cast<int64_t>(index) % axes[1].output * axes[1].stride;
    const DepthwisePlan& plan = product_.plan;
    const uint8_t* image = product_.image + plane_of_bytes * image_bytes(product_.geometry);
    for (size_t group = 0; group < plan.groups; ++group) {
      const uint8_t* row[4];
      for (size_t tap = 0; tap < plan.lane_taps; ++tap) {
        const int64_t kernel = static_cast<int64_t>(group * plan.lane_taps + tap);
        const int64_t plane = depth + kernel / axes[1].kernel * axes[0].dilation;
        const int64_t line = height + kernel % axes[1].kernel * axes[1].dilation;
        const size_t place = static_cast<size_t>(plane * axes[1].padded + line) * line_;
        row[tap] = static_cast<size_t>(kernel) < plan.rows ? image + place : zeros;
      }
      product_.kernels.depthwise.interleave(row, line_, lanes + group * lanes_row());
    }
  }

  const DepthwiseProduct& product_;
  size_t width_;
  bool flat_;
  size_t repeats_, columns_, line_;
  std::vector<size_t> offsets_;
  Scratch weights_, bias_, multiplier_, shift_;
};

}  // namespace

DepthwisePlan::DepthwisePlan(const ConvolutionPlan& plan, const Shape& weight, const DepthwiseKernels& kernels)
    : channels(plan.group),
      columns(whole_vectors(plan.group)),
      rows(plan.taps / static_cast<size_t>(weight[weight.rank() - 1])),
      width(static_cast<size_t>(weight[weight.rank() - 1])),
      lane_taps(kernels.taps),
      groups((rows + kernels.taps - 1) / kernels.taps) {}

void pack_depthwise(const ConvolutionAttributes& attributes, const DepthwisePlan& plan, const Tensor& weight,
                    void* packed) {
  std::memset(packed, 0, plan.bytes());
  int32_t* sums = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(packed) + plan.sums_place());
  const size_t taps = plan.rows * plan.width;
  std::vector<int8_t> codes(taps);
  for (size_t channel = 0; channel < plan.channels; ++channel) {
    weight_row(attributes, weight, channel, taps, codes.data());
    for (size_t tap = 0; tap < taps; ++tap) {
      const int8_t code = codes[attributes.transposed ? taps - 1 - tap : tap];
      const size_t row = tap / plan.width, lane = row % plan.lane_taps;
      const size_t place = (row / plan.lane_taps * plan.width + tap % plan.width) * plan.columns + channel;
      uint8_t* target = static_cast<uint8_t*>(packed) + place * 4;
      const int16_t widened = code;
      if (plan.lane_taps == 2) std::memcpy(target + 2 * lane, &widened, 2);
      if (plan.lane_taps == 4) target[lane] = static_cast<uint8_t>(code);
      sums[channel] += code;
    }
  }
}

void multiply_depthwise(const DepthwiseProduct& product, const Threads& threads) {
  const Rows rows(product);
  const auto& axes = product.geometry.axes;
  const size_t row_codes = static_cast<size_t>(axes[2].padded * product.geometry.channels);
  const Scratch zeros(row_codes);
  std::memset(zeros.as<void>(), 0, row_codes);
  const size_t grain = 1 + (1 << 14) / (row_codes + 1);
  threads.ranges(static_cast<size_t>(axes[0].output * axes[1].output), grain, [&](size_t begin, size_t end) {
    const Scratch lanes(rows.lanes() * 4), sums(rows.sums_bytes());
    for (size_t index = begin; index < end; index += rows.at_once()) {
      const size_t count = std::min(rows.at_once(), end - index);
      rows.rows(index, count, zeros.as<uint8_t>(), lanes.as<uint32_t>(), sums.as<int32_t>());
    }
  });
}

}  // namespace qcompiler
