// QMul and QMulShift: products of two tensors of codes, rescaled.
#include <algorithm>
#include <array>
#include <optional>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/broadcast.h"
#include "operators/ending.h"
#include "operators/families.h"
#include "operators/operands.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;
constexpr size_t grain = 16384;

/// Greatest distance of a code from the zero point.
int64_t reach(const Tensor& codes, int64_t zero) {
  const int64_t limit = codes.type == ElementType::int16 ? 32768 : 128;
  return std::max(zero + limit, limit - 1 - zero);
}

/// What the kernel needs, or nothing where its bounds (kernels/elementwise.h) do not hold.
std::optional<CodeProduct> prepare(const Inputs& inputs, const int64_t zero[2], int64_t multiplier, int shift,
                               const Clamp& clamp) {
  if (clamp.type == ElementType::int32) return std::nullopt;
  const int64_t a = reach(inputs[0], zero[0]), b = reach(inputs[1], zero[1]);
  for (; shift < 32; ++shift) multiplier *= 2;  // exact: numerator and denominator change alike
  // 2^62 holds the sum of both parts if each is below 2^61
  const bool fits = a <= 32768 && b <= 32768 && (a < 32768 || inputs[0].type == ElementType::int16) &&
                    (b < 32768 || inputs[1].type == ElementType::int16) && multiplier <= INT32_MAX &&
                    a * b <= (int64_t{1} << 61) / std::max<int64_t>(multiplier, 1);
  const int64_t zero_limit = (int64_t{1} << 60) >> shift;
  if (!fits || shift > 60 || clamp.zero > zero_limit || clamp.zero < -zero_limit) return std::nullopt;
  CodeProduct made{};
  for (size_t operand = 0; operand < 2; ++operand) made.zero[operand] = static_cast<int16_t>(zero[operand]);
  made.multiplier = static_cast<int32_t>(multiplier);
  made.constant = (int64_t{1} << (shift - 1)) + int64_t{clamp.zero} * (int64_t{1} << shift);
  made.shift = shift;
  made.least = static_cast<int16_t>(clamp.low);
  made.greatest = static_cast<int16_t>(clamp.high);
  return made;
}

class Multiply final : public Operator {
 public:
  explicit Multiply(const Definition& definition)
      : kernels_(definition.kernels),
        ending_(definition.kernels, Clamp::read(definition.attributes)),
        multiplies_(definition.type == "QMul"),
        zero_{definition.attributes.integer("a_zero_point", INT32_MIN, INT32_MAX),
              definition.attributes.integer("b_zero_point", INT32_MIN, INT32_MAX)} {}

  Result result(const Inputs& inputs) const override {
    for (size_t operand = 0; operand < 2; ++operand) {
      check_codes(inputs[operand]);
      check_zero(inputs[operand], zero_[operand]);
    }
    if (multiplies_) {
      check_scalar(inputs[2], "a multiplier");
      check_multiplier(inputs[2]);
    }
    check_scalar(inputs[multiplies_ ? 3 : 2], "a shift");
    check_shift(inputs[multiplies_ ? 3 : 2]);
    return {ending_.clamp().type, broadcast_shape(inputs[0].shape, inputs[1].shape)};
  }

  void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const override {
    const Broadcast walk(shape, {inputs[0].shape, inputs[1].shape});
    const int32_t multiplier = multiplies_ ? *inputs[2].as<int32_t>() : shift_multiplier;
    const uint8_t shift = *inputs[multiplies_ ? 3 : 2].as<uint8_t>();
    const Rescale rescale = ending_.with(&multiplier, &shift, false);
    const std::optional<CodeProduct> fast = prepare(inputs, zero_, multiplier, shift, ending_.clamp());
    threads.ranges(walk.elements(), grain, [&](size_t begin, size_t end) {
      walk.pieces(begin, end, [&](size_t index, const auto& places, size_t count) {
        char* result = static_cast<char*>(output) + index * ending_.code_bytes();
        if (fast) {
          quick(*fast, inputs, walk, places, count, {result, ending_.code_bytes() == 2});
        } else {
          exact(rescale, inputs, walk, places, count, result);
        }
      });
    });
  }

 private:
  using Places = std::array<size_t, Broadcast::most_operands>;

  void quick(const CodeProduct& fast, const Inputs& inputs, const Broadcast& walk, const Places& places, size_t count,
             CodesOut result) const {
    Codes operands[2];
    int16_t repeated[2][chunk];
    bool moves = true;
    for (size_t operand = 0; operand < 2; ++operand) {
      operands[operand] = codes_at(inputs[operand], places[operand]);
      if (walk.step(operand) == 1 || count == 1) continue;
      moves = false;
      const int16_t code = static_cast<int16_t>(code_at(inputs[operand], places[operand]));
      std::fill_n(repeated[operand], std::min(count, chunk), code);
      operands[operand] = {repeated[operand], true};
    }
    const size_t part = moves ? count : chunk;
    for (size_t done = 0; done < count; done += part) {
      const size_t now = std::min(part, count - done);
      kernels_.elementwise.multiply(operands[0], operands[1], fast, now, result);
      for (size_t operand = 0; operand < 2; ++operand) {
        const size_t bytes = now * (operands[operand].wide ? 2 : 1) * walk.step(operand);
        operands[operand].data = static_cast<const char*>(operands[operand].data) + bytes;
      }
      result.data = static_cast<char*>(result.data) + now * ending_.code_bytes();
    }
  }

  /// In 64 bits.
  void exact(const Rescale& rescale, const Inputs& inputs, const Broadcast& walk, const Places& places, size_t count,
             char* result) const {
    std::array<int64_t, chunk> first, second;
    for (size_t done = 0; done < count; done += chunk) {
      const size_t now = std::min(chunk, count - done);
      widen(inputs[0], places[0] + done * walk.step(0), walk.step(0), now, zero_[0], first.data());
      widen(inputs[1], places[1] + done * walk.step(1), walk.step(1), now, zero_[1], second.data());
      for (size_t index = 0; index < now; ++index) first[index] *= second[index];
      ending_.from64(first.data(), rescale, now, result + done * ending_.code_bytes());
    }
  }

  const Kernels& kernels_;
  Ending ending_;
  bool multiplies_;
  int64_t zero_[2];
};

}  // namespace

void add_multiply(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Multiply>(definition);
  };
  registry["QMul"] = {make, 4};
  registry["QMulShift"] = {make, 3};
}

}  // namespace qcompiler
