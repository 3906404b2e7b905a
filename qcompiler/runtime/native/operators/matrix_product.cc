#include "operators/matrix_product.h"

#include <algorithm>
#include <cstring>

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
    multiply(panel, 0, first, rows, sums);
    if (!call_.sums64) {
      rescale(panel, first, rows, sums);
      return;
    }
    alignas(64) int64_t joined[most_rows * most_columns];
    const size_t count = rows * call_.weight.columns(panel);
    if (call_.rows.wide()) {
      alignas(64) int32_t low[most_rows * most_columns];
      multiply(panel, 1, first, rows, low);
      for (size_t index = 0; index < count; ++index) joined[index] = int64_t{sums[index]} * 256 + low[index];
    } else {
      for (size_t index = 0; index < count; ++index) joined[index] = sums[index];
    }
    rescale(panel, first, rows, joined);
  }

  void multiply(size_t panel, size_t plane, size_t first, size_t rows, int32_t* sums) const {
    const GemmWeight& weight = call_.weight;
    const uint8_t* row[most_rows];
    for (size_t index = 0; index < rows; ++index) row[index] = call_.rows.row(plane, first + index);
    const int32_t* starts = call_.starts == nullptr ? nullptr : call_.starts + plane * call_.rows.count() + first;
    const uint8_t* panels = call_.packed + weight.panel_place(panel);
    const size_t columns = weight.columns(panel);
    if (weight.low_bit()) {
      const int8_t* const* codes = reinterpret_cast<const int8_t* const*>(row);
      call_.kernels.lowbit.multiply({weight.bits, codes, starts, rows, weight.steps(), panels, columns, sums});
      return;
    }
    call_.kernels.panel.multiply(
        {row, rows, 1, weight.steps(), 0, reinterpret_cast<const int8_t*>(panels), columns, sums});
    if (starts != nullptr) add(starts, rows, columns, sums);
  }

  static void add(const int32_t* starts, size_t rows, size_t columns, int32_t* sums) {
    for (size_t row = 0; row < rows; ++row, sums += columns) {
      const uint32_t start = static_cast<uint32_t>(starts[row]);
      for (size_t column = 0; column < columns; ++column) {
        sums[column] = static_cast<int32_t>(static_cast<uint32_t>(sums[column]) + start);
      }
    }
  }

  template <typename Sum>
  void rescale(size_t panel, size_t first, size_t rows, const Sum* sums) const {
    const GemmWeight& weight = call_.weight;
    const size_t output = panel * weight.panel_columns(), columns = weight.columns(panel);
    const RescaleArea area{rows, std::min(columns, weight.outputs - output), columns, weight.outputs};
    uint8_t* result = call_.result + (first * weight.outputs + output) * call_.code_bytes;
    if constexpr (sizeof(Sum) == 4) {
      call_.kernels.rescale.from32(sums, call_.factors.bias32(output), call_.factors.rescale(output), area, result);
    } else {
      call_.kernels.rescale.from64(sums, call_.factors.bias64(output), call_.factors.rescale(output), area, result);
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
