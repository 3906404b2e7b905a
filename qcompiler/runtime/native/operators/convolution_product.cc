#include "operators/convolution_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 16;             // of a panel kernel
constexpr size_t band_bytes = size_t{1} << 18;  // of operands that stay in the cache while panels pass by

/// Pixels of the result one after the other, and where their operands begin in the image of a group.
class Pixels {
 public:
  Pixels(const ConvolutionGeometry& geometry, size_t channels, size_t first) : axes_(geometry.axes), channels_(channels) {
    const int64_t pixel = static_cast<int64_t>(first);
    place_ = {pixel / (axes_[2].output * axes_[1].output), pixel / axes_[2].output % axes_[1].output,
              pixel % axes_[2].output};
  }

  size_t offset() const {
    const int64_t height = place_[0] * axes_[0].stride * axes_[1].padded + place_[1] * axes_[1].stride;
    return static_cast<size_t>(height * axes_[2].padded + place_[2] * axes_[2].stride) * channels_;
  }

  void advance() {
    for (size_t axis = 3; axis-- > 0;) {
      if (++place_[axis] < axes_[axis].output) return;
      place_[axis] = 0;
    }
  }

 private:
  const std::array<ConvolutionAxis, 3>& axes_;
  size_t channels_;
  std::array<int64_t, 3> place_;
};

/// Where the pieces of an operand lie, from its begin.
std::vector<size_t> piece_places(const ConvolutionGeometry& geometry, const ConvolutionPlan& plan) {
  const auto& axes = geometry.axes;
  const int64_t along = plan.pieces == plan.taps ? axes[2].kernel : 1;
  std::vector<size_t> places;
  for (int64_t depth = 0; depth < axes[0].kernel; ++depth) {
    for (int64_t height = 0; height < axes[1].kernel; ++height) {
      for (int64_t width = 0; width < along; ++width) {
        const int64_t line = depth * axes[0].dilation * axes[1].padded + height * axes[1].dilation;
        const int64_t pixel = line * axes[2].padded + width * axes[2].dilation;
        places.push_back(static_cast<size_t>(pixel) * plan.channels);
      }
    }
  }
  return places;
}

/// Multiplies one panel with a band of pixels.
class Product {
 public:
  Product(const ConvolutionCall& call, size_t bands)
      : call_(call),
        bands_(bands),
        pixels_(static_cast<size_t>(call.geometry.pixels())),
        places_(piece_places(call.geometry, call.plan)),
        plane_(static_cast<size_t>(call.geometry.image_pixels()) * call.plan.channels),
        low_(plane_ * call.plan.group) {}

  /// The bytes that a thread needs to gather the operands of a tile.
  size_t gather_bytes() const {
    return call_.plan.gathered ? call_.kernels.panel.rows * call_.plan.run_groups * 4 * (call_.wide ? 2 : 1) : 0;
  }

  void unit(size_t index, uint8_t* gathered) const {
    const size_t panel = index % call_.plan.panels(), group = index / call_.plan.panels() % call_.plan.group;
    const size_t band = index / (call_.plan.panels() * call_.plan.group);
    const size_t begin = pixels_ * band / bands_, end = pixels_ * (band + 1) / bands_;
    Pixels walk(call_.geometry, call_.plan.channels, begin);
    for (size_t first = begin; first < end; first += call_.kernels.panel.rows) {
      tile({group, panel, first, std::min(call_.kernels.panel.rows, end - first)}, walk, gathered);
    }
  }

 private:
  struct Tile {
    size_t group, panel, first, rows;
  };

