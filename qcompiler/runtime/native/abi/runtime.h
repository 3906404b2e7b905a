// What this library uses of ONNX Runtime's binary interface, declared from its documentation.
//
// ONNX Runtime hands out tables of functions whose places ("slots") never change once released: new ones are appended.
// A table for level L is there from version 1.L on. We ask for level 24, so one library runs on 1.24 and everything newer;
// tests/runtime/native/test_runtime_tables.py checks the slots against the installed runtime.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler::abi {

constexpr uint32_t level = 24;

// Objects of the runtime, known by address only.
struct Status;
struct Value;
struct Graph;
struct Node;
struct ValueInfo;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct Logger;
struct HardwareDevice;
struct EpDevice;
struct KeyValuePairs;
struct KernelRegistry;
struct KernelDefinition;
struct KernelDefinitionBuilder;
struct DataType;
struct SupportInfo;
struct SharedWeightCache;
struct CustomOpDomain;
struct TypeShapeInfo;
struct ShapeContext;
struct Attribute;
struct DataTransfer;
struct ComputeContext;

/// Codes of a status.
enum Code : int32_t { fail = 1, invalid_argument = 2, not_implemented = 9, provider_fail = 11 };

/// Severity of messages that a session's log holds where information is asked for; 0 is verbose, 2 a warning.
constexpr int32_t log_information = 1;

/// The entry: GetApi(level) gives the main table or null.
struct Base {
  const void* (*get_table)(uint32_t level);
  const char* (*version)();
};

/// Slots of the main table that are used (arguments in abi/calls.h).
enum class Slot : size_t {
  create_status = 0,
  error_message = 2,
  create_custom_domain = 26,
  custom_domain_add = 27,
  add_custom_domain = 28,
  mutable_data = 51,
  create_type_shape = 57,
  set_element_type = 58,
  set_dimensions = 59,
  element_type = 60,
  dimension_count = 61,
  dimensions = 62,
  symbolic_dimensions = 63,
  attribute_float = 85,
  attribute_integer = 86,
  context_input_count = 88,
  context_input = 90,
  context_output = 91,
  release_status = 93,
  release_type_shape = 99,
  release_custom_domain = 101,
  attribute_integers = 163,
  session_config = 238,
  node_name = 244,
  log_message = 247,
  log_severity = 248,
  constant_input = 249,
  shape_input_count = 267,
  shape_input = 268,
  shape_attribute = 269,
  shape_output = 270,
  set_symbolic_dimensions = 271,
  parallel_for = 274,
  device_type = 307,
  provider_table = 317,
  value_producer = 323,
  value_consumer_count = 324,
  value_consumers = 325,
  value_initializer = 326,
  value_name = 289,
  is_graph_output = 330,
  is_constant = 331,
  node_count = 344,
  nodes = 345,
  node_get_name = 349,
  node_type = 350,
  node_domain = 351,
  node_version = 352,
  node_input_count = 353,
  node_inputs = 354,
  node_output_count = 355,
  node_outputs = 356,
  node_attribute = 361,
  attribute_type = 363,
  read_attribute = 272,
  tensor_data = 378,
  tensor_reference = 414,
};
constexpr size_t main_slots = 415;  // level 24

/// Slots of the table for execution providers.
enum class ProviderSlot : size_t {
  create_device = 0,
  add_fused = 2,
  add_single = 3,
  create_registry = 18,
  release_registry = 19,
  add_kernel = 20,
  create_builder = 21,
  release_builder = 22,
  set_type = 23,
  set_domain = 24,
  set_version = 25,
  set_provider = 26,
  add_type_constraint = 29,
  build = 32,
  release_definition = 33,
  tensor_type = 40,
  look_up_kernel = 41,
  store_shared_weight = 42,
  kernel_provider = 43,
};
constexpr size_t provider_slots = 50;  // level 24

// Structures that this library fills. The first field is the level they are written for.

struct Allocator {  // filled by the runtime
  uint64_t version;
  void* (*allocate)(Allocator*, size_t bytes);
  void (*free)(Allocator*, void*);
  const void* (*info)(const Allocator*);
};

struct Kernel {
  uint32_t version;
  uint32_t flags;
  Status* (*compute)(Kernel*, KernelContext*);
  void (*release)(Kernel*);
  Status* (*pack)(Kernel*, const Value*, int index, Allocator*, SharedWeightCache*, bool* packed);
  Status* (*use_shared)(Kernel*, const void* const* buffers, const size_t* sizes, size_t count, int index);
};
static_assert(sizeof(Kernel) == 40 && offsetof(Kernel, compute) == 8);

