// Up to 512 sums that grow piece by piece: in 32 bits, or in 64 where more codes are added than 32 bits hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/table.h"
#include "operators/sum_factors.h"

namespace qcompiler {

class ColumnSums {
 public:
  static constexpr size_t most = 512;
  /// So many 16-bit codes, and as many zero points taken away, fit 32 bits.
  static constexpr size_t most_wide = 32767;

  /// `columns` sums of `count` codes at most each, of which `zero` is taken away.
  ColumnSums(const PoolingKernels& kernels, bool wide, size_t columns, size_t count)
      : kernels_(kernels), wide_(wide), long_(wide && count > most_wide), columns_(columns) {
    std::fill_n(sums_.begin(), columns, 0);
    if (long_) std::fill_n(totals_.begin(), columns, 0);
  }

  /// Adds `rows` rows of codes, `stride` apart.
  void rows(const char* x, size_t rows, size_t stride) {
    for (size_t part = limit(rows); rows > 0; rows -= part, x += part * stride * bytes(), part = limit(rows)) {
      kernels_.add_rows(x, wide_, part, stride, columns_, sums_.data());
      flush();
    }
  }

  /// Adds `count` codes of a line to every sum; lines are `stride` apart.
  void lines(const char* x, size_t stride, size_t count) {
    for (size_t part = limit(count); count > 0; count -= part, x += part * bytes(), part = limit(count)) {
      kernels_.add_lines(x, wide_, columns_, stride, part, sums_.data());
      flush();
    }
  }

  /// Takes `count` zero points away and writes the codes; positions as in SumFactors::finish.
  void finish(const SumFactors& factors, int64_t zero, size_t count, size_t position, size_t step, void* result) {
    const int64_t share = zero * static_cast<int64_t>(count);
    if (long_) {
      for (size_t column = 0; column < columns_; ++column) totals_[column] -= share;
      return factors.finish(totals_.data(), position, step, columns_, result);
    }
    const uint32_t taken = static_cast<uint32_t>(share);
    for (size_t column = 0; column < columns_; ++column) {
      sums_[column] = static_cast<int32_t>(static_cast<uint32_t>(sums_[column]) - taken);
    }
    factors.finish(sums_.data(), position, step, columns_, result);
  }

 private:
  size_t bytes() const { return wide_ ? 2 : 1; }
  size_t limit(size_t count) const { return long_ ? std::min(count, most_wide) : count; }
  void flush() {
    if (!long_) return;
    for (size_t column = 0; column < columns_; ++column) {
      totals_[column] += sums_[column];
      sums_[column] = 0;
    }
  }

  const PoolingKernels& kernels_;
  bool wide_, long_;
  size_t columns_;
  std::array<int32_t, most> sums_;
  std::array<int64_t, most> totals_;
};

}  // namespace qcompiler
