// QLogQuantize and QLogDequantize: codes on grids whose steps grow.
#include <memory>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/families.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;
constexpr int64_t greatest_code = 127;

class LogQuantize final : public Operator {
 public:
  explicit LogQuantize(const Definition& definition) : kernels_(definition.kernels) {
    if (const Tensor* thresholds = definition.constant(1)) check(*thresholds);
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    const Tensor& thresholds = inputs[1];
    if (x.type != thresholds.type || (x.type != ElementType::int8 && x.type != ElementType::int16)) {
      throw Error("codes and thresholds are both int8 or both int16, not " + element_name(x.type) + " and " +
                  element_name(thresholds.type));
    }
    check(thresholds);
    return {ElementType::int8, x.shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& thresholds = inputs[1];
    const auto number = static_cast<size_t>(thresholds.shape.elements());
    int8_t* codes = static_cast<int8_t*>(output);
    threads.ranges(static_cast<size_t>(inputs[0].shape.elements()), grain, [&](size_t begin, size_t end) {
      const LogarithmicKernels& kernels = kernels_.logarithmic;
      if (inputs[0].type == ElementType::int8) {
        const int8_t* x = inputs[0].as<int8_t>() + begin;
        kernels.count_bytes(x, thresholds.as<int8_t>(), number, end - begin, codes + begin);
      } else {
        const int16_t* x = inputs[0].as<int16_t>() + begin;
        kernels.count_words(x, thresholds.as<int16_t>(), number, end - begin, codes + begin);
      }
    });
  }

 private:
  static void check(const Tensor& thresholds) {
    const Shape& shape = thresholds.shape;
    if (shape.rank() != 1 || shape[0] < 1 || shape[0] > greatest_code) {
      throw Error("there are 1 to 127 thresholds, not " + shape.text());
    }
    if (thresholds.type == ElementType::int8) return check_order(thresholds.as<int8_t>(), shape[0]);
    if (thresholds.type == ElementType::int16) return check_order(thresholds.as<int16_t>(), shape[0]);
    throw Error("thresholds are int8 or int16, not " + element_name(thresholds.type));
  }

  template <typename Code>
  static void check_order(const Code* thresholds, int64_t number) {
    for (int64_t index = 1; index < number; ++index) {
      require(thresholds[index - 1] <= thresholds[index], "thresholds must ascend");
    }
  }

  const Kernels& kernels_;
};

class LogDequantize final : public Operator {
 public:
  explicit LogDequantize(const Definition& definition) : kernels_(definition.kernels) {}

  Result result(const Inputs& inputs) const override {
    const Tensor& values = inputs[1];
    if (inputs[0].type != ElementType::int8 || values.type != ElementType::int16) {
      throw Error("codes are int8 and values int16, not " + element_name(inputs[0].type) + " and " +
                  element_name(values.type));
    }
    if (values.shape.rank() != 1 || values.shape[0] < 2 || values.shape[0] > greatest_code + 1) {
      throw Error("there are 2 to 128 values, not " + values.shape.text());
    }
    return {ElementType::int16, inputs[0].shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& values = inputs[1];
    const auto number = static_cast<size_t>(values.shape.elements());
    const int8_t* x = inputs[0].as<int8_t>();
    int16_t* decoded = static_cast<int16_t*>(output);
    threads.ranges(static_cast<size_t>(inputs[0].shape.elements()), grain, [&](size_t begin, size_t end) {
      kernels_.logarithmic.decode(x + begin, values.as<int16_t>(), number, end - begin, decoded + begin);
    });
  }

 private:
  const Kernels& kernels_;
};

}  // namespace

void add_logarithmic(Registry& registry) {
  registry["QLogQuantize"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                                return std::make_unique<LogQuantize>(definition);
                              },
                              2};
  registry["QLogDequantize"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                                  return std::make_unique<LogDequantize>(definition);
                                },
                                2};
}

}  // namespace qcompiler
