// QMatMul in all its variants: requantize((a - za) @ (b - zb)) of two activations, with the broadcasting of MatMul.
// Specification: qcompiler/quant/integer/linear.py.
#include <algorithm>
#include <vector>

#include "core/error.h"
#include "operators/broadcast.h"
#include "operators/byte_sums.h"
#include "operators/families.h"
#include "operators/matrix_product.h"

namespace qcompiler {
namespace {

/// Sizes of the product and of its batch; a vector is a matrix of one row (a) or column (b).
struct Sizes {
  size_t rows, depth, columns;
  Shape a_batch, b_batch, batch, result;
};

Shape leading(const Shape& shape) { return Shape(shape.begin(), shape.rank() < 2 ? 0 : shape.rank() - 2); }

Sizes sizes_of(const Shape& a, const Shape& b) {
  require(a.rank() > 0 && b.rank() > 0, "an operand of a matrix product is a scalar");
  const int64_t depth = a[a.rank() - 1], below = b[b.rank() < 2 ? 0 : b.rank() - 2];
  if (depth != below) throw Error("matrices of " + a.text() + " and " + b.text() + " have no product");
  Sizes sizes{1, static_cast<size_t>(depth), 1, leading(a), leading(b), {}, {}};
  sizes.batch = sizes.result = broadcast_shape(sizes.a_batch, sizes.b_batch);
  if (a.rank() > 1) {
    sizes.rows = static_cast<size_t>(a[a.rank() - 2]);
    sizes.result.append(a[a.rank() - 2]);
  }
  if (b.rank() > 1) {
    sizes.columns = static_cast<size_t>(b[b.rank() - 1]);
    sizes.result.append(b[b.rank() - 1]);
  }
  return sizes;
}

/// Index of the matrix of an operand that belongs to matrix `index` of the result.
size_t matrix_of(const Shape& operand, const Shape& batch, size_t index) {
  size_t place = 0, step = 1;
  for (size_t axis = batch.rank(); axis-- > 0;) {
    const size_t size = static_cast<size_t>(batch[axis]), at = index % size;
    index /= size;
    if (axis + operand.rank() < batch.rank()) continue;
    const size_t own = static_cast<size_t>(operand[axis + operand.rank() - batch.rank()]);
    if (own != 1) place += step * at;
    step *= own;
  }
  return place;
}

/// The panels of a matrix `[depth, columns]`, of both its bytes where it has 16 bits, and the sums of its columns.
class Panels {
 public:
  Panels(const Kernels& kernels, const GemmWeight& weight, const void* codes, bool wide)
      : planes(wide ? 2 : 1), bytes_(planes * weight.sums_place()), sums_(weight.outputs) {
    const size_t count = weight.depth * weight.outputs;
    if (!wide) fill(kernels, weight, static_cast<const int8_t*>(codes), 0);
    const Scratch bytes(wide ? count : 0);
    for (size_t plane = 0; wide && plane < 2; ++plane) {
      split(static_cast<const int16_t*>(codes), count, plane, bytes.as<int8_t>());
      fill(kernels, weight, bytes.as<int8_t>(), plane);
    }
  }

  const uint8_t* data() const { return bytes_.as<uint8_t>(); }
  const std::vector<int64_t>& sums() const { return sums_; }
  const size_t planes;

 private:
  /// x = 256 * h + l + 128
  static void split(const int16_t* codes, size_t count, size_t plane, int8_t* bytes) {
    for (size_t index = 0; index < count; ++index) {
      const uint32_t code = static_cast<uint32_t>(codes[index]);
      bytes[index] = static_cast<int8_t>(static_cast<uint8_t>(plane == 0 ? code >> 8 : code ^ 0x80));
    }
  }

