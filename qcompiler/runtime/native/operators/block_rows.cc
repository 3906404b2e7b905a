#include "operators/block_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qcompiler {
namespace {

constexpr float limit = 127.0f;              // greatest code
constexpr float least_magnitude = 0x1p-100f;  // rows below have codes 0: 127 / a could overflow
constexpr size_t thread_work = size_t{1} << 15;

}  // namespace

BlockRows::BlockRows(const Kernels& kernels, const BlockWeight& weight, const float* x, size_t count,
                     const Threads& threads)
    : count_(count),
      blocks_(weight.stored_blocks()),
      code_bytes_(blocks_ * weight.block_bytes()),
      codes_(count * code_bytes_),
      sums_(count * blocks_ * 2 * sizeof(int32_t)),
      factors_(count * 2 * sizeof(float)) {
  threads.ranges(count, thread_work / weight.depth + 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) quantize(kernels, weight, x + index * weight.depth, index);
  });
}

BlockRow BlockRows::row(size_t index) const {
  const int32_t* start = sums_.as<int32_t>() + index * blocks_ * 2;
  return {codes_.as<int8_t>() + index * code_bytes_, start, start + blocks_};
}

void BlockRows::quantize(const Kernels& kernels, const BlockWeight& weight, const float* x, size_t index) const {
  int8_t* codes = codes_.as<int8_t>() + index * code_bytes_;
  int32_t* start = sums_.as<int32_t>() + index * blocks_ * 2;
  float* factors = factors_.as<float>() + 2 * index;
  std::memset(codes, 0, code_bytes_);
  std::memset(start, 0, 2 * blocks_ * sizeof *start);
  const float greatest = kernels.blockwise.greatest(x, weight.depth);
  factors[0] = greatest / limit;
  factors[1] = std::isnan(greatest) ? greatest : 0.0f;
  if (!(greatest >= least_magnitude)) return;
  const float inverse = limit / greatest;
  const int32_t offset = 1 << (weight.bits - 1);
  for (size_t block = 0; block < weight.blocks(); ++block) {
    const size_t first = block * weight.block, count = std::min(weight.block, weight.depth - first);
    int8_t* target = codes + block * weight.block_bytes();
    kernels.blockwise.quantize(x + first, count, inverse, target);
    const int32_t sum = kernels.lowbit.sum(target, count);
    start[block] = -offset * sum;
    start[blocks_ + block] = sum;
  }
}

}  // namespace qcompiler
