#include "operators/matrix_product.h"

#include <algorithm>
#include <type_traits>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 16;                 // of a tile
constexpr size_t band_bytes = size_t{1} << 19;   // of rows that stay in the cache while panels pass by
constexpr size_t band_rows = 256;                // whose sums stay there as well
constexpr size_t thread_work = size_t{1} << 18;  // products that are worth a thread
constexpr size_t block_groups = 128;  // of a panel that stay in the first cache while the tiles of a band pass by

/// 64 columns (32 of a weight that stays packed) times one band of rows.
class Product {
 public:
  Product(const MatrixProduct& product, size_t bands)
      : call_(product),
        bands_(bands),
        packed_(product.starts != nullptr),
        tile_rows_(packed_ ? low_bit_rows : product.kernels.panel.rows) {}

  static size_t unit_columns(const MatrixProduct& product) {
    return product.starts != nullptr ? product.weight.panel_columns() : 64;
  }

  void unit(size_t index) const {
    const size_t width = unit_columns(call_), units = (call_.weight.outputs + width - 1) / width;
    const size_t band = index / units, first = index % units * width;
    const size_t begin = call_.rows.count() * band / bands_, end = call_.rows.count() * (band + 1) / bands_;
    const Unit unit{first, std::min(width, (call_.weight.outputs - first + 15) / 16 * 16), begin, end - begin};
    const size_t pairs = call_.rows.planes() * call_.planes, size = unit.rows * unit.columns;
    const Scratch sums(pairs * size * sizeof(int32_t));
    for (size_t pair = 0; pair < pairs; ++pair) {
      multiply(unit, pair / call_.planes, pair % call_.planes, sums.as<int32_t>() + pair * size);
    }
    if (call_.sums64) {
      finish64(unit, sums.as<int32_t>());
    } else {
      add_row_bias(unit, sums.as<int32_t>());
      rescale(unit, sums.as<int32_t>());
    }
  }

 private:
  struct Unit {
    size_t first, columns;  ///< Columns, filled up.
    size_t begin, rows;
  };

  void multiply(const Unit& unit, size_t row_plane, size_t plane, int32_t* sums) const {
    const GemmWeight& weight = call_.weight;
    const size_t place = weight.panel_place(unit.first / weight.panel_columns());
    const uint8_t* panel = call_.packed + plane * call_.plane_bytes + place;
    if (packed_) {
      multiply_packed(unit, row_plane, panel, sums);
      return;
    }
    const size_t groups = weight.row_bytes() / 4;
    const bool blocked = unit.rows > tile_rows_ && groups > block_groups + block_groups / 2;
    const size_t most = blocked ? block_groups : groups;
    const Scratch bytes(weight.low_bit() ? most * unit.columns * 4 : 0);
    for (size_t group = 0; group < groups || group == 0; group += most) {
      const size_t count = std::min(most, groups - group);
      if (weight.low_bit()) {
        expand(unit, panel, group, count, bytes.as<int8_t>());
        multiply_block(unit, row_plane, {bytes.as<int8_t>(), group, count}, sums);
      } else {
        const int8_t* codes = reinterpret_cast<const int8_t*>(panel) + group * unit.columns * 4;
        multiply_block(unit, row_plane, {codes, group, count}, sums);
      }
      if (count == 0) break;
    }
  }

  /// Depths of a panel of bytes.
  struct Block {
    const int8_t* codes;
    size_t group, count;
  };