  void fill(const Kernels& kernels, const GemmWeight& weight, const int8_t* codes, size_t plane) {
    int8_t* target = bytes_.as<int8_t>() + plane * weight.sums_place();
    const int64_t factor = plane + 1 < planes ? 256 : 1;
    for (size_t panel = 0; panel < weight.panels(); ++panel) {
      int32_t sums[64];
      const size_t first = panel * weight.panel_columns();
      const size_t width = std::min(weight.panel_columns(), weight.outputs - first);
      kernels.panel.fill({codes + first, weight.outputs, weight.depth, width, weight.columns(panel),
                          target + weight.panel_place(panel), sums});
      for (size_t index = 0; index < width; ++index) sums_[first + index] += sums[index] * factor;
    }
  }

  Scratch bytes_;
  std::vector<int64_t> sums_;
};

class MatMul final : public Operator {
 public:
  explicit MatMul(const Definition& definition)
      : kernels_(definition.kernels),
        wide_(definition.type.find("Wide") != std::string::npos),
        multiplies_(definition.type.find("Shift") == std::string::npos),
        a_zero_(definition.attributes.integer("a_zero_point", INT16_MIN, INT16_MAX)),
        b_zero_(definition.attributes.integer("b_zero_point", INT16_MIN, INT16_MAX)),
        clamp_(Clamp::read(definition.attributes)) {
    require(clamp_.type != ElementType::int32, "attribute 'to' is int32; a matrix product gives int8 or int16");
  }

  Result result(const Inputs& inputs) const override {
    check_codes(inputs[0], a_zero_, "a");
    check_codes(inputs[1], b_zero_, "b");
    const Sizes sizes = sizes_of(inputs[0].shape, inputs[1].shape);
    if (wide_) check_wide_sum(static_cast<int64_t>(sizes.depth));
    const Channels channels = channels_of(sizes);
    if (multiplies_) {
      per_channel(inputs[2], channels, "multiplier");
      check_multiplier(inputs[2]);
    }
    per_channel(shift(inputs), channels, "shift");
    check_shift(shift(inputs));
    return {clamp_.type, Shape(sizes.result.begin(), sizes.result.rank())};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    Sizes sizes = sizes_of(inputs[0].shape, inputs[1].shape);
    if (sizes.result.elements() == 0) return;
    if (sizes.b_batch.elements() == 1 && sizes.a_batch.elements() == sizes.batch.elements()) {
      sizes.rows *= static_cast<size_t>(sizes.batch.elements());  // one matrix b for all: one product
      sizes.a_batch = sizes.b_batch = sizes.batch = Shape{};
    }
    const ChannelFactors factors(multiplies_ ? &inputs[2] : nullptr, shift(inputs), channels_of(sizes), clamp_);
    const size_t batch = static_cast<size_t>(sizes.batch.elements());
    if (batch == 1) return matrix(inputs, sizes, 0, factors, output, threads);
    threads.ranges(batch, 1, [&](size_t begin, size_t end) {
      for (size_t index = begin; index < end; ++index) matrix(inputs, sizes, index, factors, output, OneThread());
    });
  }

