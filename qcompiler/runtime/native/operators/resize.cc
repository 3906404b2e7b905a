// QResize and QResizeShift: weighted sums of a few elements along one axis, rescaled.
#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/operands.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;
constexpr size_t grain = 16384;

class Resize final : public Operator {
 public:
  explicit Resize(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        multiplies_(definition.type == "QResize"),
        axis_(static_cast<size_t>(definition.attributes.integer("axis", 0, int64_t{Shape::limit} - 1))),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)) {}

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    const bool known = x.type == ElementType::int8 || x.type == ElementType::int16 || x.type == ElementType::int32;
    if (!known) throw Error("codes are int8, int16 or int32, not " + element_name(x.type));
    if (x.type != ElementType::int32) check_zero(x, zero_);
    require(axis_ < x.shape.rank(), "attribute 'axis' names no axis of the tensor");
    check_taps(x, inputs[1], inputs[2]);
    if (multiplies_) {
      check_scalar(inputs[3], "a multiplier");
      check_multiplier(inputs[3]);
    }
    check_scalar(inputs[multiplies_ ? 4 : 3], "a shift");
    check_shift(inputs[multiplies_ ? 4 : 3]);
    Shape shape = x.shape;
    shape[axis_] = inputs[1].shape[0];
    return {ending_.clamp().type, Shape(shape.begin(), shape.rank())};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    switch (inputs[0].type) {
      case ElementType::int8: return resized<int8_t, int32_t>(inputs, output, threads, kernels_.resize.add8);
      case ElementType::int16: return resized<int16_t, int64_t>(inputs, output, threads, kernels_.resize.add16);
      default: return resized<int32_t, int64_t>(inputs, output, threads, kernels_.resize.add32);
    }
  }

 private:
  template <typename Code, typename Sum>
  struct Job {
    const Code* x;
    const int64_t* index;
    const int32_t* weight;
    size_t taps, size, positions, inner;
    std::vector<Sum> start;  ///< Per position: minus the zero point times the sum of its weights.
    Rescale rescale;
    void (*add)(const Code*, int32_t, size_t, Sum*);
  };

  void check_taps(const Tensor& x, const Tensor& index, const Tensor& weight) const {
    if (index.type != ElementType::int64 || weight.type != ElementType::int32 || index.shape.rank() != 2) {
      throw Error("taps are int64 of rank 2 with int32 weights, not " + element_name(index.type) + " " +
                  index.shape.text() + " with " + element_name(weight.type));
    }
    Shape wanted = index.shape;
    for (size_t axis = axis_ + 1; axis < x.shape.rank(); ++axis) wanted.append(1);
    if (weight.shape != wanted) throw Error("weights of shape " + weight.shape.text() + ", not " + wanted.text());
    bool outside = false;
    const int64_t count = index.shape.elements();
    for (int64_t item = 0; item < count; ++item) {
      outside |= index.as<int64_t>()[item] < 0 || index.as<int64_t>()[item] >= x.shape[axis_];
    }
    require(!outside, "a tap lies outside the axis");
  }

  template <typename Code, typename Sum>
  void resized(const Inputs& inputs, void* output, const Threads& threads,
               void (*add)(const Code*, int32_t, size_t, Sum*)) const {
    const Tensor& x = inputs[0];
    const int32_t multiplier = multiplies_ ? *inputs[3].as<int32_t>() : shift_multiplier;
    const Shape& taps = inputs[1].shape;
    Job<Code, Sum> job{x.as<Code>(),
                       inputs[1].as<int64_t>(),
                       inputs[2].as<int32_t>(),
                       static_cast<size_t>(taps[1]),
                       static_cast<size_t>(x.shape[axis_]),
                       static_cast<size_t>(taps[0]),
                       static_cast<size_t>(x.shape.elements(axis_ + 1, x.shape.rank())),
                       {},
                       ending_.with(&multiplier, inputs[multiplies_ ? 4 : 3].as<uint8_t>(), false),
                       add};
    for (size_t position = 0; position < job.positions; ++position) {
      uint64_t sum = 0;
      for (size_t tap = 0; tap < job.taps; ++tap) {
        sum += static_cast<uint64_t>(int64_t{job.weight[position * job.taps + tap]});
      }
      job.start.push_back(static_cast<Sum>(0 - sum * static_cast<uint64_t>(zero_)));
    }
    const size_t outer = static_cast<size_t>(x.shape.elements(0, axis_));
    const size_t work = std::max<size_t>(1, job.inner * job.taps);
    char* result = static_cast<char*>(output);
    threads.ranges(outer * job.positions, std::max<size_t>(1, grain / work), [&](size_t begin, size_t end) {
      job.inner == 1 ? lines(job, begin, end, result) : rows(job, begin, end, result);
    });
  }

  /// Axes behind the resized one: whole rows are weighted and added.
  template <typename Code, typename Sum>
  void rows(const Job<Code, Sum>& job, size_t begin, size_t end, char* output) const {
    std::array<Sum, chunk> sums;
    for (size_t row = begin; row < end; ++row) {
      const size_t position = row % job.positions;
      const Code* image = job.x + row / job.positions * job.size * job.inner;
      for (size_t column = 0; column < job.inner; column += chunk) {
        const size_t count = std::min(chunk, job.inner - column);
        std::fill_n(sums.begin(), count, job.start[position]);
        for (size_t tap = position * job.taps; tap < (position + 1) * job.taps; ++tap) {
          const Code* from = image + static_cast<size_t>(job.index[tap]) * job.inner + column;
          if (job.weight[tap] != 0) job.add(from, job.weight[tap], count, sums.data());
        }
        ended(sums.data(), job.rescale, count, output + (row * job.inner + column) * ending_.code_bytes());
      }
    }
  }

  /// The last axis: single elements are picked.
  template <typename Code, typename Sum>
  void lines(const Job<Code, Sum>& job, size_t begin, size_t end, char* output) const {
    std::array<Sum, chunk> sums;
    while (begin < end) {
      const size_t position = begin % job.positions;
      const Code* line = job.x + begin / job.positions * job.size;
      const size_t count = std::min({chunk, end - begin, job.positions - position});
      const size_t first = position * job.taps;
      for (size_t index = 0; index < count; ++index) {
        uint64_t sum = static_cast<uint64_t>(int64_t{job.start[position + index]});
        for (size_t tap = first + index * job.taps; tap < first + (index + 1) * job.taps; ++tap) {
          sum += static_cast<uint64_t>(int64_t{job.weight[tap]} * int64_t{line[job.index[tap]]});
        }
        sums[index] = static_cast<Sum>(sum);
      }
      ended(sums.data(), job.rescale, count, output + begin * ending_.code_bytes());
      begin += count;
    }
  }

  void ended(const int32_t* sums, const Rescale& rescale, size_t count, void* result) const {
    ending_.from32(sums, rescale, count, result);
  }
  void ended(const int64_t* sums, const Rescale& rescale, size_t count, void* result) const {
    ending_.from64(sums, rescale, count, result);
  }

  const Kernels& kernels_;
  Ending ending_;
  bool multiplies_;
  size_t axis_;
  int64_t zero_;
};

}  // namespace

void add_resize(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Resize>(definition);
  };
  registry["QResize"] = {make, 5};
  registry["QResizeShift"] = {make, 4};
}

}  // namespace qcompiler