  void multiply_block(const Unit& unit, size_t row_plane, const Block& block, int32_t* sums) const {
    const size_t tiles = (unit.rows + tile_rows_ - 1) / tile_rows_;
    const size_t bytes = block.count * unit.columns * 4, lines = block.count * 64;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t first = unit.rows * tile / tiles, rows = unit.rows * (tile + 1) / tiles - first;
      const bool fetches = tiles > 1 && !call_.weight.low_bit() && tile * lines < bytes;  // the block that comes next
      const int8_t* ahead = fetches ? block.codes + bytes + tile * lines : nullptr;
      const uint8_t* row[most_rows];
      for (size_t index = 0; index < rows; ++index) {
        row[index] = call_.rows.row(row_plane, unit.begin + first + index) + 4 * block.group;
      }
      call_.kernels.panel.multiply({row, rows, 1, block.count, 0, block.codes, unit.columns,
                                    sums + first * unit.columns, ahead, block.group > 0});
    }
  }

  /// The weights of a block as bytes; two panels become one.
  void expand(const Unit& unit, const uint8_t* panel, size_t group, size_t count, int8_t* bytes) const {
    const GemmWeight& weight = call_.weight;
    const size_t parts = weight.step() / 4;
    for (size_t column = 0; column < unit.columns; column += weight.panel_columns()) {
      const size_t columns = std::min(weight.panel_columns(), unit.columns - column);
      const uint8_t* steps = panel + column / 16 * weight.vector_bytes() * weight.steps();
      const size_t place = group / parts * (columns / 16) * weight.vector_bytes();
      call_.kernels.lowbit.expand(
          {weight.bits, count / parts, steps + place, columns, bytes + 4 * column, unit.columns});
    }
  }

  void multiply_packed(const Unit& unit, size_t row_plane, const uint8_t* panel, int32_t* sums) const {
    const GemmWeight& weight = call_.weight;
    for (size_t first = 0; first < unit.rows; first += tile_rows_) {
      const size_t rows = std::min(tile_rows_, unit.rows - first), at = unit.begin + first;
      const int8_t* row[most_rows];
      for (size_t index = 0; index < rows; ++index) {
        row[index] = reinterpret_cast<const int8_t*>(call_.rows.row(row_plane, at + index));
      }
      const int32_t* starts = call_.starts + row_plane * call_.rows.count() + at;
      call_.kernels.lowbit.multiply(
          {weight.bits, row, starts, rows, weight.steps(), panel, unit.columns, sums + first * unit.columns});
    }
  }

  /// Joins the sums of all pairs of bytes.
  void finish64(const Unit& unit, const int32_t* sums) const {
    const size_t size = unit.rows * unit.columns;
    const Scratch made(size * sizeof(int64_t));
    int64_t* joined = made.as<int64_t>();
    std::fill_n(joined, size, 0);
    for (size_t row_plane = 0; row_plane < call_.rows.planes(); ++row_plane) {
      for (size_t plane = 0; plane < call_.planes; ++plane, sums += size) {
        const int64_t factor = int64_t{1} << 8 * (call_.rows.planes() + call_.planes - 2 - row_plane - plane);
        for (size_t index = 0; index < size; ++index) joined[index] += sums[index] * factor;
      }
    }
    add_row_bias(unit, joined);
    rescale(unit, joined);
  }

  template <typename Sum>
  void add_row_bias(const Unit& unit, Sum* sums) const {
    if (call_.row_bias == nullptr) return;
    using Unsigned = std::make_unsigned_t<Sum>;
    for (size_t row = 0; row < unit.rows; ++row, sums += unit.columns) {
      const Unsigned bias = static_cast<Unsigned>(call_.row_bias[unit.begin + row]);
      for (size_t column = 0; column < unit.columns; ++column) {
        sums[column] = static_cast<Sum>(static_cast<Unsigned>(sums[column]) + bias);
      }
    }
  }

  template <typename Sum>
  void rescale(const Unit& unit, const Sum* sums) const {
    const size_t outputs = call_.weight.outputs;
    const RescaleArea area{unit.rows, std::min(unit.columns, outputs - unit.first), unit.columns, outputs};
    const Sum* bias = static_cast<const Sum*>(call_.column_bias) + unit.first;
    uint8_t* result = call_.result + (unit.begin * outputs + unit.first) * call_.code_bytes;
    if constexpr (sizeof(Sum) == 4) {
      call_.kernels.rescale.from32(sums, bias, call_.factors.rescale(unit.first), area, result);
    } else {
      call_.kernels.rescale.from64(sums, bias, call_.factors.rescale(unit.first), area, result);
    }
  }

  const MatrixProduct& call_;
  size_t bands_;
  bool packed_;
  size_t tile_rows_;
};

/// Into how many bands the rows are cut: they fit the cache, and every thread has something to do.
size_t bands_of(const MatrixProduct& product, size_t units, const Threads& threads) {
  const size_t rows = product.rows.count();
  const size_t by_cache = std::max(rows * product.rows.row_bytes() / band_bytes, rows / band_rows) + 1;
  const size_t by_threads = threads.count() == 1 ? 1 : (4 * threads.count() + units - 1) / units;
  const size_t tiles = (rows + low_bit_rows - 1) / low_bit_rows;
  return std::max<size_t>(1, std::min(std::max(by_cache, by_threads), tiles));
}

}  // namespace

void multiply_matrix(const MatrixProduct& product, const Threads& threads) {
  const size_t rows = product.rows.count(), width = Product::unit_columns(product);
  const size_t units = (product.weight.outputs + width - 1) / width;
  if (rows == 0 || units == 0) return;
  const size_t bands = bands_of(product, units, threads);
  const Product work(product, bands);
  const size_t unit_work = product.rows.row_bytes() * width * ((rows + bands - 1) / bands);
  threads.ranges(bands * units, thread_work / (unit_work + 1) + 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) work.unit(index);
  });
}

}  // namespace qcompiler
