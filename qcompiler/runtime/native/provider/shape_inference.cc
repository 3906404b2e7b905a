#include "provider/shape_inference.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/operator.h"
#include "kernels/table.h"
#include "provider/provider.h"
#include "provider/status.h"

namespace qcompiler {
namespace {

using abi::Slot;
using abi::Status;

struct KnownInput {
  ElementType type = ElementType::undefined;
  std::vector<int64_t> sizes;      ///< -1 where the size is not known.
  std::vector<std::string> names;  ///< The symbol of such a size.
};

/// A symbol that nothing else has: the runtime takes two sizes of one name for equal when it plans memory. Counted over
/// the whole process, because graphs are inferred in parts and again.
std::string new_symbol() {
  static std::atomic<uint64_t> count{0};
  return std::string(domain_name) + " size " + std::to_string(count++);
}

/// Attributes of the node whose shape is asked for.
class ShapeAttributes final : public Attributes {
 public:
  ShapeAttributes(const abi::Calls& calls, const abi::ShapeContext* context) : calls_(calls), context_(context) {}

  std::optional<std::vector<int64_t>> find(const char* name) const override {
    const abi::Attribute* attribute = nullptr;
    using Get = Status*(const abi::ShapeContext*, const char*, const abi::Attribute**);
    if (!succeeds(calls_.call<Get>(Slot::shape_attribute, context_, name, &attribute))) return std::nullopt;
    int64_t one = 0;
    size_t bytes = 0;
    using Read = Status*(const abi::Attribute*, int32_t, void*, size_t, size_t*);
    void* place = &one;
    if (succeeds(calls_.call<Read>(Slot::read_attribute, attribute, int32_t{abi::integer_attribute}, place, sizeof(one),
                                   &bytes))) {
      return std::vector<int64_t>{one};
    }
    std::vector<int64_t> many(most_values);
    place = many.data();
    if (!succeeds(calls_.call<Read>(Slot::read_attribute, attribute, int32_t{abi::integers_attribute}, place,
                                    many.size() * sizeof(int64_t), &bytes))) {
      return std::nullopt;
    }
    many.resize(bytes / sizeof(int64_t));
    return many;
  }

 private:
  static constexpr size_t most_values = 64;

  bool succeeds(Status* status) const {
    if (status != nullptr) calls_.release(status);
    return status == nullptr;
  }

  const abi::Calls& calls_;
  const abi::ShapeContext* context_;
};

KnownInput known_input(const abi::Calls& calls, const abi::ShapeContext* context, size_t index) {
  KnownInput input;
  abi::TypeShapeInfo* info = nullptr;  // belongs to the context
  using Get = Status*(const abi::ShapeContext*, size_t, abi::TypeShapeInfo**);
  check(calls, calls.call<Get>(Slot::shape_input, context, index, &info));
  int32_t type = 0;
  size_t rank = 0;
  check(calls, calls.call<Status*(const abi::TypeShapeInfo*, int32_t*)>(Slot::element_type, info, &type));
  check(calls, calls.call<Status*(const abi::TypeShapeInfo*, size_t*)>(Slot::dimension_count, info, &rank));
  input.type = static_cast<ElementType>(type);
  input.sizes.resize(rank);
  std::vector<const char*> names(rank);
  using Sizes = Status*(const abi::TypeShapeInfo*, int64_t*, size_t);
  check(calls, calls.call<Sizes>(Slot::dimensions, info, input.sizes.data(), rank));
  using Names = Status*(const abi::TypeShapeInfo*, const char**, size_t);
  check(calls, calls.call<Names>(Slot::symbolic_dimensions, info, names.data(), rank));
  for (size_t axis = 0; axis < rank; ++axis) {
    const bool named = input.sizes[axis] >= 0 || names[axis][0] != '\0';
    input.names.push_back(named ? names[axis] : new_symbol());
  }
  return input;
}

/// Whether an input may be of any rank: the runtime says "no axes" of a scalar and of a tensor that it knows nothing of.
/// Scalars among parameters are int32, uint8 …; activations are never taken for scalars.
bool may_have_axes(const KnownInput& input, size_t index) {
  if (!input.sizes.empty()) return false;
  return index == 0 || input.type == ElementType::int8 || input.type == ElementType::int16;
}

std::vector<KnownInput> known_inputs(const abi::Calls& calls, const abi::ShapeContext* context) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::ShapeContext*, size_t*)>(Slot::shape_input_count, context, &count));
  std::vector<KnownInput> inputs;
  for (size_t index = 0; index < count; ++index) {
    inputs.push_back(known_input(calls, context, index));
    require(!may_have_axes(inputs.back(), index), "the rank of an input is not known");
  }
  return inputs;
}