  void tile(const Tile& at, Pixels& walk, uint8_t* gathered) const {
    const ConvolutionPlan& plan = call_.plan;
    const uint8_t* row[most_rows];
    const uint8_t* low[most_rows];
    for (size_t index = 0; index < at.rows; ++index, walk.advance()) {
      row[index] = call_.image + at.group * plane_ + walk.offset();
      low[index] = row[index] + low_;
      if (plan.gathered) {
        row[index] = gather(row[index], gathered, index);
        if (call_.wide) low[index] = gather(low[index], gathered, call_.kernels.panel.rows + index);
      }
    }
    alignas(64) int32_t sums[most_rows * ConvolutionPlan::panel_columns];
    multiply(at, row, sums);
    if (!call_.wide) {
      rescale(at, sums);
      return;
    }
    alignas(64) int32_t low_sums[most_rows * ConvolutionPlan::panel_columns];
    alignas(64) int64_t joined[most_rows * ConvolutionPlan::panel_columns];
    multiply(at, low, low_sums);
    const size_t count = at.rows * plan.columns(at.panel);
    for (size_t index = 0; index < count; ++index) joined[index] = int64_t{sums[index]} * 256 + low_sums[index];
    rescale(at, joined);
  }

  void multiply(const Tile& at, const uint8_t* const* row, int32_t* sums) const {
    const ConvolutionPlan& plan = call_.plan;
    const ptrdiff_t step = plan.runs > 1 ? static_cast<ptrdiff_t>(places_[1]) : 0;
    const int8_t* panel = call_.weights + plan.panel_place(at.group, at.panel);
    call_.kernels.panel.multiply(
        {row, at.rows, plan.runs, plan.run_groups, step, panel, plan.columns(at.panel), sums});
  }

  const uint8_t* gather(const uint8_t* operand, uint8_t* gathered, size_t index) const {
    uint8_t* target = gathered + index * call_.plan.run_groups * 4;
    for (size_t piece = 0; piece < places_.size(); ++piece) {
      std::memcpy(target + piece * call_.plan.piece_bytes, operand + places_[piece], call_.plan.piece_bytes);
    }
    return target;
  }

  RescaleArea area(const Tile& at, size_t first) const {
    const size_t valid = std::min(ConvolutionPlan::panel_columns, call_.plan.outputs - first);
    return {at.rows, valid, call_.plan.columns(at.panel), static_cast<size_t>(call_.geometry.outputs)};
  }

  template <typename Sum>
  void rescale(const Tile& at, const Sum* sums) const {
    const size_t first = at.panel * ConvolutionPlan::panel_columns, channel = at.group * call_.plan.outputs + first;
    const size_t place = at.first * static_cast<size_t>(call_.geometry.outputs) + channel;
    uint8_t* result = call_.result + place * call_.code_bytes;
    if constexpr (sizeof(Sum) == 4) {
      call_.kernels.rescale.from32(sums, call_.factors.bias32(channel), call_.factors.rescale(channel), area(at, first),
                                   result);
    } else {
      call_.kernels.rescale.from64(sums, call_.factors.bias64(channel), call_.factors.rescale(channel), area(at, first),
                                   result);
    }
  }

  const ConvolutionCall& call_;
  size_t bands_, pixels_;
  std::vector<size_t> places_;
  size_t plane_, low_;
};

/// Into how many bands the pixels are cut: their operands fit the cache, and every thread has something to do.
size_t bands_of(const ConvolutionCall& call, const Threads& threads) {
  const size_t pixels = static_cast<size_t>(call.geometry.pixels());
  const size_t bytes = call.plan.piece_bytes * call.plan.pieces;
  const size_t by_cache = pixels * bytes / band_bytes + 1;
  const size_t panels = call.plan.panels() * call.plan.group;
  const size_t by_threads = threads.count() == 1 ? 1 : (4 * threads.count() + panels - 1) / panels;
  const size_t tiles = (pixels + call.kernels.panel.rows - 1) / call.kernels.panel.rows;
  return std::max<size_t>(1, std::min(std::max(by_cache, by_threads), tiles));
}

}  // namespace

void multiply_convolution(const ConvolutionCall& call, const Threads& threads) {
  const size_t bands = bands_of(call, threads);
  const Product product(call, bands);
  threads.ranges(bands * call.plan.group * call.plan.panels(), 1, [&](size_t begin, size_t end) {
    const Scratch gathered(product.gather_bytes());
    for (size_t index = begin; index < end; ++index) product.unit(index, gathered.as<uint8_t>());
  });
}

}  // namespace qcompiler
