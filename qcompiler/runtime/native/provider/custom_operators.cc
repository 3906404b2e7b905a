#include "provider/custom_operators.h"

#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "provider/prepared.h"
#include "provider/provider.h"
#include "provider/shape_inference.h"
#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

using abi::Slot;
using abi::Status;

constexpr int32_t any_type = 0;

/// A node that the CPU provider runs with one of our kernels.
struct CustomKernel {
  abi::Calls calls;
  std::string node;
  Prepared prepared;
  size_t threads;
};

struct CustomOperator : abi::CustomOperator {
  CustomOperator(const abi::Calls& given, const std::string& operator_type);
  abi::Calls calls;
  std::string type;
  size_t least, most;  ///< Inputs.
};

const CustomOperator& ours(const abi::CustomOperator* self) { return *static_cast<const CustomOperator*>(self); }

Status* create(const abi::CustomOperator* self, const void* table, const abi::KernelInfo* info, void** kernel) {
  const CustomOperator& made = ours(self);
  const abi::Calls calls(table);
  std::string node = made.type;
  return guarded(calls, domain_name, [&] {
    node = node_name(calls, info) + " (" + made.type + ")";
    try {
      const NodeAttributes attributes(calls, info);
      const Kernels& kernels = kernels_of(available_sets().back());
      const Definition definition{node, made.type, attributes, kernels, constant_inputs(calls, info, made.most)};
      const size_t threads = std::max(1u, std::thread::hardware_concurrency());
      *kernel = new CustomKernel{calls, node, Prepared(definition), threads};
    } catch (const Error& error) {
      throw Error(node + ": " + error.what());
    }
  });
}

Status* compute(void* kernel, abi::KernelContext* context) {
  const CustomKernel& made = *static_cast<const CustomKernel*>(kernel);
  return guarded(made.calls, made.node, [&] {
    execute(made.calls, context, made.prepared.maker(), made.prepared.made(), made.prepared.packed(), made.threads);
  });
}

/// One list of inputs of any types: of inputs declared one by one, the runtime would take the last one's type for that of
/// the result, which attribute `to` decides. Type and shape of the result are set by `infer_shape`, or given by the file.
CustomOperator::CustomOperator(const abi::Calls& given, const std::string& operator_type)
    : abi::CustomOperator{}, calls(given), type(operator_type) {
  const Maker& maker = maker_of(type);
  least = maker.inputs;
  most = maker.inputs + maker.optional;
  version = abi::level;
  name = [](const abi::CustomOperator* self) { return ours(self).type.c_str(); };
  provider = [](const abi::CustomOperator*) -> const char* { return nullptr; };  // the CPU provider
  input_type = output_type = [](const abi::CustomOperator*, size_t) { return any_type; };
  input_count = output_count = [](const abi::CustomOperator*) { return size_t{1}; };
  destroy = [](void* kernel) { delete static_cast<CustomKernel*>(kernel); };
  input_characteristic = [](const abi::CustomOperator*, size_t) { return int32_t{abi::variadic}; };
  output_characteristic = [](const abi::CustomOperator*, size_t) { return int32_t{abi::optional_once}; };
  input_memory = [](const abi::CustomOperator*, size_t) { return int32_t{0}; };
  least_inputs = [](const abi::CustomOperator* self) { return static_cast<int>(ours(self).least); };
  least_outputs = [](const abi::CustomOperator*) { return 1; };
  equal_inputs = equal_outputs = [](const abi::CustomOperator*) { return 0; };
  abi::CustomOperator::create = &qcompiler::create;
  abi::CustomOperator::compute = &qcompiler::compute;
  infer = [](const abi::CustomOperator* self, abi::ShapeContext* context) {
    return infer_shape(ours(self).calls, ours(self).type, context);
  };
  first_version = last_version = [](const abi::CustomOperator*) { return 1; };
}

}  // namespace

abi::CustomOpDomain* make_custom_domain(const abi::Calls& calls) {
  static const auto all = [&calls] {
    std::map<std::string, std::unique_ptr<CustomOperator>> made;
    for (const auto& item : registry()) made[item.first] = std::make_unique<CustomOperator>(calls, item.first);
    return made;
  }();
  abi::CustomOpDomain* domain = nullptr;
  check(calls, calls.call<Status*(const char*, abi::CustomOpDomain**)>(Slot::create_custom_domain, domain_name, &domain));
  using Add = Status*(abi::CustomOpDomain*, const abi::CustomOperator*);
  for (const auto& item : all) {
    const abi::CustomOperator* added = item.second.get();
    check(calls, calls.call<Add>(Slot::custom_domain_add, domain, added));
  }
  return domain;
}

}  // namespace qcompiler
