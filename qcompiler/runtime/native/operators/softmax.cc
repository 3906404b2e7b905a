// QSoftmax and QSoftmaxShift along any axis. Rows that are not contiguous are gathered and scattered in blocks.
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/scratch.h"
#include "kernels/table.h"
#include "operators/clamp.h"
#include "operators/families.h"
#include "operators/operands.h"

namespace qcompiler {
namespace {

constexpr uint32_t base = 387270501;        // log2(e) * 2^28
constexpr int64_t longest_row = 1 << 16;
constexpr size_t grain = 4096;   // terms that are worth a thread
constexpr size_t block = 32;     // rows that are gathered at a time where they are not contiguous
constexpr size_t most_together = 8;  // rows whose sums are found before their reciprocals, so that these overlap
constexpr size_t together_terms = 2048;
constexpr int64_t farthest_zero = 1 << 27;

/// 2^60 / m of a sum S = m * 2^(n - 30), and n.
struct Reciprocal {
  uint64_t value;
  int32_t places;
};

/// `sum` is 2^30 to 2^46: the row's greatest term is 2^30.
Reciprocal reciprocal_of(uint64_t sum) {
  const int32_t places = 63 - __builtin_clzll(sum) - 30;
  const uint64_t mantissa = sum >> places;
  uint64_t reciprocal = 1515870810 - ((mantissa * 1010580540) >> 31);  // 24/17 - 8/17 m
  for (int step = 0; step < 3; ++step) {
    const uint64_t correction = ((uint64_t{1} << 61) - mantissa * reciprocal) >> 30;
    reciprocal = (reciprocal * correction) >> 30;
  }
  return {reciprocal, places + 30};
}

/// The two rescales of a node: of distances, and of the reciprocal of a row's sum.
struct Factors {
  SoftmaxExponent exponent;
  std::array<int32_t, 256> by_distance;
  uint64_t multiplier;
  uint8_t shift;

  Factors(uint32_t x_multiplier, uint8_t x_shift, int32_t multiplier, uint8_t shift)
      : exponent{x_multiplier, std::max(16 - x_shift, 0), std::max(x_shift - 16, 0), nullptr},
        multiplier(static_cast<uint64_t>(multiplier)),
        shift(shift) {
    for (uint32_t distance = 0; distance < 256; ++distance) by_distance[distance] = softmax_term(exponent, distance);
  }

  /// The exponent with the table of this very object.
  SoftmaxExponent with_table() const {
    SoftmaxExponent made = exponent;
    made.by_distance = by_distance.data();
    return made;
  }

