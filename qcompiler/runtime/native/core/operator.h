// What an operator is: made once per node, packs its constant weights, then runs any number of times, concurrently.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/attributes.h"
#include "core/tensor.h"
#include "core/threads.h"

namespace qcompiler {

struct Kernels;  // kernels/table.h

/// What an operator is made from. The references live as long as the constructor runs, `kernels` for ever.
struct Definition {
  std::string node;            ///< Name of the node, for messages.
  std::string type;            ///< Operator type, such as "QConvWideShift".
  const Attributes& attributes;
  const Kernels& kernels;
  std::vector<Tensor> constants;  ///< One per input; type `undefined` where the input is not constant.

  /// The constant at `index`, or null. Copy what is kept: the memory may be released after the constructor.
  const Tensor* constant(size_t index) const {
    return index < constants.size() && constants[index].type != ElementType::undefined ? &constants[index] : nullptr;
  }
};

/// Type and shape of a result.
struct Result {
  ElementType type;
  Shape shape;
};

class Operator {
 public:
  virtual ~Operator() = default;

  /// Bytes of the packed form of a constant input; 0 where the input is used as it is.
  /// Throws where the constant cannot be the operand of this operator.
  virtual size_t packed_bytes(size_t index, const Tensor& constant) const;

  /// Writes the packed form. Deterministic: equal constants give equal bytes (they are shared by content).
  virtual void pack(size_t index, const Tensor& constant, void* packed) const;

  /// From now on `packed` (which outlives the operator) is used and the input's own data is never read again.
  /// `original` has the constant's type and shape and no data.
  virtual void adopt(size_t index, const Tensor& original, const void* packed);

  /// Type and shape of the result. Throws where the inputs do not fit the operator or each other.
  virtual Result result(const Inputs& inputs) const = 0;

  /// Computes the result, of the type and `shape` that `result` gave for the same inputs, which it has checked.
  /// Const and without shared mutable state: several threads may run one operator.
  virtual void run(const Inputs& inputs, const Shape& shape, void* output, const Threads& threads) const = 0;
};

/// How operators of one type are made.
struct Maker {
  std::unique_ptr<Operator> (*make)(const Definition&);
  size_t inputs;        ///< Inputs that must be there.
  size_t optional = 0;  ///< Further inputs that may be there.
};

/// All operators of this build by type. Every family adds its own (operators/registry.cc).
using Registry = std::map<std::string, Maker>;
const Registry& registry();

/// The maker of a type; an Error where there is none.
const Maker& maker_of(const std::string& type);

/// An Error unless every input that must be there is there, and none too many.
void check_inputs(const Maker& maker, const Inputs& inputs);

/// Makes an operator; an Error where there is no such type or the definition is wrong.
std::unique_ptr<Operator> make_operator(const Definition& definition);

}  // namespace qcompiler