/// Stands for the data of an operand. Operators read parameters when they find a shape: ones are right for multipliers,
/// shifts and scales, zeros for codes, biases and positions, which are only reserved, not touched.
class Stand {
 public:
  Stand(ElementType type, size_t bytes, bool codes) : data_(std::calloc(bytes + 1, 1)) {
    require(data_ != nullptr, "there is no memory to find a shape");
    if (codes) return;
    if (type == ElementType::float32) {
      std::fill_n(static_cast<float*>(data_), bytes / sizeof(float), 1.0f);
    } else if (type != ElementType::int8 && type != ElementType::int16 && type != ElementType::int64) {
      std::memset(data_, 1, bytes);
    }
  }
  ~Stand() { std::free(data_); }
  Stand(const Stand&) = delete;
  Stand& operator=(const Stand&) = delete;
  const void* data() const { return data_; }

 private:
  void* data_;
};

using Sizes = std::map<std::string, int64_t>;

/// The operator's result where every symbol has the given size.
Result result_with(const Definition& definition, const std::vector<KnownInput>& inputs, const Sizes& symbols) {
  const bool packed = definition.attributes.find("bits").has_value();  // input 1 then holds codes as uint8
  std::vector<std::unique_ptr<Stand>> stands;
  std::vector<Tensor> tensors;
  for (const KnownInput& input : inputs) {
    std::vector<int64_t> sizes = input.sizes;
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      if (sizes[axis] < 0) sizes[axis] = symbols.at(input.names[axis]);
    }
    Tensor tensor{input.type, Shape(sizes.data(), sizes.size()), nullptr};
    stands.push_back(std::make_unique<Stand>(input.type, tensor.bytes(), packed && stands.size() == 1));
    tensor.data = stands.back()->data();
    tensors.push_back(tensor);
  }
  const Inputs given{tensors.data(), tensors.size()};
  check_inputs(maker_of(definition.type), given);
  return make_operator(definition)->result(given);
}

/// Every symbol with a size of its own; sizes of one set lie far from those of another.
Sizes symbol_sizes(const std::vector<KnownInput>& inputs, int64_t first, int64_t step) {
  Sizes symbols;
  for (const KnownInput& input : inputs) {
    for (size_t axis = 0; axis < input.sizes.size(); ++axis) {
      if (input.sizes[axis] >= 0) continue;
      if (symbols.count(input.names[axis]) == 0) {
        symbols[input.names[axis]] = first + step * static_cast<int64_t>(symbols.size());
      }
    }
  }
  return symbols;
}

