#include "core/operator.h"

#include "core/error.h"

namespace qcompiler {

size_t Operator::packed_bytes(size_t, const Tensor&) const { return 0; }

void Operator::pack(size_t, const Tensor&, void*) const { throw Error("this input has no packed form"); }

void Operator::adopt(size_t, const Tensor&, const void*) { throw Error("this input has no packed form"); }

const Maker& maker_of(const std::string& type) {
  const auto found = registry().find(type);
  if (found == registry().end()) throw Error("there is no kernel for operator '" + type + "'");
  return found->second;
}

void check_inputs(const Maker& maker, const Inputs& inputs) {
  if (inputs.count > maker.inputs + maker.optional) {
    throw Error("the node has " + std::to_string(inputs.count) + " inputs; the operator has " +
                std::to_string(maker.inputs + maker.optional));
  }
  for (size_t index = 0; index < maker.inputs; ++index) {
    if (!inputs.has(index)) throw Error("input " + std::to_string(index) + " is missing");
  }
}

std::unique_ptr<Operator> make_operator(const Definition& definition) {
  return maker_of(definition.type).make(definition);
}

}  // namespace qcompiler
