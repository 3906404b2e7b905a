#include "core/operator.h"

#include "core/error.h"

namespace qcompiler {

size_t Operator::packed_bytes(size_t, const Tensor&) const { return 0; }

void Operator::pack(size_t, const Tensor&, void*) const { throw Error("this input has no packed form"); }

void Operator::adopt(size_t, const Tensor&, const void*) { throw Error("this input has no packed form"); }

std::unique_ptr<Operator> make_operator(const Definition& definition) {
  const auto found = registry().find(definition.type);
  if (found == registry().end()) throw Error("there is no kernel for operator '" + definition.type + "'");
  return found->second.make(definition);
}

}  // namespace qcompiler
