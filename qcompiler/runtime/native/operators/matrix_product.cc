#include "operators/matrix_product.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 16, most_columns = 64;
constexpr size_t band_bytes = size_t{1} << 18;   // of rows that stay in the cache while panels pass by
constexpr size_t thread_work = size_t{1} << 18;  // products that are worth a thread

void write_row(const ByteKernels& kernels, const uint8_t* codes, size_t depth, size_t row_bytes, uint8_t flip,
               uint8_t* row) {
  kernels.flip(codes, depth, flip, row);
  std::memset(row + depth, 0, row_bytes - depth);
}

void write_planes(const int16_t* codes, size_t depth, size_t row_bytes, uint8_t flip, uint8_t* high, uint8_t* low) {
  const uint8_t low_flip = flip ^ 0x80;
  for (size_t index = 0; index < depth; ++index) {
    const uint32_t code = static_cast<uint32_t>(codes[index]);
    high[index] = static_cast<uint8_t>((code >> 8) ^ flip);
    low[index] = static_cast<uint8_t>(code ^ low_flip);
  }
  std::memset(high + depth, 0, row_bytes - depth);
  std::memset(low + depth, 0, row_bytes - depth);
}

/// One panel times one band of rows.
class Product {
 public:
  Product(const MatrixProduct& product, size_t bands)
      : call_(product), bands_(bands), tile_rows_(product.weight.low_bit() ? low_bit_rows : product.kernels.panel.rows) {}

  void unit(size_t index) const {
    const size_t panel = index % call_.weight.panels(), band = index / call_.weight.panels();
    const size_t begin = call_.rows.count() * band / bands_, end = call_.rows.count() * (band + 1) / bands_;
    for (size_t first = begin; first < end; first += tile_rows_) tile(panel, first, std::min(tile_rows_, end - first));
  }

 private:
  void tile(size_t panel, size_t first, size_t rows) const {
    alignas(64) int32_t sums[most_rows * most_columns];
    const size_t columns = call_.weight.columns(panel);
    if (!call_.sums64) {
      multiply({panel, 0, 0}, first, rows, sums);
      add_row_bias(first, rows, columns, sums);
      rescale(panel, first, rows, sums);
      return;
    }
    alignas(64) int64_t joined[most_rows * most_columns];
    std::fill_n(joined, rows * columns, 0);
    add_row_bias(first, rows, columns, joined);
    for (size_t row_plane = 0; row_plane < call_.rows.planes(); ++row_plane) {
      for (size_t plane = 0; plane < call_.planes; ++plane) {
        multiply({panel, plane, row_plane}, first, rows, sums);
        const int64_t factor = int64_t{1} << 8 * (call_.rows.planes() + call_.planes - 2 - row_plane - plane);
        for (size_t index = 0; index < rows * columns; ++index) joined[index] += sums[index] * factor;
      }
    }
    rescale(panel, first, rows, joined);
  }

  struct Planes {
    size_t panel, weight, row;
  };

  void multiply(const Planes& of, size_t first, size_t rows, int32_t* sums) const {
    const GemmWeight& weight = call_.weight;
    const uint8_t* row[most_rows];
    for (size_t index = 0; index < rows; ++index) row[index] = call_.rows.row(of.row, first + index);
    const uint8_t* panel = call_.packed + of.weight * call_.plane_bytes + weight.panel_place(of.panel);
    const size_t columns = weight.columns(of.panel);
    if (weight.low_bit()) {
      const int8_t* const* codes = reinterpret_cast<const int8_t* const*>(row);
      const int32_t* starts = call_.starts + of.row * call_.rows.count() + first;
      call_.kernels.lowbit.multiply({weight.bits, codes, starts, rows, weight.steps(), panel, columns, sums});
    } else {
      const int8_t* bytes = reinterpret_cast<const int8_t*>(panel);
      call_.kernels.panel.multiply({row, rows, 1, weight.steps(), 0, bytes, columns, sums});
    }
  }

  template <typename Sum>
  void add_row_bias(size_t first, size_t rows, size_t columns, Sum* sums) const {
    if (call_.row_bias == nullptr) return;
    using Unsigned = std::make_unsigned_t<Sum>;
    for (size_t row = 0; row < rows; ++row, sums += columns) {
      const Unsigned bias = static_cast<Unsigned>(call_.row_bias[first + row]);
      for (size_t column = 0; column < columns; ++column) {
        sums[column] = static_cast<Sum>(static_cast<Unsigned>(sums[column]) + bias);
      }
    }
  }

  template <typename Sum>
  void rescale(size_t panel, size_t first, size_t rows, const Sum* sums) const {
    const GemmWeight& weight = call_.weight;
    const size_t output = panel * weight.panel_columns(), columns = weight.columns(panel);
    const RescaleArea area{rows, std::min(columns, weight.outputs - output), columns, weight.outputs};
    const Sum* bias = static_cast<const Sum*>(call_.column_bias) + output;
    uint8_t* result = call_.result + (first * weight.outputs + output) * call_.code_bytes;
    if constexpr (sizeof(Sum) == 4) {
      call_.kernels.rescale.from32(sums, bias, call_.factors.rescale(output), area, result);
    } else {
      call_.kernels.rescale.from64(sums, bias, call_.factors.rescale(output), area, result);
    }
  }

  const MatrixProduct& call_;
  size_t bands_, tile_rows_;
};

/// Into how many bands the rows are cut: they fit the cache, and every thread has something to do.
size_t bands_of(const MatrixProduct& product, const Threads& threads) {
  const size_t rows = product.rows.count(), panels = product.weight.panels();
  const size_t by_cache = rows * product.rows.row_bytes() / band_bytes + 1;
  const size_t by_threads = threads.count() == 1 ? 1 : (4 * threads.count() + panels - 1) / panels;
  const size_t tiles = (rows + low_bit_rows - 1) / low_bit_rows;
  return std::max<size_t>(1, std::min(std::max(by_cache, by_threads), tiles));
}

}  // namespace

ProductRows::ProductRows(const Kernels& kernels, const void* codes, bool wide, size_t count, size_t depth,
                         size_t row_bytes, uint8_t flip, const Threads& threads)
    : count_(count), row_bytes_(row_bytes), wide_(wide), bytes_(count * row_bytes * (wide ? 2 : 1)) {
  uint8_t* bytes = bytes_.as<uint8_t>();
  threads.ranges(count, thread_work / (row_bytes + 1) + 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      uint8_t* row = bytes + index * row_bytes;
      if (wide) {
        write_planes(static_cast<const int16_t*>(codes) + index * depth, depth, row_bytes, flip, row,
                     row + count * row_bytes);
      } else {
        write_row(kernels.bytes, static_cast<const uint8_t*>(codes) + index * depth, depth, row_bytes, flip, row);
      }
    }
  });
}

void multiply_matrix(const MatrixProduct& product, const Threads& threads) {
  const size_t rows = product.rows.count(), panels = product.weight.panels();
  if (rows == 0 || panels == 0) return;
  const size_t bands = bands_of(product, threads);
  const Product work(product, bands);
  const size_t unit_work = product.rows.row_bytes() * product.weight.panel_columns() * ((rows + bands - 1) / bands);
  threads.ranges(bands * panels, thread_work / (unit_work + 1) + 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) work.unit(index);
  });
}

}  // namespace qcompiler
