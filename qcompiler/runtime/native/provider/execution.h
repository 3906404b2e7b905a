// How the operator of a node meets the tensors of a run.
#pragma once

#include <array>
#include <vector>

#include "abi/calls.h"
#include "core/operator.h"

namespace qcompiler {

constexpr size_t most_inputs = 8;

/// Inputs that an operator has in a packed form of its own: the runtime's tensors at their places are not read.
struct PackedInputs {
  std::array<Tensor, most_inputs> tensors{};  ///< Type and shape; no data.
  std::array<bool, most_inputs> adopted{};
};

/// Those of a node's first `count` inputs that are constant.
std::vector<Tensor> constant_inputs(const abi::Calls& calls, const abi::KernelInfo* info, size_t count);

/// The tensor that a node reads at a place; of type `undefined` where it is absent.
Tensor input_of(const abi::Calls& calls, const abi::KernelContext* context, size_t index);

/// The memory of the result. Throws where the graph gives it another type.
void* make_output(const abi::Calls& calls, abi::KernelContext* context, const Result& result);

/// One run: reads the inputs of the context, makes its output and computes it.
void execute(const abi::Calls& calls, abi::KernelContext* context, const Maker& maker, const Operator& made,
             const PackedInputs& packed, size_t threads);

}  // namespace qcompiler
