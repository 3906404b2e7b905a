#include "provider/provider.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "provider/status.h"

namespace qcompiler {
namespace {

using abi::ProviderSlot;
using abi::Slot;
using abi::Status;

/// The value of a provider option, which the session keeps as `ep.<provider in lower case>.<name>`.
std::string option(const abi::Calls& calls, const abi::SessionOptions* session, const std::string& name) {
  using Config = Status*(const abi::SessionOptions*, const char*, char*, size_t*);
  std::string key = "ep." + std::string(provider_name) + "." + name;
  std::transform(key.begin(), key.end(), key.begin(), [](unsigned char letter) { return std::tolower(letter); });
  size_t length = 0;
  Status* status = calls.call<Config>(Slot::session_config, session, key.c_str(), static_cast<char*>(nullptr), &length);
  if (status != nullptr) calls.release(status);  // there is no such entry, or no room was given: length tells
  if (length == 0) return "";
  std::string value(length, '\0');
  check(calls, calls.call<Config>(Slot::session_config, session, key.c_str(), value.data(), &length));
  return value.c_str();
}

size_t thread_count(const std::string& text) {
  if (text.empty()) return std::max(1u, std::thread::hardware_concurrency());
  if (text.size() > 4 || text.find_first_not_of("0123456789") != std::string::npos || std::stoul(text) == 0) {
    throw Error("provider option 'threads' is '" + text + "'; give a number from 1 to 9999");
  }
  return std::stoul(text);
}

bool is_ours(const abi::Calls& calls, const abi::Node* node) {
  const char* domain = nullptr;
  check(calls, calls.call<Status*(const abi::Node*, const char**)>(Slot::node_domain, node, &domain));
  return std::strcmp(domain, domain_name) == 0;
}

std::vector<const abi::Node*> nodes_of(const abi::Calls& calls, const abi::Graph* graph) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::Graph*, size_t*)>(Slot::node_count, graph, &count));
  std::vector<const abi::Node*> nodes(count);
  check(calls, calls.call<Status*(const abi::Graph*, const abi::Node**, size_t)>(Slot::nodes, graph, nodes.data(), count));
  return nodes;
}

void claim(const Provider& provider, const abi::Graph* graph, abi::SupportInfo* support) {
  const abi::Calls& calls = provider.calls;
  for (const abi::Node* node : nodes_of(calls, graph)) {
    if (!is_ours(calls, node)) continue;
    const abi::KernelDefinition* definition = nullptr;
    using LookUp = Status*(abi::SupportInfo*, const abi::Node*, const abi::KernelDefinition**);
    check(calls, calls.call<LookUp>(ProviderSlot::look_up_kernel, support, node, &definition));
    if (definition == nullptr) continue;
    check(calls, calls.call<Status*(abi::SupportInfo*, const abi::Node*)>(ProviderSlot::add_single, support, node));
  }
}

}  // namespace

ProviderOptions ProviderOptions::read(const abi::Calls& calls, const abi::SessionOptions* session) {
  ProviderOptions options{};
  options.kernels = &kernels_of(choose_set(option(calls, session, "isa")));
  options.threads = thread_count(option(calls, session, "threads"));
  return options;
}

Provider::Provider(const abi::Calls& given_calls, const abi::KernelRegistry* given_registry,
                   const ProviderOptions& given_options)
    : abi::Provider{}, calls(given_calls), registry(given_registry), options(given_options) {
  version = abi::level;
  name = [](const abi::Provider*) { return provider_name; };
  capability = [](abi::Provider* self, const abi::Graph* graph, abi::SupportInfo* support) {
    const auto& provider = *static_cast<const Provider*>(self);
    return guarded(provider.calls, provider_name, [&] { claim(provider, graph, support); });
  };
  kernel_registry = [](abi::Provider* self, const abi::KernelRegistry** out) -> Status* {
    *out = static_cast<Provider*>(self)->registry;
    return nullptr;
  };
}

}  // namespace qcompiler
