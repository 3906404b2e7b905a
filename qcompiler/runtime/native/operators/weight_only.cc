// QMatMulWeightOnly: float activations times weights of 8, 4, 3 or 2 bits with multipliers and zero points per block.
// Specification: qcompiler/quant/integer/weight_only.py.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "operators/block_rows.h"
#include "operators/byte_sums.h"
#include "operators/families.h"
#include "operators/packed_rows.h"

namespace qcompiler {
namespace {

constexpr int64_t least_block = 16;
constexpr uint16_t greatest_multiplier = 2047;
constexpr size_t thread_work = size_t{1} << 18;  // products that are worth a thread
constexpr size_t band_rows = 64;                 // rows that stay in the cache while panels pass by

BlockWeight read(const Attributes& attributes) {
  const int bits = static_cast<int>(attributes.integer("bits", 2, 8));
  if (bits > 4 && bits != 8) throw Error("attribute 'bits' is " + std::to_string(bits) + "; it is 2, 3, 4 or 8");
  const auto shape = attributes.integers("weight_shape", 2, 1, int64_t{1} << 40);
  if (shape[1] > most_byte_products) {  // sums of a block fit 32 bits
    throw Error("rows hold " + std::to_string(shape[1]) + " codes; at most " + std::to_string(most_byte_products) +
                " can be summed");
  }
  const int64_t block = attributes.integer("block", 1, INT32_MAX);
  if (block < shape[1] && (block < least_block || block % 8 != 0)) {
    throw Error("attribute 'block' is " + std::to_string(block) +
                "; it is a multiple of 8, at least 16, or a whole row");
  }
  Shape(shape.data(), 2);  // refuses products that are too large
  return {bits, static_cast<size_t>(shape[1]), static_cast<size_t>(shape[0]),
          static_cast<size_t>(std::min(block, shape[1]))};
}

class WeightOnly final : public Operator {
 public:
  explicit WeightOnly(const Definition& definition)
      : kernels_(definition.kernels), weight_(read(definition.attributes)) {}

  size_t packed_bytes(size_t index, const Tensor& constant) const override {
    if (index == 1) {
      check_codes(constant);
      return weight_.code_bytes();
    }
    if (index == 2) {
      check_multipliers(constant);
      return weight_.parameters() * sizeof(uint16_t);
    }
    if (index != 4) return 0;
    check_zeros(constant);
    return constant.shape.elements() > 1 ? weight_.parameters() : 0;
  }

  void pack(size_t index, const Tensor& constant, void* packed) const override {
    if (index == 1) pack_codes(weight_, constant.as<uint8_t>(), static_cast<uint8_t*>(packed));
    if (index == 2) pack_parameters(weight_, constant.as<uint16_t>(), static_cast<uint16_t*>(packed));
    if (index == 4) pack_parameters(weight_, constant.as<int8_t>(), static_cast<int8_t*>(packed));
  }

  void adopt(size_t index, const Tensor&, const void* packed) override { packed_[index] = packed; }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    if (x.type != ElementType::float32) throw Error("x is " + element_name(x.type) + "; it is float32");
    if (x.shape.rank() == 0 || x.shape[x.shape.rank() - 1] != static_cast<int64_t>(weight_.depth)) {
      throw Error("x " + x.shape.text() + " does not end in the weight's depth of " + std::to_string(weight_.depth));
    }
    if (packed_[1] == nullptr) check_codes(inputs[1]);
    if (packed_[2] == nullptr) check_multipliers(inputs[2]);
    if (packed_[4] == nullptr) check_zeros(inputs[4]);
    check_scale(inputs[3]);
    Shape shape = x.shape;
    shape[shape.rank() - 1] = static_cast<int64_t>(weight_.outputs);
    return {ElementType::float32, Shape(shape.begin(), shape.rank())};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Shape& shape = inputs[0].shape;
    const size_t count = static_cast<size_t>(shape.elements(0, shape.rank() - 1));
    if (count == 0) return;
    const bool same = packed_[4] == nullptr && inputs[4].shape.elements() == 1;
    const Scratch made[3] = {Scratch(missing_bytes(1, inputs)), Scratch(missing_bytes(2, inputs)),
                             Scratch(missing_bytes(4, inputs))};
    const BlockRows rows(kernels_, weight_, inputs[0].as<float>(), count, threads);
    const Call call{rows,
                    static_cast<const uint8_t*>(operand(1, inputs, made[0])),
                    static_cast<const uint16_t*>(operand(2, inputs, made[1])),
                    same ? nullptr : static_cast<const int8_t*>(operand(4, inputs, made[2])),
                    same ? inputs[4].as<int8_t>()[0] : 0,
                    inputs[3].as<float>(),
                    static_cast<float*>(output)};
    multiply(call, threads);
  }

 private:
  struct Call {
    const BlockRows& rows;
    const uint8_t* codes;
    const uint16_t* multipliers;
    const int8_t* zeros;
    int32_t zero;
    const float* scale;
    float* result;
  };

