#include "operators/convolution_image.h"

#include <cstring>

namespace qcompiler {
namespace {

/// How codes become bytes of the image.
struct Bytes {
  const ByteKernels& kernels;
  uint8_t flip;
  size_t plane;  ///< Distance of the plane of low bytes.

  void write(int8_t code, uint8_t* target) const { *target = static_cast<uint8_t>(code) ^ flip; }
  void write(int16_t code, uint8_t* target) const {
    const uint16_t bits = static_cast<uint16_t>(code);
    target[0] = static_cast<uint8_t>(bits >> 8) ^ flip;
    target[plane] = static_cast<uint8_t>(static_cast<uint8_t>(bits) ^ (flip ^ 0x80));
  }
  void copy(const int8_t* codes, int64_t count, uint8_t* target) const {
    kernels.flip(reinterpret_cast<const uint8_t*>(codes), static_cast<size_t>(count), flip, target);
  }
  void copy(const int16_t* codes, int64_t count, uint8_t* target) const {
    kernels.split(codes, static_cast<size_t>(count), flip, target, target + plane);
  }
  void fill(int8_t code, int64_t count, uint8_t* target) const {
    std::memset(target, static_cast<uint8_t>(code) ^ flip, static_cast<size_t>(count));
  }
  void fill(int16_t code, int64_t count, uint8_t* target) const {
    if (count == 0) return;
    uint8_t high, low;
    kernels.split(&code, 1, flip, &high, &low);
    std::memset(target, high, static_cast<size_t>(count));
    std::memset(target + plane, low, static_cast<size_t>(count));
  }
};

template <typename Code>
class Writer {
 public:
  Writer(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry, const Code* sample, Bytes bytes,
         uint8_t* image)
      : geometry_(geometry),
        bytes_(bytes),
        sample_(sample),
        image_(image),
        inner_(geometry.channels / geometry.group),
        zero_(static_cast<Code>(attributes.zero)) {}

  /// One row of the image of every group.
  void row(int64_t depth, int64_t height) const {
    const ConvolutionAxis& width = geometry_.axes[2];
    const int64_t place = (depth * geometry_.axes[1].padded + height) * width.padded;
    const int64_t plane = geometry_.axes[0].source(depth), line = geometry_.axes[1].source(height);
    const bool inside = plane >= 0 && line >= 0;
    const int64_t first = inside ? (plane * geometry_.axes[1].size + line) * width.size : 0;
    for (int64_t index = 0; index < geometry_.group; ++index) {
      uint8_t* target = image_ + (index * geometry_.image_pixels() + place) * inner_;
      if (!inside) {
        fill(target, width.padded);
      } else if (width.stretch == 1 && width.begin >= 0 && width.padded >= width.begin + width.size) {
        fill(target, width.begin);
        codes(first, index, width.size, target + width.begin * inner_);
        const int64_t behind = width.begin + width.size;
        fill(target + behind * inner_, width.padded - behind);
      } else {
        for (int64_t step = 0; step < width.padded; ++step, target += inner_) {
          const int64_t source = width.source(step);
          if (source < 0) fill(target, 1);
          if (source >= 0) codes(first + source, index, 1, target);
        }
      }
    }
  }

 private:
  void fill(uint8_t* target, int64_t pixels) const {
    bytes_.fill(zero_, pixels * inner_, target);
  }

  /// The codes of neighbouring pixels of a group of channels.
  void codes(int64_t pixel, int64_t group, int64_t pixels, uint8_t* target) const {
    const Code* source = sample_ + pixel * geometry_.channels + group * inner_;
    if (geometry_.group == 1) {
      bytes_.copy(source, pixels * inner_, target);
      return;
    }
    for (int64_t index = 0; index < pixels; ++index, source += geometry_.channels, target += inner_) {
      for (int64_t channel = 0; channel < inner_; ++channel) bytes_.write(source[channel], target + channel);
    }
  }

  const ConvolutionGeometry& geometry_;
  Bytes bytes_;
  const Code* sample_;
  uint8_t* image_;
  int64_t inner_;
  Code zero_;
};

template <typename Code>
void write_rows(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry,
                const ByteKernels& kernels, const void* sample, uint8_t flip, const Threads& threads, uint8_t* image) {
  const Bytes bytes{kernels, flip, image_bytes(geometry)};
  const Writer<Code> writer(attributes, geometry, static_cast<const Code*>(sample), bytes, image);
  const int64_t height = geometry.axes[1].padded, rows = geometry.axes[0].padded * height;
  const int64_t row_codes = geometry.axes[2].padded * geometry.channels;
  const size_t grain = static_cast<size_t>(1 + (1 << 15) / (row_codes + 1));
  threads.ranges(static_cast<size_t>(rows), grain, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      const int64_t row = static_cast<int64_t>(index);
      writer.row(row / height, row % height);
    }
  });
}

}  // namespace

size_t image_bytes(const ConvolutionGeometry& geometry) {
  return static_cast<size_t>(geometry.channels * geometry.image_pixels());
}

void write_image(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry,
                 const ByteKernels& kernels, const void* sample, uint8_t flip, const Threads& threads, uint8_t* image) {
  const auto write = attributes.wide ? write_rows<int16_t> : write_rows<int8_t>;
  write(attributes, geometry, kernels, sample, flip, threads, image);
}

}  // namespace qcompiler