using CreateKernel = Status* (*)(void* state, const KernelInfo*, Kernel** kernel);

struct NodeCompute {
  uint64_t version;
  Status* (*create_state)(NodeCompute*, ComputeContext*, void** state);
  Status* (*compute)(NodeCompute*, void* state, KernelContext*);
  void (*release_state)(NodeCompute*, void* state);
};
static_assert(sizeof(NodeCompute) == 32);

struct FusionOptions {
  uint32_t version;
  bool drop_constants;
};
static_assert(offsetof(FusionOptions, drop_constants) == 4);

struct Provider {
  uint64_t version;
  const char* (*name)(const Provider*);
  Status* (*capability)(Provider*, const Graph*, SupportInfo*);
  Status* (*compile)(Provider*, const Graph**, const Node**, size_t count, NodeCompute**, Node** contexts);
  void (*release_computes)(Provider*, NodeCompute**, size_t count);
  void* preferred_layout;
  void* convert_layout;
  void* set_dynamic_options;
  void* run_start;
  void* run_end;
  void* create_allocator;
  void* create_stream;
  void* compatibility;
  Status* (*kernel_registry)(Provider*, const KernelRegistry**);
  void* concurrent_run;
};
static_assert(offsetof(Provider, kernel_registry) == 13 * 8 && sizeof(Provider) == 15 * 8);

struct Factory {
  uint64_t version;
  const char* (*name)(const Factory*);
  const char* (*vendor)(const Factory*);
  Status* (*supported_devices)(Factory*, const HardwareDevice* const*, size_t count, EpDevice**, size_t most,
                               size_t* found);
  Status* (*create_provider)(Factory*, const HardwareDevice* const*, const KeyValuePairs* const*, size_t count,
                             const SessionOptions*, const Logger*, Provider**);
  void (*release_provider)(Factory*, Provider*);
  uint32_t (*vendor_id)(const Factory*);
  const char* (*release_version)(const Factory*);
  void* validate_compiled;
  void* create_allocator;
  void* release_allocator;
  Status* (*create_transfer)(Factory*, DataTransfer**);
  bool (*stream_aware)(const Factory*);
  void* create_stream;
  void* incompatibility;
  void* create_importer;
  Status* (*custom_domain_count)(Factory*, size_t*);
  Status* (*custom_domains)(Factory*, CustomOpDomain**, size_t count);
};
static_assert(offsetof(Factory, create_transfer) == 11 * 8 && offsetof(Factory, custom_domains) == 17 * 8);

/// How often an input or output of a custom operator occurs.
enum Characteristic : int32_t { required_once = 0, optional_once = 1, variadic = 2 };

/// Kinds of attributes.
enum AttributeKind : int32_t { integer_attribute = 1, integers_attribute = 2, float_attribute = 3, text_attribute = 5 };

struct CustomOperator {
  uint32_t version;
  void* create_old;
  const char* (*name)(const CustomOperator*);
  const char* (*provider)(const CustomOperator*);
  int32_t (*input_type)(const CustomOperator*, size_t index);
  size_t (*input_count)(const CustomOperator*);
  int32_t (*output_type)(const CustomOperator*, size_t index);
  size_t (*output_count)(const CustomOperator*);
  void* compute_old;
  void (*destroy)(void* kernel);
  int32_t (*input_characteristic)(const CustomOperator*, size_t index);
  int32_t (*output_characteristic)(const CustomOperator*, size_t index);
  int32_t (*input_memory)(const CustomOperator*, size_t index);
  int (*least_inputs)(const CustomOperator*);
  int (*equal_inputs)(const CustomOperator*);
  int (*least_outputs)(const CustomOperator*);
  int (*equal_outputs)(const CustomOperator*);
  Status* (*create)(const CustomOperator*, const void* table, const KernelInfo*, void** kernel);
  Status* (*compute)(void* kernel, KernelContext*);
  Status* (*infer)(const CustomOperator*, ShapeContext*);
  int (*first_version)(const CustomOperator*);
  int (*last_version)(const CustomOperator*);
  void* in_place;
  void* release_in_place;
  void* aliases;
  void* release_aliases;
};
static_assert(offsetof(CustomOperator, create) == 17 * 8 && offsetof(CustomOperator, infer) == 19 * 8);
static_assert(sizeof(CustomOperator) == 26 * 8);

}  // namespace qcompiler::abi
