// QLayerNormalization and QRMSNormalization over the last axes.
#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/families.h"
#include "operators/norm_factors.h"
#include "operators/operands.h"
#include "operators/reciprocal_root.h"

namespace qcompiler {
namespace {

constexpr int64_t greatest_shift = 62;
constexpr int64_t most_kept = int64_t{1} << 24;  // elements of factors laid out when the operator is made
constexpr size_t grain = 8192;   // codes that are worth a thread
constexpr size_t together = 16;  // rows whose roots are found before they are normalized, so that these overlap

/// From a row's moment to its root. Everything wraps; the compiler has proven that nothing does.
struct RootShifts {
  int64_t left, right, epsilon, root_shift;

  void apply(uint64_t moment, NormalRow& row) const {
    const uint64_t placed = (moment << left) >> right;
    const Root root = reciprocal_root(static_cast<int64_t>(placed + static_cast<uint64_t>(epsilon)));
    row.root = root.root;
    row.shift = static_cast<int32_t>(std::clamp<int64_t>(root_shift - root.pairs, 1, greatest_shift));
  }
};

class Normalization final : public Operator {
 public:
  explicit Normalization(const Definition& definition)
      : kernels_(definition.kernels.norms),
        centres_(definition.type == "QLayerNormalization"),
        clamp_(Clamp::read(definition.attributes)) {
    const Attributes& attributes = definition.attributes;
    const bool narrow = clamp_.type != ElementType::int32;
    require(narrow, "attribute 'to' names int32; a normalization gives int8 or int16");
    read_axes(attributes);
    const int64_t last = (int64_t{1} << greatest_shift) - 1;
    root_ = {attributes.integer("left", 0, greatest_shift), attributes.integer("right", 0, greatest_shift),
             attributes.integer("epsilon", 1, last), attributes.integer("root_shift", 1, greatest_shift)};
    if (centres_) size_ = attributes.integer("size", 0, int64_t{1} << 24);
    if (!centres_) zero_ = attributes.integer("x_zero_point", -32768, 32767);
    keep_constants(definition);
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    check_codes(x);
    if (axes_ > x.shape.rank()) throw Error("shape " + x.shape.text() + " has fewer axes than are normalized");
    const int64_t row = x.shape.elements(x.shape.rank() - axes_, x.shape.rank());
    if (centres_ && row != size_) {
      throw Error("a row has " + std::to_string(row) + " codes, not " + std::to_string(size_));
    }
    const NormOperands operands = operands_of(inputs);
    if (!kept_) operands.check();
    if (broadcast_shape(x.shape, operands.shape()) != x.shape) {
      throw Error("factors of shape " + operands.shape().text() + " do not broadcast to " + x.shape.text());
    }
    return {clamp_.type, x.shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& x = inputs[0];
    if (x.shape.elements() == 0) return;
    const size_t row = static_cast<size_t>(x.shape.elements(x.shape.rank() - axes_, x.shape.rank()));
    const size_t rows = static_cast<size_t>(x.shape.elements()) / row;
    const bool wide = clamp_.type == ElementType::int16;
    const bool shared = shared_by_rows(operands_of(inputs).shape());
    threads.ranges(rows, std::max<size_t>(1, grain / row), [&](size_t begin, size_t end) {
      std::optional<NormRowFactors> own;
      const NormRowFactors* factors = kept_ && kept_row_ == row ? &*kept_ : nullptr;
      if (factors == nullptr) factors = &own.emplace(operands_of(inputs), x.shape, row);
      std::array<NormalRow, together> rows_now;
      for (size_t index = begin; index < end; ++index) {
        if (own && (index == begin || !shared)) own->fill(index);
        const size_t place = (index - begin) % together;
        for (size_t next = index; place == 0 && next < std::min(index + together, end); ++next) {
          rows_now[next - index] = normal(codes_at(x, next * row), row);
        }
        const CodesOut result{static_cast<char*>(output) + index * row * (wide ? 2 : 1), wide};
        kernels_.normalize(codes_at(x, index * row), row, rows_now[place], factors->with(clamp_), result);
      }
    });
  }

 private:
  void read_axes(const Attributes& attributes) {
    const std::vector<int64_t> axes = attributes.integers("axes", -static_cast<int64_t>(Shape::limit), -1);
    axes_ = axes.size();
    require(axes_ > 0, "attribute 'axes' is empty");
    for (size_t index = 0; index < axes_; ++index) {
      require(axes[index] == static_cast<int64_t>(index) - static_cast<int64_t>(axes_),
              "attribute 'axes' does not name the last axes, counted from the end, in order");
    }
  }

  NormOperands operands_of(const Inputs& inputs) const {
    if (centres_) return {inputs[1], inputs[2], inputs[3]};
    return {inputs[1], {}, inputs[2]};
  }

  /// Factors that are constant and that every row shares are laid out once.
  void keep_constants(const Definition& definition) {
    std::vector<Tensor> given(centres_ ? 4 : 3);
    for (size_t index = 1; index < given.size(); ++index) {
      if (definition.constant(index) == nullptr) return;
      given[index] = *definition.constant(index);
    }
    const NormOperands operands = operands_of({given.data(), given.size()});
    operands.check();
    const Shape shape = operands.shape();
    if (!shared_by_rows(shape) || shape.elements() == 0 || shape.elements() > most_kept) return;
    kept_row_ = static_cast<size_t>(shape.elements());
    kept_.emplace(operands, shape, kept_row_);
    kept_->fill(0);
    kept_->release();
  }

  bool shared_by_rows(const Shape& shape) const {
    return shape.rank() <= axes_ || shape.elements(0, shape.rank() - axes_) == 1;
  }

  NormalRow normal(Codes x, size_t count) const {
    const Moments moments = kernels_.moments(x, count);
    const uint64_t sum = static_cast<uint64_t>(moments.sum), squares = static_cast<uint64_t>(moments.squares);
    NormalRow row{};
    if (centres_) {
      row.scale = static_cast<int32_t>(count);
      row.offset = static_cast<int32_t>(static_cast<uint32_t>(sum));
      root_.apply(count * squares - sum * sum, row);
    } else {
      const uint64_t zero = static_cast<uint64_t>(zero_);
      row.scale = 1;
      row.offset = static_cast<int32_t>(zero_);
      root_.apply(squares - 2 * zero * sum + count * zero * zero, row);
    }
    return row;
  }

  const NormKernels& kernels_;
  bool centres_;  ///< LayerNorm.
  Clamp clamp_;
  size_t axes_ = 0;  ///< How many of the last axes make a row.
  RootShifts root_{};
  int64_t size_ = 0, zero_ = 0;
  std::optional<NormRowFactors> kept_;
  size_t kept_row_ = 0;
};

}  // namespace

void add_norms(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<Normalization>(definition);
  };
  registry["QLayerNormalization"] = {make, 4};
  registry["QRMSNormalization"] = {make, 3};
}

}  // namespace qcompiler
