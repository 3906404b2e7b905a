// QConv, QConvChannelsLast and QConvTranspose: requantize(bias + conv(x padded with its code of zero, w)).
// Specification: qcompiler/quant/integer/convolution.py.
#include <cstring>

#include "core/error.h"
#include "operators/convolution_image.h"
#include "operators/convolution_product.h"
#include "operators/depthwise_product.h"
#include "operators/families.h"
#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

/// The transpose of a matrix.
template <typename Code>
void turn(const Code* source, size_t rows, size_t columns, size_t begin, size_t end, Code* target) {
  for (size_t column = begin; column < end; ++column) {
    for (size_t row = 0; row < rows; ++row) target[column * rows + row] = source[row * columns + column];
  }
}

class Convolution final : public Operator {
 public:
  explicit Convolution(const Definition& definition)
      : kernels_(definition.kernels),
        attributes_(ConvolutionAttributes::read(definition)),
        clamp_(Clamp::read(definition.attributes)) {
    require(clamp_.type != ElementType::int32, "attribute 'to' is int32; a convolution gives int8 or int16");
  }

  size_t packed_bytes(size_t index, const Tensor& constant) const override {
    if (index != 1) return 0;
    const Shape weight = weight_shape(constant);
    const ConvolutionPlan plan(attributes_, weight);
    return depthwise(plan) ? DepthwisePlan(plan, weight, kernels_.depthwise).bytes() : plan.bytes();
  }

  void pack(size_t, const Tensor& constant, void* packed) const override {
    const Shape weight = weight_shape(constant);
    const ConvolutionPlan plan(attributes_, weight);
    if (depthwise(plan)) {
      pack_depthwise(attributes_, DepthwisePlan(plan, weight, kernels_.depthwise), constant, packed);
    } else {
      pack_convolution(attributes_, plan, constant, packed);
    }
  }

  void adopt(size_t, const Tensor&, const void* packed) override { packed_ = static_cast<const int8_t*>(packed); }

  Result result(const Inputs& inputs) const override {
    const ElementType wanted = attributes_.wide ? ElementType::int16 : ElementType::int8;
    if (inputs[0].type != wanted) {
      throw Error("activations are " + element_name(inputs[0].type) + "; here they are " + element_name(wanted));
    }
    const ConvolutionGeometry geometry = geometry_of(attributes_, inputs[0].shape, weight_shape(inputs[1]));
    check_factors(inputs[2], multiplier(inputs), shift(inputs), channels(geometry), attributes_.wide);
    return {clamp_.type, result_shape(attributes_, geometry)};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Shape weight = weight_shape(inputs[1]);
    ConvolutionGeometry geometry = geometry_of(attributes_, inputs[0].shape, weight);
    if (geometry.batch == 0) return;
    const ConvolutionPlan plan(attributes_, weight);
    const Scratch unpacked(packed_ == nullptr ? packed_bytes(1, inputs[1]) : 0);
    if (packed_ == nullptr) pack(1, inputs[1], unpacked.as<void>());
    const int8_t* weights = packed_ == nullptr ? unpacked.as<int8_t>() : packed_;
    if (depthwise(plan)) {
      geometry.group = 1;
      const DepthwisePlan lanes(plan, weight, kernels_.depthwise);
      const ChannelFactors given = factors(inputs, geometry, weights + lanes.sums_place(), kernels_.depthwise.flip);
      const uint32_t* words = reinterpret_cast<const uint32_t*>(weights);
      samples(inputs[0], geometry, output, threads, [&](const void* sample, uint8_t* result) {
        const Image image(*this, geometry, sample, kernels_.depthwise.flip, threads);
        multiply_depthwise(
            {kernels_, geometry, lanes, given, attributes_.wide, words, image.bytes(), result, code_bytes()}, threads);
      });
      return;
    }
    const bool in_place = !attributes_.wide && !needs_image(geometry, plan);
    const ChannelFactors given = factors(inputs, geometry, weights + plan.sums_place(), kernels_.panel.flip);
    samples(inputs[0], geometry, output, threads, [&](const void* sample, uint8_t* result) {
      const Image image(*this, geometry, in_place ? nullptr : sample, kernels_.panel.flip, threads);
      multiply_convolution({kernels_, geometry, plan, given, attributes_.wide, weights, image.bytes(),
                            static_cast<const uint8_t*>(sample), result, code_bytes()},
                           threads);
    });
  }

 private:
  /// The image of a sample; none where there is no sample.
  class Image {
   public:
    Image(const Convolution& made, const ConvolutionGeometry& geometry, const void* sample, uint8_t flip,
          const Threads& threads)
        : bytes_(sample == nullptr ? 0 : image_bytes(geometry) * (made.attributes_.wide ? 2 : 1)),
          there_(sample != nullptr) {
      if (!there_) return;
      write_image(made.attributes_, geometry, made.kernels_.bytes, sample, flip, threads, bytes_.as<uint8_t>());
    }
    const uint8_t* bytes() const { return there_ ? bytes_.as<uint8_t>() : nullptr; }

