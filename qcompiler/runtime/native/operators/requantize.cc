// Requantize and RequantizeShift: codes or accumulators to codes of another scale.
#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/broadcast.h"
#include "operators/families.h"
#include "operators/operands.h"
#include "operators/scale.h"

namespace qcompiler {
namespace {

constexpr size_t chunk = 512;                  // elements that are widened at a time
constexpr size_t grain = 16384;

class Requantize final : public Operator {
 public:
  explicit Requantize(const Definition& definition)
      : kernels_(definition.kernels),
        multiplies_(definition.type == "Requantize"),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)),
        ending_(definition.kernels, Clamp::read(definition.attributes)) {}

  Result result(const Inputs& inputs) const override {
    widen(inputs[0], 0, 0, 0, 0, nullptr);  // refuses other types
    const Tensor& shift = inputs[multiplies_ ? 2 : 1];
    if (multiplies_) check_multiplier(inputs[1]);
    check_shift(shift);
    const Shape factors = multiplies_ ? broadcast_shape(inputs[1].shape, shift.shape) : shift.shape;
    return {ending_.clamp().type, broadcast_shape(inputs[0].shape, factors)};
  }

  void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const override {
    const Tensor& x = inputs[0];
    const Tensor& shift = inputs[multiplies_ ? 2 : 1];
    const Broadcast walk(shape, {x.shape, multiplies_ ? inputs[1].shape : Shape{}, shift.shape});
    const int32_t* multiplier = multiplies_ ? inputs[1].as<int32_t>() : &shift_multiplier;
    threads.ranges(walk.elements(), grain, [&](size_t begin, size_t end) {
      walk.pieces(begin, end, [&](size_t index, const auto& places, size_t count) {
        const Piece piece{&x, places[0], multiplier + places[1], shift.as<uint8_t>() + places[2]};
        char* result = static_cast<char*>(output) + index * ending_.code_bytes();
        if (walk.step(1) == 0 && walk.step(2) == 0 && (walk.step(0) == 1 || count == 1)) {
          Scale(kernels_, ending_, x.type, zero_, *piece.multiplier, *piece.shift).run(x, places[0], count, result);
        } else {
          each(walk, piece, count, result);
        }
      });
    });
  }

 private:
  /// One run: codes at `place` of `x`, and the factors beside them.
  struct Piece {
    const Tensor* x;
    size_t place;
    const int32_t* multiplier;
    const uint8_t* shift;
  };

  /// One factor per element: whatever is repeated is written out.
  void each(const Broadcast& walk, const Piece& piece, size_t count, char* result) const {
    std::array<int64_t, chunk> sums;
    std::array<int32_t, chunk> multipliers;
    std::array<uint8_t, chunk> shifts;
    for (size_t done = 0; done < count; done += chunk) {
      const size_t now = std::min(chunk, count - done);
      for (size_t index = 0; index < now; ++index) {
        multipliers[index] = piece.multiplier[(done + index) * walk.step(1)];
        shifts[index] = piece.shift[(done + index) * walk.step(2)];
      }
      const Rescale rescale = ending_.with(multipliers.data(), shifts.data(), true);
      const size_t place = piece.place + done * walk.step(0);
      if (piece.x->type == ElementType::int32 && zero_ == 0 && walk.step(0) == 1) {
        ending_.from32(piece.x->as<int32_t>() + place, rescale, now, result + done * ending_.code_bytes());
        continue;
      }
      widen(*piece.x, place, walk.step(0), now, zero_, sums.data());
      ending_.from64(sums.data(), rescale, now, result + done * ending_.code_bytes());
    }
  }

  const Kernels& kernels_;
  bool multiplies_;
  int64_t zero_;
  Ending ending_;
};

}  // namespace

void add_requantize(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Requantize>(definition);
  };
  registry["Requantize"] = {make, 3};
  registry["RequantizeShift"] = {make, 2};
}

}  // namespace qcompiler
