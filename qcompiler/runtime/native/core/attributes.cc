#include "core/attributes.h"

#include <string>

#include "core/error.h"

namespace qcompiler {
namespace {

void check(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw Error("attribute '" + std::string(name) + "' is " + std::to_string(value) + "; it lies in " +
                std::to_string(low) + " to " + std::to_string(high));
  }
}

}  // namespace

int64_t Attributes::integer(const char* name, int64_t low, int64_t high) const {
  const std::vector<int64_t> values = integers(name, 1, low, high);
  return values[0];
}

std::vector<int64_t> Attributes::integers(const char* name, size_t count, int64_t low, int64_t high) const {
  std::vector<int64_t> values = integers(name, low, high);
  if (values.size() != count) {
    throw Error("attribute '" + std::string(name) + "' has " + std::to_string(values.size()) + " values; it needs " +
                std::to_string(count));
  }
  return values;
}

std::vector<int64_t> Attributes::integers(const char* name, int64_t low, int64_t high) const {
  std::optional<std::vector<int64_t>> values = find(name);
  if (!values) throw Error("attribute '" + std::string(name) + "' is missing");
  for (int64_t value : *values) check(name, value, low, high);
  return *values;
}

}  // namespace qcompiler
