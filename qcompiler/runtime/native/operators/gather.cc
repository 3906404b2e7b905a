// QGather and QGatherWeightOnly: rows of a packed table, picked by number, with a factor per row.
// Specification: qcompiler/quant/integer/gather.py.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/scratch.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/packed_rows.h"
#include "operators/scale.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;  // codes that are worth a thread

/// The packed table that both operators read, and the numbers of its rows.
class Table {
 public:
  explicit Table(const Attributes& attributes)
      : bits_(static_cast<int>(attributes.integer("bits", 2, 8))),
        codes_(attributes.integers("weight_shape", 2, 1, int64_t{1} << 40).data(), 2) {
    if (bits_ > 4 && bits_ != 8) throw Error("attribute 'bits' is " + std::to_string(bits_) + "; it is 2, 3, 4 or 8");
  }

  size_t depth() const { return static_cast<size_t>(codes_[1]); }

  Shape result(const Inputs& inputs) const {
    const Tensor& indices = inputs[0];
    if (indices.type != ElementType::int32 && indices.type != ElementType::int64) {
      throw Error("indices are " + element_name(indices.type) + "; they are int32 or int64");
    }
    check_packed_rows(inputs[1], bits_, codes_);
    Shape shape = indices.shape;
    shape.append(codes_[1]);
    return Shape(shape.begin(), shape.rank());  // refuses results that are too large
  }

  /// One number for each row, or an Error that calls it `what`.
  void check_factor(const Tensor& factor, ElementType type, const char* what) const {
    if (factor.type == type && factor.shape == Shape{codes_[0]}) return;
    throw Error(std::string(what) + " is " + element_name(factor.type) + " " + factor.shape.text() + "; it is " +
                element_name(type) + " " + Shape{codes_[0]}.text());
  }

  /// Calls `write(position, row, codes)` for every index, on any threads.
  template <typename Write>
  void rows(const Inputs& inputs, const Threads& threads, const Write& write) const {
    const Tensor& indices = inputs[0];
    const auto count = static_cast<size_t>(indices.shape.elements());
    for (size_t position = 0; position < count; ++position) row(indices, position);
    const size_t width = packed_row_bytes(depth(), bits_);
    threads.ranges(count, grain / depth() + 1, [&](size_t begin, size_t end) {
      const Scratch codes(depth());
      for (size_t position = begin; position < end; ++position) {
        const size_t found = row(indices, position);
        unpack_row(inputs[1].as<uint8_t>() + found * width, bits_, depth(), codes.as<int8_t>());
        write(position, found, codes.as<int8_t>());
      }
    });
  }

 private:
  /// The row that an index means; a negative one counts from the end.
  size_t row(const Tensor& indices, size_t position) const {
    const int64_t index = indices.type == ElementType::int32 ? indices.as<int32_t>()[position]
                                                             : indices.as<int64_t>()[position];
    if (index < -codes_[0] || index >= codes_[0]) {
      throw Error("index " + std::to_string(index) + " is outside a table of " + std::to_string(codes_[0]) + " rows");
    }
    return static_cast<size_t>(index < 0 ? index + codes_[0] : index);
  }

  int bits_;
  Shape codes_;
};

class Gather final : public Operator {
 public:
  explicit Gather(const Definition& definition)
      : kernels_(definition.kernels),
        table_(definition.attributes),
        ending_(definition.kernels, Clamp::read(definition.attributes)) {}

  Result result(const Inputs& inputs) const override {
    const Shape shape = table_.result(inputs);
    check_multiplier(inputs[2]);
    check_shift(inputs[3]);
    table_.check_factor(inputs[2], ElementType::int32, "multiplier");
    table_.check_factor(inputs[3], ElementType::uint8, "shift");
    return {ending_.clamp().type, shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const size_t depth = table_.depth();
    table_.rows(inputs, threads, [&](size_t position, size_t row, const int8_t* codes) {
      const Tensor source{ElementType::int8, Shape{static_cast<int64_t>(depth)}, codes};
      const Scale scale(kernels_, ending_, ElementType::int8, 0, inputs[2].as<int32_t>()[row],
                        inputs[3].as<uint8_t>()[row]);
      scale.run(source, 0, depth, static_cast<char*>(output) + position * depth * ending_.code_bytes());
    });
  }

 private:
  const Kernels& kernels_;
  Table table_;
  Ending ending_;
};

class GatherWeightOnly final : public Operator {
 public:
  explicit GatherWeightOnly(const Definition& definition) : table_(definition.attributes) {}

  Result result(const Inputs& inputs) const override {
    const Shape shape = table_.result(inputs);
    table_.check_factor(inputs[2], ElementType::float32, "scale");
    const float* scale = inputs[2].as<float>();
    const bool normal = std::all_of(scale, scale + inputs[2].shape.elements(), [](float item) {
      return item >= std::numeric_limits<float>::min() && item <= std::numeric_limits<float>::max();
    });
    require(normal, "a scale is no positive normal number");
    return {ElementType::float32, shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const size_t depth = table_.depth();
    table_.rows(inputs, threads, [&](size_t position, size_t row, const int8_t* codes) {
      const float scale = inputs[2].as<float>()[row];
      float* result = static_cast<float*>(output) + position * depth;
      for (size_t index = 0; index < depth; ++index) result[index] = static_cast<float>(codes[index]) * scale;
    });
  }

 private:
  Table table_;
};

}  // namespace

void add_gather(Registry& registry) {
  registry["QGather"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                           return std::make_unique<Gather>(definition);
                         },
                         4};
  registry["QGatherWeightOnly"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                                     return std::make_unique<GatherWeightOnly>(definition);
                                   },
                                   3};
}

}  // namespace qcompiler