  SoftmaxShare share(uint64_t sum, const Clamp& clamp) const {
    const Reciprocal reciprocal = reciprocal_of(sum);
    const uint64_t rounded = (reciprocal.value * multiplier + (uint64_t{1} << (shift - 1))) >> shift;
    const int64_t zero = std::clamp<int64_t>(clamp.zero, -farthest_zero, farthest_zero);  // beyond, all are clipped
    return {static_cast<uint32_t>(std::min<uint64_t>(rounded, INT32_MAX)), reciprocal.places + 6,
            static_cast<int32_t>(zero), clamp.low, clamp.high};
  }
};

template <typename Code>
void turn(const Code* source, size_t rows, size_t row_step, size_t columns, size_t column_step, Code* target,
          size_t target_row_step, size_t target_column_step) {
  for (size_t column = 0; column < columns; ++column) {
    for (size_t row = 0; row < rows; ++row) {
      target[row * target_row_step + column * target_column_step] = source[row * row_step + column * column_step];
    }
  }
}

class Softmax final : public Operator {
 public:
  explicit Softmax(const Definition& definition)
      : kernels_(definition.kernels.softmax),
        multiplies_(definition.type == "QSoftmax"),
        axis_(definition.attributes.integer("axis", -static_cast<int64_t>(Shape::limit), Shape::limit - 1)),
        clamp_(Clamp::read(definition.attributes)) {
    if (clamp_.type == ElementType::int32) throw Error("attribute 'to' names int32; a softmax gives int8 or int16");
    std::array<Tensor, 5> given;
    bool constant = true;
    for (size_t index = 1; index < (multiplies_ ? 5 : 3); ++index) {
      const Tensor* tensor = definition.constant(index);
      constant = constant && tensor != nullptr;
      if (tensor != nullptr) given[index] = *tensor;
    }
    if (constant) factors_.emplace(read({given.data(), given.size()}));
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    check_codes(x);
    const size_t axis = x.shape.axis(axis_);
    if (x.shape[axis] > longest_row) {
      throw Error("a row of " + std::to_string(x.shape[axis]) + " terms; softmax takes up to 65536");
    }
    if (!factors_) check(inputs);
    return {clamp_.type, x.shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& x = inputs[0];
    if (x.shape.elements() == 0) return;
    std::optional<Factors> own;
    if (!factors_) own.emplace(read(inputs));
    const Factors& factors = factors_ ? *factors_ : *own;
    const size_t axis = x.shape.axis(axis_), terms = static_cast<size_t>(x.shape[axis]);
    const size_t inner = static_cast<size_t>(x.shape.elements(axis + 1, x.shape.rank()));
    const size_t rows = static_cast<size_t>(x.shape.elements()) / terms;
    threads.ranges(rows, std::max<size_t>(1, grain / terms), [&](size_t begin, size_t end) {
      const Scratch scratch(rows_together(terms) * padded(terms) * sizeof(int32_t));
      const Rows all{factors, terms, scratch.as<int32_t>()};
      if (inner == 1) {
        contiguous(codes_at(x, begin * terms), end - begin, all, at(output, begin * terms));
      } else {
        strided(x, inner, begin, end, all, output);
      }
    });
  }

 private:
  struct Rows {
    const Factors& factors;
    size_t terms;
    int32_t* scratch;
  };

  void check(const Inputs& inputs) const {
    for (size_t index = 1; index < (multiplies_ ? 5 : 3); ++index) {
      check_scalar(inputs[index], "a factor of a softmax");
      if (multiplies_ && index % 2 == 1) {
        check_multiplier(inputs[index]);
      } else {
        check_shift(inputs[index]);
      }
    }
  }

  Factors read(const Inputs& inputs) const {
    check(inputs);
    const auto shift = [&](size_t index) { return *inputs[index].as<uint8_t>(); };
    if (!multiplies_) return Factors(base, shift(1), shift_multiplier, shift(2));
    return Factors(static_cast<uint32_t>(*inputs[1].as<int32_t>()), shift(2), *inputs[3].as<int32_t>(), shift(4));
  }

  static size_t rows_together(size_t terms) { return std::clamp<size_t>(together_terms / terms, 1, most_together); }
  /// Terms of a row with those that kernels may write behind them.
  static size_t padded(size_t terms) { return terms + 16; }

  CodesOut at(void* output, size_t place) const {
    const bool wide = clamp_.type == ElementType::int16;
    return {static_cast<char*>(output) + place * (wide ? 2 : 1), wide};
  }

  void contiguous(Codes x, size_t count, const Rows& rows, CodesOut result) const {
    const SoftmaxExponent exponent = rows.factors.with_table();
    const size_t together = rows_together(rows.terms), stride = padded(rows.terms);
    for (size_t first = 0; first < count; first += together) {
      const size_t now = std::min(together, count - first);
      std::array<uint64_t, most_together> sums;
      for (size_t row = 0; row < now; ++row) {
        const size_t place = (first + row) * rows.terms;
        const Codes from{static_cast<const char*>(x.data) + place * (x.wide ? 2 : 1), x.wide};
        sums[row] = kernels_.terms(from, rows.terms, exponent, rows.scratch + row * stride);
      }
      std::array<SoftmaxShare, most_together> shares;
      for (size_t row = 0; row < now; ++row) shares[row] = rows.factors.share(sums[row], clamp_);
      for (size_t row = 0; row < now; ++row) {
        const CodesOut codes = at(result.data, (first + row) * rows.terms);
        kernels_.shares(rows.scratch + row * stride, rows.terms, shares[row], codes);
      }
    }
  }

  /// Rows `begin` to `end` whose terms lie `inner` codes apart.
  void strided(const Tensor& x, size_t inner, size_t begin, size_t end, const Rows& rows, void* output) const {
    const Scratch codes(block * rows.terms * sizeof(int16_t)), results(block * rows.terms * sizeof(int16_t));
    while (begin < end) {
      const size_t place = begin / inner * inner * rows.terms + begin % inner;
      const size_t count = std::min({block, end - begin, inner - begin % inner});
      const Codes gathered{codes.as<void>(), x.type == ElementType::int16};
      if (gathered.wide) {
        turn(x.as<int16_t>() + place, count, 1, rows.terms, inner, codes.as<int16_t>(), rows.terms, 1);
      } else {
        turn(x.as<int8_t>() + place, count, 1, rows.terms, inner, codes.as<int8_t>(), rows.terms, 1);
      }
      contiguous(gathered, count, rows, at(results.as<void>(), 0));
      const CodesOut target = at(output, place);
      if (target.wide) {
        turn(results.as<int16_t>(), count, rows.terms, rows.terms, 1, static_cast<int16_t*>(target.data), 1, inner);
      } else {
        turn(results.as<int8_t>(), count, rows.terms, rows.terms, 1, static_cast<int8_t*>(target.data), 1, inner);
      }
      begin += count;
    }
  }

  const SoftmaxKernels& kernels_;
  bool multiplies_;
  int64_t axis_;
  Clamp clamp_;
  std::optional<Factors> factors_;  ///< Where they are constant.
};

}  // namespace

void add_softmax(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Softmax>(definition);
  };
  registry["QSoftmax"] = {make, 5};
  registry["QSoftmaxShift"] = {make, 3};
}

}  // namespace qcompiler
