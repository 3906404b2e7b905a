#include "operators/convolution_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "operators/convolution_pixels.h"

namespace qcompiler {
namespace {

constexpr size_t most_rows = 128;       // of a strip
constexpr size_t most_sums = 2048;      // of a strip: 8 KiB stay in the first cache until they are rescaled
constexpr size_t band_bytes = 1 << 18;  // of operands that stay in the second cache while panels pass by
constexpr size_t flipped_band_bytes = 1 << 15;

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

/// Multiplies panels with bands of pixels, strip by strip.
class Product {
 public:
  Product(const ConvolutionCall& call, size_t bands)
      : call_(call),
        bands_(bands),
        pixels_(static_cast<size_t>(call.geometry.pixels())),
        tiles_((pixels_ + call.kernels.panel.rows - 1) / call.kernels.panel.rows),
        places_(piece_places(call.geometry, call.plan)),
        plane_(static_cast<size_t>(call.geometry.image_pixels()) * call.plan.channels),
        low_(plane_ * call.plan.group) {}

  /// What a thread needs: room for the gathered operands of a tile, or for the codes of a band; behind them for a panel
  /// of bytes where weights have few bits.
  size_t room() const {
    const size_t panel = call_.plan.bits == 8 ? 0 : call_.plan.panel_bytes(ConvolutionPlan::panel_columns);
    return operands() + panel;
  }

  /// Units are numbered by band, group and panel, so that neighbours share their pixels.
  void units(size_t begin, size_t end, uint8_t* room) const {
    const size_t panels = call_.plan.panels(), per_band = panels * call_.plan.group;
    for (size_t index = begin; index < end; ++index) {
      const size_t first = band_begin(index / per_band), count = band_begin(index / per_band + 1) - first;
      if (call_.image == nullptr && (index == begin || index % per_band == 0)) flip_band(first, count, room);
      const size_t group = index / panels % call_.plan.group, panel = index % panels;
      const int8_t* weights = panel_of(index, index == begin || per_band > 1, room);
      const bool another = index + 1 < end && (index + 1) % per_band != 0;
      const int8_t* next = another ? call_.weights + place_of(index + 1) : nullptr;
      unit({group, panel, weights, next, first, first, count}, room);
    }
  }

 private:
  struct Part {
    size_t group, panel;
    const int8_t* weights;  ///< Of the panel.
    const int8_t* next;     ///< The panel that follows as it is kept, or null.
    size_t begin;           ///< First pixel of the unit.
    size_t first, rows;     ///< Pixels of this part of it.
  };

  /// First pixel of a band; bands consist of whole tiles.
  size_t band_begin(size_t band) const {
    return std::min(pixels_, tiles_ * band / bands_ * call_.kernels.panel.rows);
  }

  size_t operands() const {
    const size_t gathered = call_.kernels.panel.rows * call_.plan.run_groups * 4;
    const size_t bytes = call_.image == nullptr  ? (tiles_ / bands_ + 1) * call_.kernels.panel.rows * call_.plan.channels
                         : call_.plan.gathered ? gathered
                                               : 0;
    return (bytes + 63) / 64 * 64;
  }

  /// Place of a unit's panel.
  size_t place_of(size_t unit) const {
    return call_.plan.panel_place(unit / call_.plan.panels() % call_.plan.group, unit % call_.plan.panels());
  }

  /// The bytes of a unit's panel; `other` than those of the unit before.
  const int8_t* panel_of(size_t unit, bool other, uint8_t* room) const {
    const ConvolutionPlan& plan = call_.plan;
    const int8_t* kept = call_.weights + place_of(unit);
    if (plan.bits == 8) return kept;
    int8_t* bytes = reinterpret_cast<int8_t*>(room + operands());
    const size_t blocks = plan.blocks(plan.columns(unit % plan.panels()));
    if (other) call_.kernels.bytes.expand(reinterpret_cast<const uint8_t*>(kept), plan.bits, blocks, bytes);
    return bytes;
  }

  void flip_band(size_t first, size_t count, uint8_t* room) const {
    const size_t bytes = call_.plan.channels;
    const uint8_t flip = call_.kernels.panel.flip;
    ConvolutionPixels walk(call_.geometry, bytes, first);
    for (size_t done = 0; done < count; done += most_rows) {
      const size_t rows = std::min(most_rows, count - done);
      const uint8_t* row[most_rows];
      walk.take(call_.codes, rows, row);
      uint8_t* target = room + done * bytes;
      if (row[rows - 1] == row[0] + (rows - 1) * bytes) {
        call_.kernels.bytes.flip(row[0], rows * bytes, flip, target);
      } else {
        for (size_t index = 0; index < rows; ++index, target += bytes) {
          call_.kernels.bytes.flip(row[index], bytes, flip, target);
        }
      }
    }
  }

  void unit(const Part& part, uint8_t* room) const {
    const size_t tile = call_.kernels.panel.rows, columns = call_.plan.columns(part.panel);
    const size_t most = std::min(most_rows, most_sums / columns) / tile * tile;
    ConvolutionPixels walk(call_.geometry, call_.plan.channels, part.first);
    for (size_t done = 0; done < part.rows; done += most) {
      Part strip = part;
      strip.first += done;
      strip.rows = std::min(most, part.rows - done);
      const uint8_t* row[most_rows];
      if (call_.image == nullptr) {
        for (size_t index = 0; index < strip.rows; ++index) row[index] = room + (done + index) * call_.plan.channels;
      } else {
        walk.take(call_.image + part.group * plane_, strip.rows, row);
      }
      call_.wide ? wide_strip(strip, row, room) : plain_strip(strip, row, room);
    }
  }

