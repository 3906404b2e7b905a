// QLookup and QLookupInterpolated: functions of one code as tables.
#include <cstdlib>
#include <memory>

#include "core/error.h"
#include "kernels/table.h"
#include "operators/clamp.h"
#include "operators/families.h"

namespace qcompiler {
namespace {

constexpr size_t grain = 16384;

class Lookup final : public Operator {
 public:
  explicit Lookup(const Definition& definition) : kernels_(definition.kernels) {}

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    const Tensor& table = inputs[1];
    if (x.type != ElementType::int8) throw Error("a table of 256 entries is for int8, not " + element_name(x.type));
    const bool known = table.type == ElementType::int8 || table.type == ElementType::int16;
    if (!known || table.shape != Shape{256}) {
      throw Error("a table has 256 entries of int8 or int16, not " + table.shape.text() + " of " +
                  element_name(table.type));
    }
    return {table.type, x.shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const Tensor& table = inputs[1];
    const int8_t* x = inputs[0].as<int8_t>();
    threads.ranges(static_cast<size_t>(inputs[0].shape.elements()), grain, [&](size_t begin, size_t end) {
      if (table.type == ElementType::int8) {
        kernels_.lookup.bytes(x + begin, table.as<int8_t>(), end - begin, static_cast<int8_t*>(output) + begin);
      } else {
        kernels_.lookup.words(x + begin, table.as<int16_t>(), end - begin, static_cast<int16_t*>(output) + begin);
      }
    });
  }

 private:
  const Kernels& kernels_;
};

constexpr int64_t entries = Pieces::count + 1;
constexpr int32_t greatest_entry = 1 << 22;
constexpr int32_t greatest_bend = (1 << 18) - 1;

class LookupInterpolated final : public Operator {
 public:
  explicit LookupInterpolated(const Definition& definition)
      : kernels_(definition.kernels),
        curved_(definition.attributes.integer("curved", 0, 1) != 0),
        clamp_(read_clamp(definition.attributes)) {
    if (const Tensor* table = definition.constant(1)) {
      check_table(*table);
      prepared_ = pieces(table->as<int32_t>());
    }
  }

  Result result(const Inputs& inputs) const override {
    const Tensor& x = inputs[0];
    if (x.type != ElementType::int16) throw Error("an interpolated table is for int16, not " + element_name(x.type));
    check_table(inputs[1]);
    return {clamp_.type, x.shape};
  }

  void run(const Inputs& inputs, const Shape&, void* output, const Threads& threads) const override {
    const std::unique_ptr<Pieces> made = prepared_ ? nullptr : pieces(inputs[1].as<int32_t>());
    const Pieces& used = prepared_ ? *prepared_ : *made;
    const int16_t* x = inputs[0].as<int16_t>();
    const bool wide = clamp_.type == ElementType::int16;
    threads.ranges(static_cast<size_t>(inputs[0].shape.elements()), grain / 4, [&](size_t begin, size_t end) {
      char* result = static_cast<char*>(output) + begin * (wide ? 2 : 1);
      kernels_.lookup.interpolate(x + begin, used, end - begin, wide, result);
    });
  }

 private:
  struct Bounds {
    ElementType type;
    int32_t low, high;
  };

  static Bounds read_clamp(const Attributes& attributes) {
    const auto type = static_cast<ElementType>(attributes.integer("to", 0, 64));
    require(type == ElementType::int8 || type == ElementType::int16, "an interpolated table gives int8 or int16");
    const int64_t limit = type == ElementType::int8 ? 128 : 32768;
    const int64_t low = attributes.integer("low", -limit, limit - 1);
    return {type, static_cast<int32_t>(low), static_cast<int32_t>(attributes.integer("high", low, limit - 1))};
  }

  static void check_table(const Tensor& table) {
    if (table.type == ElementType::int32 && table.shape == Shape{entries}) return;
    throw Error("an interpolated table has 513 entries of int32, not " + table.shape.text() + " of " +
                element_name(table.type));
  }

  /// Second difference at entry `index`; the first and last stand for the missing ones beyond them.
  static int32_t second(const int32_t* table, int64_t index) {
    const int64_t place = index < 1 ? 1 : index > entries - 2 ? entries - 2 : index;
    return table[place - 1] - 2 * table[place] + table[place + 1];
  }

  std::unique_ptr<Pieces> pieces(const int32_t* table) const {
    for (int64_t index = 0; index < entries; ++index) {
      require(table[index] <= greatest_entry && table[index] >= -greatest_entry, "an entry of a table exceeds 2^22");
    }
    auto made = std::make_unique<Pieces>();
    for (int64_t index = 0; index + 1 < entries; ++index) {
      const int32_t bend = curved_ ? second(table, index) + second(table, index + 1) : 0;
      require(std::abs(bend) <= greatest_bend, "a table bends too much for parabolas in 32 bits");
      made->piece[index] = {table[index] * 128, table[index + 1] - table[index], bend, 0};
    }
    made->curved = curved_;
    made->least = clamp_.low;
    made->greatest = clamp_.high;
    return made;
  }

  const Kernels& kernels_;
  bool curved_;
  Bounds clamp_;
  std::unique_ptr<Pieces> prepared_;
};

}  // namespace

void add_lookup(Registry& registry) {
  registry["QLookup"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                           return std::make_unique<Lookup>(definition);
                         },
                         2};
  registry["QLookupInterpolated"] = {[](const Definition& definition) -> std::unique_ptr<Operator> {
                                       return std::make_unique<LookupInterpolated>(definition);
                                     },
                                     2};
}

}  // namespace qcompiler
