// Requantize and RequantizeShift: codes or accumulators to codes of another scale.
#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/broadcast.h"
#include "operators/clamp.h"
#include "operators/families.h"

namespace qcompiler {
namespace {

constexpr int32_t shift_multiplier = 1 << 16;  // a shift to the left by 16 is a product with 2^16
constexpr size_t chunk = 512;                  // elements that are widened at a time
constexpr size_t grain = 16384;

void check_codes(const Tensor& x) {
  const bool known = x.type == ElementType::int8 || x.type == ElementType::int16 || x.type == ElementType::int32 ||
                     x.type == ElementType::int64;
  if (!known) throw Error("codes are int8, int16, int32 or int64, not " + element_name(x.type));
}

/// Centred codes in 64 bits; `step` is 0 where one element is repeated.
template <typename Element>
void widen(const Element* from, size_t step, size_t count, int64_t zero, int64_t* into) {
  for (size_t index = 0; index < count; ++index) {
    into[index] = static_cast<int64_t>(static_cast<uint64_t>(int64_t{from[index * step]}) - static_cast<uint64_t>(zero));
  }
}

void widen(const Tensor& x, size_t place, size_t step, size_t count, int64_t zero, int64_t* into) {
  switch (x.type) {
    case ElementType::int8: return widen(x.as<int8_t>() + place, step, count, zero, into);
    case ElementType::int16: return widen(x.as<int16_t>() + place, step, count, zero, into);
    case ElementType::int32: return widen(x.as<int32_t>() + place, step, count, zero, into);
    default: return widen(x.as<int64_t>() + place, step, count, zero, into);
  }
}

class Requantize final : public Operator {
 public:
  explicit Requantize(const Definition& definition)
      : kernels_(definition.kernels),
        multiplies_(definition.type == "Requantize"),
        zero_(definition.attributes.integer("x_zero_point", INT32_MIN, INT32_MAX)),
        clamp_(Clamp::read(definition.attributes)) {
    require(clamp_.type != ElementType::int32, "Requantize gives int8 or int16");
  }

  Result result(const Inputs& inputs) const override {
    check_codes(inputs[0]);
    const Tensor& shift = inputs[multiplies_ ? 2 : 1];
    if (multiplies_) check_multiplier(inputs[1]);
    check_shift(shift);
    const Shape factors = multiplies_ ? broadcast_shape(inputs[1].shape, shift.shape) : shift.shape;
    return {clamp_.type, broadcast_shape(inputs[0].shape, factors)};
  }

  void run(const Inputs& inputs, void* output, const Threads& threads) const override {
    const Tensor& shift = inputs[multiplies_ ? 2 : 1];
    const Shape one{};
    const Broadcast walk(result(inputs).shape, {inputs[0].shape, multiplies_ ? inputs[1].shape : one, shift.shape});
    const int32_t* multiplier = multiplies_ ? inputs[1].as<int32_t>() : &shift_multiplier;
    threads.ranges(walk.elements(), grain, [&](size_t begin, size_t end) {
      walk.pieces(begin, end, [&](size_t index, const auto& places, size_t count) {
        const Piece piece{&inputs[0], places[0], multiplier + places[1], shift.as<uint8_t>() + places[2]};
        whole(walk, piece, count, static_cast<char*>(output) + index * code_bytes());
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

  bool wide() const { return clamp_.type == ElementType::int16; }
  size_t code_bytes() const { return wide() ? 2 : 1; }

  void whole(const Broadcast& walk, const Piece& piece, size_t count, void* result) const {
    const size_t factors[2] = {walk.step(1), walk.step(2)};
    if (factors[0] == 0 && factors[1] == 0) {
      return rescaled(walk, piece, {piece.multiplier, piece.shift, false, clamp_.zero, clamp_.low, clamp_.high, wide()},
                      count, result);
    }
    // one factor per element: where only one of both is repeated, it is written out
    std::array<int32_t, chunk> multipliers;
    std::array<uint8_t, chunk> shifts;
    for (size_t done = 0; done < count; done += chunk) {
      const size_t now = std::min(chunk, count - done);
      for (size_t index = 0; index < now; ++index) {
        multipliers[index] = piece.multiplier[(done + index) * factors[0]];
        shifts[index] = piece.shift[(done + index) * factors[1]];
      }
      const Rescale rescale{multipliers.data(), shifts.data(), true, clamp_.zero, clamp_.low, clamp_.high, wide()};
      const Piece part{piece.x, piece.place + done * walk.step(0), nullptr, nullptr};
      rescaled(walk, part, rescale, now, static_cast<char*>(result) + done * code_bytes());
    }
  }

  void rescaled(const Broadcast& walk, const Piece& piece, const Rescale& rescale, size_t count, void* result) const {
    if (piece.x->type == ElementType::int32 && zero_ == 0 && walk.step(0) == 1) {
      return kernels_.rescale.from32(piece.x->as<int32_t>() + piece.place, nullptr, rescale, {1, count, count, count},
                                     result);
    }
    std::array<int64_t, chunk> sums;
    Rescale part = rescale;
    for (size_t done = 0; done < count; done += chunk) {
      const size_t now = std::min(chunk, count - done);
      widen(*piece.x, piece.place + done * walk.step(0), walk.step(0), now, zero_, sums.data());
      kernels_.rescale.from64(sums.data(), nullptr, part, {1, now, now, now},
                              static_cast<char*>(result) + done * code_bytes());
      if (part.per_column) {
        part.multiplier += now;
        part.shift += now;
      }
    }
  }

  const Kernels& kernels_;
  bool multiplies_;
  int64_t zero_;
  Clamp clamp_;
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
