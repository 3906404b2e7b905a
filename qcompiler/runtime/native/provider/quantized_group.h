// Quantized convolutions and matrix products of other compilers: DequantizeLinear before them, QuantizeLinear behind.
#pragma once

#include <optional>
#include <vector>

#include "provider/graph.h"

namespace qcompiler {

/// Scale and zero point, as the graph's constants hold them.
struct Quantization {
  Tensor scale;  ///< float32
  Tensor zero;   ///< Of the codes' type; `undefined` where it is absent.
};

/// DequantizeLinear(x), DequantizeLinear(w)[, DequantizeLinear(bias)] -> Conv, Gemm or MatMul
/// [-> Add of a constant, behind a MatMul] [-> Relu or Clip] -> QuantizeLinear. Tensors view constants of the graph.
struct QuantizedGroup {
  std::vector<const abi::Node*> nodes;  ///< Operands first, once `read_group` has added them; before, the last one first.
  GraphNode product;
  Quantization x, w, y;
  Tensor weight;
  int64_t weight_axis;
  Tensor bias;              ///< int32 with `bias_scale`, float32 without, or `undefined`.
  Tensor bias_scale;
  float least, greatest;    ///< Bounds of the result; infinite where there are none.
};

/// The product before a QuantizeLinear and what lies between them; nothing where there is none.
std::optional<QuantizedGroup> find_group(const abi::Calls& calls, const GraphNode& quantize);

/// Adds the product's operands and all quantizations. An Error says why the group cannot be taken whole.
void read_group(const abi::Calls& calls, QuantizedGroup& group);

}  // namespace qcompiler