   private:
    Scratch bytes_;
    bool there_;
  };

  /// Calls `multiply(sample, result)`, both with channels last, for every sample.
  template <typename Multiply>
  void samples(const Tensor& x, const ConvolutionGeometry& geometry, void* output, const Threads& threads,
               const Multiply& multiply) const {
    const size_t pixels = static_cast<size_t>(geometry.input_pixels());
    const size_t channels = static_cast<size_t>(geometry.channels);
    const size_t results = static_cast<size_t>(geometry.pixels());
    const size_t outputs = static_cast<size_t>(geometry.outputs);
    const size_t x_bytes = element_bytes(x.type);
    const bool turned = !attributes_.channels_last;
    const Scratch turned_sample(turned ? pixels * channels * x_bytes : 0);
    const Scratch turned_result(turned ? results * outputs * code_bytes() : 0);
    for (size_t index = 0; index < static_cast<size_t>(geometry.batch); ++index) {
      const uint8_t* sample = x.as<uint8_t>() + index * pixels * channels * x_bytes;
      uint8_t* result = static_cast<uint8_t*>(output) + index * results * outputs * code_bytes();
      if (!turned) {
        multiply(sample, result);
        continue;
      }
      transpose(sample, channels, pixels, x_bytes, turned_sample.as<void>(), threads);
      multiply(turned_sample.as<void>(), turned_result.as<uint8_t>());
      transpose(turned_result.as<void>(), results, outputs, code_bytes(), result, threads);
    }
  }

  bool depthwise(const ConvolutionPlan& plan) const {
    return plan.group > 1 && plan.channels == 1 && plan.outputs == 1;
  }

  ChannelFactors factors(const Inputs& inputs, const ConvolutionGeometry& geometry, const int8_t* weight_sums,
                         uint8_t flip) const {
    return {inputs[2], multiplier(inputs), shift(inputs), channels(geometry), clamp_,
            reinterpret_cast<const int32_t*>(weight_sums), share(flip), attributes_.wide};
  }

  void transpose(const void* source, size_t rows, size_t columns, size_t bytes, void* target,
                 const Threads& threads) const {
    threads.ranges(columns, 1 + (1 << 15) / (rows + 1), [&](size_t begin, size_t end) {
      if (bytes == 1) {
        const uint8_t* codes = static_cast<const uint8_t*>(source);
        kernels_.bytes.turn(codes, rows, columns, begin, end, static_cast<uint8_t*>(target));
      } else {
        turn(static_cast<const int16_t*>(source), rows, columns, begin, end, static_cast<int16_t*>(target));
      }
    });
  }

  /// Shape of the codes of the weight.
  Shape weight_shape(const Tensor& weight) const {
    if (!attributes_.packed) {
      if (weight.type != ElementType::int8) throw Error("the weight is " + element_name(weight.type) + ", not int8");
      check_weight(attributes_, weight.shape);
      return weight.shape;
    }
    const Shape& codes = attributes_.weight;
    check_packed_rows(weight, attributes_.bits, Shape{codes[0], codes.elements(1, codes.rank())});
    return codes;
  }

  Channels channels(const ConvolutionGeometry& geometry) const {
    return {static_cast<size_t>(geometry.outputs), attributes_.channels_last ? 0 : attributes_.rank,
            attributes_.rank + 2};
  }
  const Tensor* multiplier(const Inputs& inputs) const { return attributes_.multiplies ? &inputs[3] : nullptr; }
  const Tensor& shift(const Inputs& inputs) const { return inputs[attributes_.multiplies ? 4 : 3]; }
  size_t code_bytes() const { return element_bytes(clamp_.type); }

  /// What the sum of an output's weights is multiplied with to take the flip off (convolution_image.h).
  int64_t share(uint8_t flip) const {
    if (attributes_.wide) return flip != 0 ? -32768 : 128;
    return flip != 0 ? -128 : 0;
  }

  const Kernels& kernels_;
  ConvolutionAttributes attributes_;
  Clamp clamp_;
  const int8_t* packed_ = nullptr;
};

}  // namespace

void add_convolution(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Convolution>(definition);
  };
  for (const char* name : {"QConv", "QConvChannelsLast", "QConvTranspose"}) {
    for (const char* ending : {"", "Wide", "Packed", "WidePacked"}) {
      registry[std::string(name) + ending] = {make, 5};
      registry[std::string(name) + ending + "Shift"] = {make, 4};
    }
  }
}

}  // namespace qcompiler