  void multiply(const Call& call, const Threads& threads) const {
    const size_t panels = weight_.panels(), rows = call.rows.count();
    const size_t bands = threads.count() == 1 && rows <= band_rows
                             ? 1 : std::min((rows + block_rows - 1) / block_rows, rows / band_rows + 2);
    const size_t unit_work = weight_.depth * block_columns * ((rows + bands - 1) / bands);
    threads.ranges(bands * panels, thread_work / unit_work + 1, [&](size_t begin, size_t end) {
      for (size_t index = begin; index < end; ++index) {
        const size_t band = index / panels;
        for (size_t first = rows * band / bands, last = rows * (band + 1) / bands; first < last; first += block_rows) {
          tile(call, index % panels, first, std::min(block_rows, last - first));
        }
      }
    });
  }

  void tile(const Call& call, size_t panel, size_t first, size_t rows) const {
    BlockRow row[block_rows];
    for (size_t index = 0; index < rows; ++index) row[index] = call.rows.row(first + index);
    alignas(64) int64_t totals[block_rows * block_columns];
    const size_t parameters = panel * weight_.panel_parameters();
    kernels_.blockwise.multiply({weight_.bits, weight_.paired(), row, rows, weight_.blocks(), weight_.steps(),
                                 call.codes + panel * weight_.panel_bytes(), call.multipliers + parameters,
                                 call.zeros == nullptr ? nullptr : call.zeros + parameters, call.zero, totals});
    const size_t output = panel * block_columns, count = std::min(block_columns, weight_.outputs - output);
    for (size_t index = 0; index < rows; ++index) {
      kernels_.blockwise.finish(totals + index * block_columns, count, call.rows.scale(first + index),
                                call.scale + output, call.rows.guard(first + index),
                                call.result + (first + index) * weight_.outputs + output);
    }
  }

  /// Bytes of the packed form of an operand that was not packed before.
  size_t missing_bytes(size_t index, const Inputs& inputs) const {
    return packed_[index] == nullptr ? packed_bytes(index, inputs[index]) : 0;
  }

  const void* operand(size_t index, const Inputs& inputs, const Scratch& made) const {
    if (packed_[index] != nullptr) return packed_[index];
    pack(index, inputs[index], made.as<void>());
    return made.as<void>();
  }

  void check_codes(const Tensor& codes) const {
    const Shape wanted{static_cast<int64_t>(weight_.outputs), static_cast<int64_t>(weight_.depth)};
    check_packed_rows(codes, weight_.bits, wanted);
  }

  void check_parameters(const Tensor& tensor, ElementType type, const char* name) const {
    const Shape wanted{static_cast<int64_t>(weight_.outputs), static_cast<int64_t>(weight_.blocks())};
    if (tensor.type == type && tensor.shape == wanted) return;
    throw Error(std::string(name) + " is " + element_name(tensor.type) + " " + tensor.shape.text() + "; it is " +
                element_name(type) + " " + wanted.text());
  }

  void check_scale(const Tensor& tensor) const {
    if (tensor.type != ElementType::float32 || tensor.shape != Shape{static_cast<int64_t>(weight_.outputs)}) {
      throw Error("scale is " + element_name(tensor.type) + " " + tensor.shape.text() + "; it is float32 [" +
                  std::to_string(weight_.outputs) + "]");
    }
    bool normal = true;
    for (size_t index = 0; index < weight_.outputs; ++index) {
      const float scale = tensor.as<float>()[index];
      normal &= scale >= std::numeric_limits<float>::min() && scale <= std::numeric_limits<float>::max();
    }
    require(normal, "a scale is no positive normal number");
  }

  void check_multipliers(const Tensor& tensor) const {
    check_parameters(tensor, ElementType::uint16, "block_multiplier");
    const size_t count = static_cast<size_t>(tensor.shape.elements());
    bool wrong = false;
    for (size_t index = 0; index < count; ++index) {
      wrong |= static_cast<uint16_t>(tensor.as<uint16_t>()[index] - 1) >= greatest_multiplier;
    }
    require(!wrong, "a block_multiplier is outside 1 to 2047");
  }

  void check_zeros(const Tensor& tensor) const {
    if (tensor.shape != Shape{1, 1} || tensor.type != ElementType::int8) {
      check_parameters(tensor, ElementType::int8, "zero_point");
    }
    const size_t count = static_cast<size_t>(tensor.shape.elements());
    const int half = 1 << (weight_.bits - 1);
    bool wrong = false;
    for (size_t index = 0; index < count; ++index) {
      wrong |= tensor.as<int8_t>()[index] < -half || tensor.as<int8_t>()[index] >= half;
    }
    if (wrong) throw Error("a zero_point is no code of " + std::to_string(weight_.bits) + " bits");
  }

  const Kernels& kernels_;
  BlockWeight weight_;
  const void* packed_[5] = {};
};

}  // namespace

void add_weight_only(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<WeightOnly>(definition);
  };
  registry["QMatMulWeightOnly"] = {make, 5};
}

}  // namespace qcompiler
