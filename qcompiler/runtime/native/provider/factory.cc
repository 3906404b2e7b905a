// What ONNX Runtime finds in the library: a factory that makes the execution provider for each session.
#include <memory>
#include <mutex>
#include <vector>

#include "core/operator.h"
#include "provider/custom_operators.h"
#include "provider/kernel.h"
#include "provider/provider.h"
#include "provider/status.h"

#define QCOMPILER_EXPORT extern "C" __attribute__((visibility("default")))

namespace qcompiler {
namespace {

using abi::ProviderSlot;
using abi::Slot;
using abi::Status;

constexpr int32_t cpu_device = 0;

struct Factory : abi::Factory {
  explicit Factory(const abi::Calls& given);
  ~Factory();

  void find_devices(const abi::HardwareDevice* const* devices, size_t count, abi::EpDevice** made, size_t most,
                    size_t* found);
  abi::CustomOpDomain* domain();
  void make_registry();
  void add_kernel(const KernelType& type);

  abi::Calls calls;
  std::vector<std::unique_ptr<KernelType>> types;
  std::once_flag registry_made, domain_made;
  abi::CustomOpDomain* own_domain = nullptr;
  abi::KernelRegistry* registry = nullptr;
};

Factory& ours(abi::Factory* factory) { return *static_cast<Factory*>(factory); }

Factory::Factory(const abi::Calls& given) : abi::Factory{}, calls(given) {
  version = abi::level;
  name = [](const abi::Factory*) { return provider_name; };
  vendor = [](const abi::Factory*) { return "qcompiler"; };
  vendor_id = [](const abi::Factory*) { return uint32_t{0}; };
  release_version = [](const abi::Factory*) { return QCOMPILER_VERSION; };
  stream_aware = [](const abi::Factory*) { return false; };
  create_transfer = [](abi::Factory*, abi::DataTransfer** transfer) -> Status* {
    *transfer = nullptr;  // tensors are in plain memory
    return nullptr;
  };
  custom_domain_count = [](abi::Factory*, size_t* count) -> Status* {
    *count = 1;
    return nullptr;
  };
  custom_domains = [](abi::Factory* self, abi::CustomOpDomain** made, size_t count) {
    return guarded(ours(self).calls, provider_name, [&] {
      require(count == 1, "the provider has one domain of operators");
      made[0] = ours(self).domain();
    });
  };
  supported_devices = [](abi::Factory* self, const abi::HardwareDevice* const* devices, size_t count,
                         abi::EpDevice** made, size_t most, size_t* found) {
    return guarded(ours(self).calls, provider_name, [&] { ours(self).find_devices(devices, count, made, most, found); });
  };
  create_provider = [](abi::Factory* self, const abi::HardwareDevice* const*, const abi::KeyValuePairs* const*, size_t,
                       const abi::SessionOptions* session, const abi::Logger* logger, abi::Provider** made) {
    return guarded(ours(self).calls, provider_name, [&] {
      Factory& factory = ours(self);
      std::call_once(factory.registry_made, [&] { factory.make_registry(); });
      const ProviderOptions options = ProviderOptions::read(factory.calls, session);
      *made = new Provider(factory.calls, factory.registry, options, logger);
    });
  };
  release_provider = [](abi::Factory*, abi::Provider* provider) { delete static_cast<Provider*>(provider); };
}

Factory::~Factory() {
  if (registry != nullptr) calls.call<void(abi::KernelRegistry*)>(ProviderSlot::release_registry, registry);
  if (own_domain != nullptr) calls.call<void(abi::CustomOpDomain*)>(Slot::release_custom_domain, own_domain);
}

abi::CustomOpDomain* Factory::domain() {
  std::call_once(domain_made, [this] { own_domain = make_custom_domain(calls); });
  return own_domain;
}

void Factory::find_devices(const abi::HardwareDevice* const* devices, size_t count, abi::EpDevice** made, size_t most,
                           size_t* found) {
  *found = 0;
  for (size_t index = 0; index < count && *found < most; ++index) {
    const int32_t type = calls.call<int32_t(const abi::HardwareDevice*)>(Slot::device_type, devices[index]);
    if (type != cpu_device) continue;
    using Create = Status*(abi::Factory*, const abi::HardwareDevice*, const abi::KeyValuePairs*,
                           const abi::KeyValuePairs*, abi::EpDevice**);
    const abi::KeyValuePairs* none = nullptr;
    check(calls, calls.call<Create>(ProviderSlot::create_device, static_cast<abi::Factory*>(this), devices[index], none,
                                    none, &made[*found]));
    ++*found;
  }
}

void Factory::make_registry() {
  check(calls, calls.call<Status*(abi::KernelRegistry**)>(ProviderSlot::create_registry, &registry));
  try {
    for (const auto& item : qcompiler::registry()) {
      types.push_back(std::make_unique<KernelType>());
      *types.back() = {&calls, item.first, item.second.inputs + item.second.optional};
      add_kernel(*types.back());
    }
  } catch (...) {  // the next session tries again, from the beginning
    calls.call<void(abi::KernelRegistry*)>(ProviderSlot::release_registry, registry);
    registry = nullptr;
    types.clear();
    throw;
  }
}

void Factory::add_kernel(const KernelType& type) {
  abi::KernelDefinitionBuilder* builder = nullptr;
  abi::KernelDefinition* definition = nullptr;
  using Text = Status*(abi::KernelDefinitionBuilder*, const char*);
  check(calls, calls.call<Status*(abi::KernelDefinitionBuilder**)>(ProviderSlot::create_builder, &builder));
  const auto free_builder = [this](abi::KernelDefinitionBuilder* made) {
    calls.call<void(abi::KernelDefinitionBuilder*)>(ProviderSlot::release_builder, made);
  };
  const std::unique_ptr<abi::KernelDefinitionBuilder, decltype(free_builder)> own_builder(builder, free_builder);
  check(calls, calls.call<Text>(ProviderSlot::set_type, builder, type.type.c_str()));
  check(calls, calls.call<Text>(ProviderSlot::set_domain, builder, domain_name));
  check(calls, calls.call<Status*(abi::KernelDefinitionBuilder*, int, int)>(ProviderSlot::set_version, builder, 1, 1));
  check(calls, calls.call<Text>(ProviderSlot::set_provider, builder, provider_name));
  using Build = Status*(abi::KernelDefinitionBuilder*, abi::KernelDefinition**);
  check(calls, calls.call<Build>(ProviderSlot::build, builder, &definition));
  const auto free_definition = [this](abi::KernelDefinition* made) {
    calls.call<void(abi::KernelDefinition*)>(ProviderSlot::release_definition, made);
  };
  const std::unique_ptr<abi::KernelDefinition, decltype(free_definition)> own_definition(definition, free_definition);
  using Add = Status*(abi::KernelRegistry*, const abi::KernelDefinition*, abi::CreateKernel, void*);
  void* state = const_cast<KernelType*>(&type);
  const abi::KernelDefinition* made = definition;
  check(calls, calls.call<Add>(ProviderSlot::add_kernel, registry, made, &create_kernel, state));
}

/// The refusal of a runtime that is too old, in the words of its own first table.
Status* too_old(const abi::Base* base) {
  const auto* first = static_cast<const void* const*>(base->get_table(1));
  if (first == nullptr) return nullptr;
  const std::string text = "the execution provider of qcompiler needs ONNX Runtime 1.24 or newer; this is " +
                           std::string(base->version()) + ": install onnxruntime>=1.24";
  using Create = Status*(int32_t, const char*);
  const void* create = first[static_cast<size_t>(Slot::create_status)];
  return reinterpret_cast<Create*>(const_cast<void*>(create))(abi::not_implemented, text.c_str());
}

}  // namespace
}  // namespace qcompiler

