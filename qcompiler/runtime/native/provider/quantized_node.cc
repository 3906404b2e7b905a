#include "provider/quantized_node.h"

#include "core/scratch.h"

#include "core/error.h"
#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

constexpr size_t flip_grain = size_t{1} << 16;

class QuantizedNode final : public ForeignNode {
 public:
  QuantizedNode(const Kernels& kernels, std::string node_name, QuantizedLinear made)
      : kernels_(kernels),
        name_(std::move(node_name)),
        linear_(std::move(made)),
        prepared_({name_, linear_.type, linear_.attributes, kernels, linear_.constants()}) {
    if (prepared_.packed().adopted[1]) linear_.weight = {};  // only the packed form is read from now on
  }

  const std::string& name() const override { return name_; }

  void run(const abi::Calls& calls, abi::KernelContext* context, size_t threads) const override {
    const SessionThreads pool(calls, context, threads);
    Tensor x = input_of(calls, context, 0);
    const ElementType wanted = linear_.unsigned_x ? ElementType::uint8 : ElementType::int8;
    if (x.type != wanted) throw Error("activations are " + element_name(x.type) + ", not " + element_name(wanted));
    x.type = ElementType::int8;
    const Scratch recoded(linear_.unsigned_x ? x.bytes() : 0);
    if (linear_.unsigned_x) {
      flip(x.as<uint8_t>(), x.bytes(), recoded.as<uint8_t>(), pool);
      x.data = recoded.as<void>();
    }
    std::vector<Tensor> tensors = linear_.constants();
    tensors[0] = x;
    if (prepared_.packed().adopted[1]) tensors[1] = prepared_.packed().tensors[1];
    const Inputs inputs{tensors.data(), tensors.size()};
    Result result = prepared_.made().result(inputs);
    const size_t count = static_cast<size_t>(result.shape.elements());
    if (linear_.unsigned_y) result.type = ElementType::uint8;
    auto* data = static_cast<uint8_t*>(make_output(calls, context, result));
    if (count == 0) return;
    prepared_.made().run(inputs, result.shape, data, pool);
    if (linear_.unsigned_y) flip(data, count, data, pool);
  }

 private:
  void flip(const uint8_t* source, size_t count, uint8_t* target, const Threads& threads) const {
    threads.ranges(count, flip_grain, [&](size_t begin, size_t end) {
      kernels_.bytes.flip(source + begin, end - begin, 0x80, target + begin);
    });
  }

  const Kernels& kernels_;
  std::string name_;
  QuantizedLinear linear_;
  Prepared prepared_;
};

}  // namespace

void check_quantized_group(const abi::Calls& calls, const Kernels& kernels, const QuantizedGroup& group) {
  const QuantizedLinear linear = QuantizedLinear::make(calls, group);
  const std::vector<Tensor> constants = linear.constants();
  make_operator({group.product.name, linear.type, linear.attributes, kernels, constants})->packed_bytes(1, constants[1]);
}

std::unique_ptr<ForeignNode> make_quantized_node(const abi::Calls& calls, const Kernels& kernels,
                                                 const QuantizedGroup& group) {
  return std::make_unique<QuantizedNode>(kernels, group.product.name + " (" + group.product.type + ")",
                                         QuantizedLinear::make(calls, group));
}

}  // namespace qcompiler
