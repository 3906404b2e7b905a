#include "provider/provider.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "provider/graph.h"
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

void claim(const Provider& provider, const abi::Graph* graph, abi::SupportInfo* support) {
  const abi::Calls& calls = provider.calls;
  for (const abi::Node* node : nodes_of(calls, graph)) {
    if (GraphNode(calls, node).domain != domain_name) continue;
    const abi::KernelDefinition* definition = nullptr;
    using LookUp = Status*(abi::SupportInfo*, const abi::Node*, const abi::KernelDefinition**);
    check(calls, calls.call<LookUp>(ProviderSlot::look_up_kernel, support, node, &definition));
    if (definition == nullptr) continue;
    check(calls, calls.call<Status*(abi::SupportInfo*, const abi::Node*)>(ProviderSlot::add_single, support, node));
  }
  claim_foreign(calls, provider.options.claims, *provider.options.kernels, graph, support, provider.log);
}

/// A node of the compile road, as the runtime sees it.
struct CompiledNode : abi::NodeCompute {
  CompiledNode(const Provider& provider, const abi::Graph* graph);
  const abi::Calls& calls;
  size_t threads;
  std::unique_ptr<ForeignNode> node;
};

CompiledNode::CompiledNode(const Provider& provider, const abi::Graph* graph)
    : abi::NodeCompute{},
      calls(provider.calls),
      threads(provider.options.threads),
      node(make_foreign(calls, *provider.options.kernels, graph)) {
  version = abi::level;
  create_state = [](abi::NodeCompute* self, abi::ComputeContext*, void** state) -> Status* {
    *state = self;  // there is nothing that changes
    return nullptr;
  };
  compute = [](abi::NodeCompute*, void* state, abi::KernelContext* context) {
    const auto& made = *static_cast<const CompiledNode*>(static_cast<abi::NodeCompute*>(state));
    return guarded(made.calls, made.node->name(), [&] { made.node->run(made.calls, context, made.threads); });
  };
  release_state = [](abi::NodeCompute*, void*) {};
}

void release_nodes(abi::NodeCompute** computes, size_t count) {
  for (size_t index = 0; index < count; ++index) {
    delete static_cast<CompiledNode*>(computes[index]);
    computes[index] = nullptr;
  }
}

void compile_nodes(const Provider& provider, const abi::Graph* const* graphs, size_t count, abi::NodeCompute** computes) {
  size_t made = 0;
  try {
    for (; made < count; ++made) computes[made] = new CompiledNode(provider, graphs[made]);
  } catch (...) {
    release_nodes(computes, made);
    throw;
  }
}

}  // namespace

ProviderOptions ProviderOptions::read(const abi::Calls& calls, const abi::SessionOptions* session) {
  ProviderOptions options{};
  options.kernels = &kernels_of(choose_set(option(calls, session, "isa")));
  options.threads = thread_count(option(calls, session, "threads"));
  options.claims = Claims::read(option(calls, session, "claim"));
  return options;
}

Provider::Provider(const abi::Calls& given_calls, const abi::KernelRegistry* given_registry,
                   const ProviderOptions& given_options, const abi::Logger* logger)
    : abi::Provider{},
      calls(given_calls),
      registry(given_registry),
      options(given_options),
      log(given_calls, logger) {
  version = abi::level;
  name = [](const abi::Provider*) { return provider_name; };
  capability = [](abi::Provider* self, const abi::Graph* graph, abi::SupportInfo* support) {
    const auto& provider = *static_cast<const Provider*>(self);
    return guarded(provider.calls, provider_name, [&] { claim(provider, graph, support); });
  };
  compile = [](abi::Provider* self, const abi::Graph** graphs, const abi::Node**, size_t count,
               abi::NodeCompute** computes, abi::Node**) {
    const auto& provider = *static_cast<const Provider*>(self);
    return guarded(provider.calls, provider_name, [&] { compile_nodes(provider, graphs, count, computes); });
  };
  release_computes = [](abi::Provider*, abi::NodeCompute** computes, size_t count) { release_nodes(computes, count); };
  kernel_registry = [](abi::Provider* self, const abi::KernelRegistry** out) -> Status* {
    *out = static_cast<Provider*>(self)->registry;
    return nullptr;
  };
}

}  // namespace qcompiler