using namespace qcompiler;

QCOMPILER_EXPORT abi::Status* CreateEpFactories(const char*, const abi::Base* base, const abi::Logger*,
                                                abi::Factory** factories, size_t most, size_t* count) {
  *count = 0;
  const void* table = base->get_table(abi::level);
  if (table == nullptr) return too_old(base);
  const abi::Calls calls(table);
  return guarded(calls, provider_name, [&] {
    require(most >= 1, "the runtime has no room for an execution provider");
    factories[0] = new qcompiler::Factory(calls);
    *count = 1;
  });
}

/// For programs without execution providers: `session_options.register_custom_ops_library(path)`.
QCOMPILER_EXPORT abi::Status* RegisterCustomOps(abi::SessionOptions* options, const abi::Base* base) {
  const void* table = base->get_table(abi::level);
  if (table == nullptr) return too_old(base);
  const abi::Calls calls(table);
  return guarded(calls, domain_name, [&] {
    static std::once_flag made;
    static abi::CustomOpDomain* domain = nullptr;  // sessions refer to it for as long as they live
    std::call_once(made, [&] { domain = make_custom_domain(calls); });
    using Add = abi::Status*(abi::SessionOptions*, abi::CustomOpDomain*);
    check(calls, calls.call<Add>(abi::Slot::add_custom_domain, options, domain));
  });
}

QCOMPILER_EXPORT abi::Status* ReleaseEpFactory(abi::Factory* factory) {
  delete static_cast<qcompiler::Factory*>(factory);
  return nullptr;
}