void set_result(const abi::Calls& calls, abi::ShapeContext* context, ElementType type,
                const std::vector<int64_t>& sizes, const std::vector<std::string>& symbols) {
  std::vector<const char*> names;
  for (const std::string& symbol : symbols) names.push_back(symbol.c_str());
  abi::TypeShapeInfo* info = nullptr;
  check(calls, calls.call<Status*(abi::TypeShapeInfo**)>(Slot::create_type_shape, &info));
  const auto release = [&calls](abi::TypeShapeInfo* made) {
    calls.call<void(abi::TypeShapeInfo*)>(Slot::release_type_shape, made);
  };
  const std::unique_ptr<abi::TypeShapeInfo, decltype(release)> owner(info, release);
  check(calls, calls.call<Status*(abi::TypeShapeInfo*, int32_t)>(Slot::set_element_type, info, static_cast<int32_t>(type)));
  check(calls, calls.call<Status*(abi::TypeShapeInfo*, const int64_t*, size_t)>(Slot::set_dimensions, info, sizes.data(),
                                                                                sizes.size()));
  check(calls, calls.call<Status*(abi::TypeShapeInfo*, const char**, size_t)>(Slot::set_symbolic_dimensions, info,
                                                                              names.data(), names.size()));
  using Set = Status*(const abi::ShapeContext*, size_t, const abi::TypeShapeInfo*);
  const abi::ShapeContext* where = context;
  const abi::TypeShapeInfo* found = info;
  check(calls, calls.call<Set>(Slot::shape_output, where, size_t{0}, found));
}

struct Inferred {
  ElementType type;
  std::vector<int64_t> sizes;
  std::vector<std::string> names;  ///< Of sizes that are -1.
};

/// Asks the operator twice, with other sizes for the symbols. A size of the result that is the same both times is
/// that size; one that is a symbol's both times is that symbol; any other is a symbol of its own.
Inferred sizes_of(const Definition& definition, const std::vector<KnownInput>& inputs) {
  const Sizes low = symbol_sizes(inputs, 61, 13), high = symbol_sizes(inputs, 1009, 37);
  const Result found = result_with(definition, inputs, low);
  const Shape first = found.shape, second = result_with(definition, inputs, high).shape;
  require(first.rank() == second.rank(), "the rank is not known");
  Inferred made{found.type, {first.begin(), first.end()}, std::vector<std::string>(first.rank())};
  for (size_t axis = 0; axis < first.rank(); ++axis) {
    if (first[axis] == second[axis]) continue;
    for (const auto& symbol : low) {
      if (symbol.second == first[axis] && high.at(symbol.first) == second[axis]) made.names[axis] = symbol.first;
    }
    if (made.names[axis].empty()) made.names[axis] = new_symbol();
    made.sizes[axis] = -1;
  }
  return made;
}

/// Type and rank, where sizes of different names must be the same, or 1 (broadcasting).
Inferred rank_of(const Definition& definition, const std::vector<KnownInput>& inputs, int64_t size) {
  const Result found = result_with(definition, inputs, symbol_sizes(inputs, size, 0));
  Inferred made{found.type, std::vector<int64_t>(found.shape.rank(), -1), {}};
  for (size_t axis = 0; axis < found.shape.rank(); ++axis) made.names.push_back(new_symbol());
  return made;
}

Inferred inferred(const Definition& definition, const std::vector<KnownInput>& inputs) {
  try {
    return sizes_of(definition, inputs);
  } catch (const Error&) {
  }
  try {
    return rank_of(definition, inputs, 61);
  } catch (const Error&) {
  }
  return rank_of(definition, inputs, 1);
}

/// The runtime takes an element type with a shape only: where the rank is not known the type is not either.
void infer(const abi::Calls& calls, const std::string& type, abi::ShapeContext* context) {
  const std::vector<KnownInput> inputs = known_inputs(calls, context);
  const ShapeAttributes attributes(calls, context);
  const Definition definition{type, type, attributes, kernels_of(InstructionSet::reference), {}};
  const Inferred found = inferred(definition, inputs);
  set_result(calls, context, found.type, found.sizes, found.names);
}

}  // namespace

abi::Status* infer_shape(const abi::Calls& calls, const std::string& type, abi::ShapeContext* context) {
  abi::Status* status = guarded(calls, type, [&] { infer(calls, type, context); });
  if (status != nullptr) calls.release(status);  // the shape stays unknown
  return nullptr;
}

}  // namespace qcompiler
