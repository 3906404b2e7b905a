#include "provider/prepared.h"

#include "core/error.h"

namespace qcompiler {

Prepared::Prepared(const Definition& definition)
    : maker_(maker_of(definition.type)), made_(make_operator(definition)) {
  require(definition.constants.size() <= most_inputs, "the node has more inputs than its operator");
  for (size_t index = 0; index < definition.constants.size(); ++index) {
    const Tensor* constant = definition.constant(index);
    const size_t bytes = constant == nullptr ? 0 : made_->packed_bytes(index, *constant);
    if (bytes == 0) continue;
    memory_.emplace_back(bytes);
    made_->pack(index, *constant, memory_.back().data());
    packed_.tensors[index] = {constant->type, constant->shape, nullptr};
    made_->adopt(index, packed_.tensors[index], memory_.back().data());
    packed_.adopted[index] = true;
  }
}

}  // namespace qcompiler
