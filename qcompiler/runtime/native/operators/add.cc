// QAdd, QSub and their forms without multipliers: two tensors of codes are brought to one scale and added.
#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/broadcast.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/pair_sum.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;
constexpr size_t grain = 16384;
constexpr uint8_t left_limit = 40;

class Add final : public Operator {
 public:
  explicit Add(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        multiplies_(definition.type == "QAdd" || definition.type == "QSub"),
        subtracts_(definition.type == "QSub" || definition.type == "QSubShift"),
        zero_{definition.attributes.integer("a_zero_point", INT32_MIN, INT32_MAX),
              definition.attributes.integer("b_zero_point", INT32_MIN, INT32_MAX)} {}

  Result result(const Inputs& inputs) const override {
    for (size_t operand = 0; operand < 2; ++operand) {
      check_codes(inputs[operand]);
      check_zero(inputs[operand], zero_[operand]);
      check_scalar(inputs[2 + operand], multiplies_ ? "a multiplier" : "a shift to the left");
      multiplies_ ? check_multiplier(inputs[2 + operand]) : check_left(inputs[2 + operand]);
    }
    check_scalar(inputs[4], "a shift");
    check_shift(inputs[4]);
    return {ending_.clamp().type, broadcast_shape(inputs[0].shape, inputs[1].shape)};
  }

  void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const override {
    const Term a = term(inputs, 0), b = term(inputs, 1);
    const uint8_t shift = *inputs[4].as<uint8_t>();
    const Broadcast walk(shape, {inputs[0].shape, inputs[1].shape});
    const std::optional<FastSum> fast = FastSum::prepare(a, b, shift, ending_.clamp());
    threads.ranges(walk.elements(), grain, [&](size_t begin, size_t end) {
      walk.pieces(begin, end, [&](size_t index, const auto& places, size_t count) {
        char* result = static_cast<char*>(output) + index * ending_.code_bytes();
        if (fast) {
          quick(*fast, inputs, walk, places, count, {result, ending_.code_bytes() == 2});
        } else {
          exact(a, b, shift, inputs, walk, places, count, result);
        }
      });
    });
  }

 private:
  using Places = std::array<size_t, Broadcast::most_operands>;

  static void check_left(const Tensor& left) {
    if (left.type != ElementType::uint8) throw Error("a shift is " + element_name(left.type) + "; it is uint8");
    require(*left.as<uint8_t>() <= left_limit, "a shift to the left is outside 0 to 40");
  }

  Term term(const Inputs& inputs, size_t operand) const {
    const Tensor& factor = inputs[2 + operand];
    const int64_t value = multiplies_ ? *factor.as<int32_t>() : int64_t{1} << *factor.as<uint8_t>();
    return {inputs[operand].type == ElementType::int16, zero_[operand], subtracts_ && operand == 1 ? -value : value};
  }

  void quick(const FastSum& fast, const Inputs& inputs, const Broadcast& walk, const Places& places, size_t count,
             CodesOut result) const {
    const Codes a = codes_at(inputs[0], places[0]), b = codes_at(inputs[1], places[1]);
    if (walk.step(0) == walk.step(1)) {  // one element where neither moves
      kernels_.elementwise.sum(a, b, fast.pairs(), count, result);
    } else if (walk.step(0) == 1) {
      kernels_.elementwise.scale(a, fast.alone(0, code_at(inputs[1], places[1])), count, result);
    } else {
      kernels_.elementwise.scale(b, fast.alone(1, code_at(inputs[0], places[0])), count, result);
    }
  }

  /// In 64 bits.
  void exact(const Term& a, const Term& b, uint8_t shift, const Inputs& inputs, const Broadcast& walk,
             const Places& places, size_t count, char* result) const {
    constexpr int32_t one = 1;
    const Rescale rescale = ending_.with(&one, &shift, false);
    std::array<int64_t, chunk> first, second;
    for (size_t done = 0; done < count; done += chunk) {
      const size_t now = std::min(chunk, count - done);
      widen(inputs[0], places[0] + done * walk.step(0), walk.step(0), now, a.zero, first.data());
      widen(inputs[1], places[1] + done * walk.step(1), walk.step(1), now, b.zero, second.data());
      for (size_t index = 0; index < now; ++index) {
        first[index] = first[index] * a.multiplier + second[index] * b.multiplier;
      }
      ending_.from64(first.data(), rescale, now, result + done * ending_.code_bytes());
    }
  }

  const Kernels& kernels_;
  Ending ending_;
  bool multiplies_, subtracts_;
  int64_t zero_[2];
};

}  // namespace

void add_add(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Add>(definition);
  };
  for (const char* type : {"QAdd", "QAddShift", "QSub", "QSubShift"}) registry[type] = {make, 5};
}

}  // namespace qcompiler
