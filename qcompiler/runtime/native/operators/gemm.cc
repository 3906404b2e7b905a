// QGemm in all its variants: requantize(bias + x @ w). Specification: qcompiler/quant/integer/linear.py.
#include "core/error.h"
#include "operators/byte_sums.h"
#include "operators/families.h"
#include "operators/matrix_product.h"
#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

class Gemm final : public Operator {
 public:
  explicit Gemm(const Definition& definition)
      : kernels_(definition.kernels),
        wide_(definition.type.find("Wide") != std::string::npos),
        packed_type_(definition.type.find("Packed") != std::string::npos),
        multiplies_(definition.type.find("Shift") == std::string::npos),
        clamp_(Clamp::read(definition.attributes)) {
    require(clamp_.type != ElementType::int32, "attribute 'to' is int32; a matrix product gives int8 or int16");
    if (!packed_type_) return;
    bits_ = static_cast<int>(definition.attributes.integer("bits", 2, 4));
    const auto sizes = definition.attributes.integers("weight_shape", 2, 0, int64_t{1} << 40);
    codes_ = Shape(sizes.data(), sizes.size());
  }

  size_t packed_bytes(size_t index, const Tensor& constant) const override {
    return index == 1 ? weight_of(constant).bytes() : 0;
  }

  void pack(size_t, const Tensor& constant, void* packed) const override {
    const GemmWeight weight = weight_of(constant);
    if (packed_type_) {
      pack_rows(weight, constant.as<uint8_t>(), bits_, static_cast<uint8_t*>(packed));
    } else {
      pack_columns(weight, constant.as<int8_t>(), static_cast<uint8_t*>(packed));
    }
  }

  void adopt(size_t, const Tensor&, const void* packed) override { packed_ = static_cast<const uint8_t*>(packed); }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    const ElementType wanted = wide_ ? ElementType::int16 : ElementType::int8;
    if (x.type != wanted) {
      throw Error("activations are " + element_name(x.type) + "; here they are " + element_name(wanted));
    }
    const GemmWeight weight = weight_of(inputs[1]);
    if (x.shape.rank() == 0 || x.shape[x.shape.rank() - 1] != static_cast<int64_t>(weight.depth)) {
      throw Error("x " + x.shape.text() + " does not end in the weight's depth of " + std::to_string(weight.depth));
    }
    check_factors(inputs[2], multiplier(inputs), shift(inputs), channels(inputs, weight), wide_);
    Shape shape = x.shape;
    shape[shape.rank() - 1] = static_cast<int64_t>(weight.outputs);
    return {clamp_.type, Shape(shape.begin(), shape.rank())};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const GemmWeight weight = weight_of(inputs[1]);
    const Tensor& x = inputs[0];
    const size_t count = static_cast<size_t>(x.shape.elements(0, x.shape.rank() - 1));
    if (count == 0 || weight.outputs == 0) return;
    const Scratch made(packed_ == nullptr ? weight.bytes() : 0);
    if (packed_ == nullptr) pack(1, inputs[1], made.as<void>());
    const uint8_t* packed = packed_ == nullptr ? made.as<uint8_t>() : packed_;
    // a low-bit weight stays packed where few rows meet it
    const bool stays = weight.low_bit() && (kernels_.lowbit.expand_rows == 0 || count < kernels_.lowbit.expand_rows);
    const uint8_t flip = stays ? 0 : kernels_.panel.flip;
    const int32_t* sums = reinterpret_cast<const int32_t*>(packed + weight.sums_place());
    const ChannelFactors factors(inputs[2], multiplier(inputs), shift(inputs), channels(inputs, weight), clamp_, sums,
                                 ProductRows::share(wide_, flip), wide_);
    const ProductRows rows(kernels_, x.data, wide_, count, weight.depth, weight.row_bytes(), flip, threads);
    const Scratch starts(stays ? 2 * count * sizeof(int32_t) : 0);
    if (stays) write_starts(weight, rows, starts.as<int32_t>());
    const void* bias = wide_ ? static_cast<const void*>(factors.bias64(0)) : factors.bias32(0);
    const int32_t* row_starts = stays ? starts.as<int32_t>() : nullptr;
    multiply_matrix({kernels_, weight, packed, 1, 0, rows, row_starts, nullptr, bias, factors, wide_,
                     static_cast<uint8_t*>(output), element_bytes(clamp_.type)},
                    threads);
  }

 private:
  /// Unsigned weights are 2^(bits - 1) too large.
  void write_starts(const GemmWeight& weight, const ProductRows& rows, int32_t* starts) const {
    const uint32_t offset = uint32_t{1} << (weight.bits - 1);
    for (size_t plane = 0; plane < (wide_ ? 2 : 1); ++plane) {
      for (size_t index = 0; index < rows.count(); ++index) {
        const int8_t* codes = reinterpret_cast<const int8_t*>(rows.row(plane, index));
        const uint32_t sum = static_cast<uint32_t>(kernels_.lowbit.sum(codes, weight.depth));
        *starts++ = static_cast<int32_t>(0u - offset * sum);
      }
    }
  }

  GemmWeight weight_of(const Tensor& weight) const {
    Shape codes = codes_;
    if (packed_type_) {
      check_packed_rows(weight, bits_, codes_);
    } else {
      if (weight.type != ElementType::int8) throw Error("the weight is " + element_name(weight.type) + ", not int8");
      if (weight.shape.rank() != 2) throw Error("the weight " + weight.shape.text() + " is no matrix");
      codes = Shape{weight.shape[1], weight.shape[0]};
    }
    if (wide_) check_wide_sum(codes[1]);
    return {static_cast<size_t>(codes[1]), static_cast<size_t>(codes[0]), bits_};
  }

  Channels channels(const Inputs& inputs, const GemmWeight& weight) const {
    return {weight.outputs, 0, inputs[0].shape.rank()};
  }
  const Tensor* multiplier(const Inputs& inputs) const { return multiplies_ ? &inputs[3] : nullptr; }
  const Tensor& shift(const Inputs& inputs) const { return inputs[multiplies_ ? 4 : 3]; }

  const Kernels& kernels_;
  bool wide_, packed_type_, multiplies_;
  Clamp clamp_;
  int bits_ = 8;
  Shape codes_;
  const uint8_t* packed_ = nullptr;
};

}  // namespace

void add_gemm(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Gemm>(definition);
  };
  for (const char* ending : {"", "Wide", "Packed", "WidePacked"}) {
    registry[std::string("QGemm") + ending] = {make, 5};
    registry[std::string("QGemm") + ending + "Shift"] = {make, 4};
  }
}

}  // namespace qcompiler