 private:
  /// With what lies in memory, a = A - fa and b = B + fb:
  ///   sum (a - za)(b - zb) = sum A B - (fa + za) sum B - (zb - fb) sum A + depth (fa + za)(zb - fb)
  void matrix(const Inputs& inputs, const Sizes& sizes, size_t index, const ChannelFactors& factors, void* output,
              const Threads& threads) const {
    const bool wide_a = inputs[0].type == ElementType::int16, wide_b = inputs[1].type == ElementType::int16;
    const uint8_t* a = inputs[0].as<uint8_t>() + matrix_of(sizes.a_batch, sizes.batch, index) * sizes.rows *
                                                     sizes.depth * element_bytes(inputs[0].type);
    const uint8_t* b = inputs[1].as<uint8_t>() + matrix_of(sizes.b_batch, sizes.batch, index) * sizes.depth *
                                                     sizes.columns * element_bytes(inputs[1].type);
    const GemmWeight weight(sizes.depth, sizes.columns, 8);
    const uint8_t flip = kernels_.panel.flip;
    const ProductRows rows(kernels_, a, wide_a, sizes.rows, sizes.depth, weight.row_bytes(), flip, threads);
    const Panels panels(kernels_, weight, b, wide_b);
    const int64_t a_zero = a_zero_ - ProductRows::share(wide_a, flip), b_zero = b_zero_ - (wide_b ? 128 : 0);
    const Scratch column_bias(sizes.columns * sizeof(int64_t)), row_bias(sizes.rows * sizeof(int64_t));
    write_column_bias(panels.sums(), a_zero, column_bias);
    if (b_zero != 0) write_row_bias(rows, sizes.depth, a_zero, b_zero, row_bias.as<int64_t>());
    const size_t bytes = element_bytes(clamp_.type);
    multiply_matrix({kernels_, weight, panels.data(), panels.planes, weight.sums_place(), rows, nullptr,
                     b_zero != 0 ? row_bias.as<int64_t>() : nullptr, column_bias.as<void>(), factors, wide_,
                     static_cast<uint8_t*>(output) + index * sizes.rows * sizes.columns * bytes, bytes},
                    threads);
  }

  void write_column_bias(const std::vector<int64_t>& sums, int64_t a_zero, const Scratch& bias) const {
    for (size_t index = 0; index < sums.size(); ++index) {
      const int64_t value = -a_zero * sums[index];
      if (wide_) {
        bias.as<int64_t>()[index] = value;
      } else {
        bias.as<int32_t>()[index] = static_cast<int32_t>(static_cast<uint32_t>(value));
      }
    }
  }

  void write_row_bias(const ProductRows& rows, size_t depth, int64_t a_zero, int64_t b_zero, int64_t* bias) const {
    for (size_t index = 0; index < rows.count(); ++index) {
      int64_t sum = 0;
      for (size_t plane = 0; plane < rows.planes(); ++plane) sum = sum * 256 + byte_sum(rows.row(plane, index), depth);
      bias[index] = b_zero * (static_cast<int64_t>(depth) * a_zero - sum);
    }
  }

  /// Sum of bytes as the panel kernel sees them.
  int64_t byte_sum(const uint8_t* row, size_t depth) const {
    if (kernels_.panel.flip == 0) return kernels_.lowbit.sum(reinterpret_cast<const int8_t*>(row), depth);
    uint32_t sum = 0;
    for (size_t index = 0; index < depth; ++index) sum += row[index];
    return sum;
  }

  void check_codes(const Tensor& codes, int64_t zero, const char* name) const {
    const bool fits = codes.type == ElementType::int8 || (wide_ && codes.type == ElementType::int16);
    if (!fits) {
      throw Error(std::string(name) + " is " + element_name(codes.type) + "; here it is int8" +
                  (wide_ ? " or int16" : ""));
    }
    if (codes.type == ElementType::int8 && (zero < INT8_MIN || zero > INT8_MAX)) {
      throw Error(std::to_string(zero) + " is no zero point of int8 codes " + name);
    }
  }

  static Channels channels_of(const Sizes& sizes) {
    return {sizes.columns, 0, std::max<size_t>(1, sizes.result.rank())};
  }
  const Tensor& shift(const Inputs& inputs) const { return inputs[multiplies_ ? 3 : 2]; }

  const Kernels& kernels_;
  bool wide_, multiplies_;
  int64_t a_zero_, b_zero_;
  Clamp clamp_;
};

}  // namespace

void add_matmul(Registry& registry) {
  const auto make = [](const Definition& definition) -> std::unique_ptr<Operator> {
    return std::make_unique<MatMul>(definition);
  };
  for (const char* ending : {"", "Wide"}) {
    registry[std::string("QMatMul") + ending] = {make, 4};
    registry[std::string("QMatMul") + ending + "Shift"] = {make, 3};
  }
}

}  // namespace qcompiler