  void plain_strip(const Part& strip, const uint8_t** row, uint8_t* room) const {
    alignas(64) int32_t sums[most_sums];
    multiply(strip, row, room, sums);
    const size_t channel = first_channel(strip);
    call_.kernels.rescale.from32(sums, call_.factors.bias32(channel), call_.factors.rescale(channel), area(strip),
                                 result(strip));
  }

  void wide_strip(const Part& strip, const uint8_t** row, uint8_t* room) const {
    alignas(64) int32_t high[most_sums], low[most_sums];
    alignas(64) int64_t joined[most_sums];
    multiply(strip, row, room, high);
    for (size_t index = 0; index < strip.rows; ++index) row[index] += low_;
    multiply(strip, row, room, low);
    const size_t count = strip.rows * call_.plan.columns(strip.panel), channel = first_channel(strip);
    call_.kernels.bytes.join(high, low, count, joined);
    call_.kernels.rescale.from64(joined, call_.factors.bias64(channel), call_.factors.rescale(channel), area(strip),
                                 result(strip));
  }

  void multiply(const Part& strip, const uint8_t* const* row, uint8_t* room, int32_t* sums) const {
    const ConvolutionPlan& plan = call_.plan;
    const size_t tile = call_.kernels.panel.rows, columns = plan.columns(strip.panel);
    const ptrdiff_t step = plan.runs > 1 ? static_cast<ptrdiff_t>(places_[1]) : 0;
    for (size_t first = 0; first < strip.rows; first += tile) {
      const size_t rows = std::min(tile, strip.rows - first);
      const uint8_t* gathered[most_rows];
      for (size_t index = 0; plan.gathered && index < rows; ++index) {
        gathered[index] = gather(row[first + index], room + index * plan.run_groups * 4);
      }
      const uint8_t* const* operands = plan.gathered ? gathered : row + first;
      call_.kernels.panel.multiply(
          {operands, rows, plan.runs, plan.run_groups, step, strip.weights, columns, sums + first * columns,
           ahead(strip, (strip.first - strip.begin + first) / tile)});
    }
  }

  /// What a tile of a unit fetches for the unit that follows: the first tiles a quarter of a panel of bytes each.
  const int8_t* ahead(const Part& strip, size_t tile) const {
    if (strip.next == nullptr || 2 * tile >= static_cast<size_t>(call_.plan.bits)) return nullptr;
    return strip.next + tile * call_.plan.column_bytes() * 16;
  }

  const uint8_t* gather(const uint8_t* operand, uint8_t* target) const {
    for (size_t piece = 0; piece < places_.size(); ++piece) {
      std::memcpy(target + piece * call_.plan.piece_bytes, operand + places_[piece], call_.plan.piece_bytes);
    }
    return target;
  }

  size_t first_channel(const Part& strip) const {
    return strip.group * call_.plan.outputs + strip.panel * ConvolutionPlan::panel_columns;
  }

  RescaleArea area(const Part& strip) const {
    const size_t left = call_.plan.outputs - strip.panel * ConvolutionPlan::panel_columns;
    return {strip.rows, std::min(ConvolutionPlan::panel_columns, left), call_.plan.columns(strip.panel),
            static_cast<size_t>(call_.geometry.outputs)};
  }

  void* result(const Part& strip) const {
    const size_t place = strip.first * static_cast<size_t>(call_.geometry.outputs) + first_channel(strip);
    return call_.result + place * call_.code_bytes;
  }

  const ConvolutionCall& call_;
  size_t bands_, pixels_, tiles_;
  std::vector<size_t> places_;
  size_t plane_, low_;
};

/// Into how many bands the pixels are cut: their operands fit a cache, and every thread has something to do.
size_t bands_of(const ConvolutionCall& call, const Threads& threads) {
  const size_t pixels = static_cast<size_t>(call.geometry.pixels());
  const size_t bytes = call.plan.piece_bytes * call.plan.pieces;
  const bool small = call.image == nullptr && call.plan.bits == 8;
  const size_t by_cache = pixels * bytes / (small ? flipped_band_bytes : band_bytes) + 1;
  const size_t panels = call.plan.panels() * call.plan.group;
  const size_t by_threads = threads.count() == 1 ? 1 : (4 * threads.count() + panels - 1) / panels;
  const size_t tiles = (pixels + call.kernels.panel.rows - 1) / call.kernels.panel.rows;
  return std::max<size_t>(1, std::min(std::max(by_cache, by_threads), tiles));
}

}  // namespace

bool needs_image(const ConvolutionGeometry& geometry, const ConvolutionPlan& plan) {
  bool plain = plan.taps == 1 && plan.group == 1;
  for (const ConvolutionAxis& axis : geometry.axes) {
    plain = plain && axis.stretch == 1 && axis.begin == 0 && axis.padded == axis.size;
  }
  return !plain;
}

void multiply_convolution(const ConvolutionCall& call, const Threads& threads) {
  const size_t bands = bands_of(call, threads);
  const Product product(call, bands);
  threads.ranges(bands * call.plan.group * call.plan.panels(), 1, [&](size_t begin, size_t end) {
    const Scratch room(product.room());
    product.units(begin, end, room.as<uint8_t>());
  });
}

}  // namespace qcompiler
