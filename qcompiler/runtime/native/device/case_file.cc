#include "device/case_file.h"

#include <cstring>

#include "core/error.h"
#include "core/tensor.h"

namespace qcompiler {
namespace {

constexpr char magic[] = "QCASES1\n";
constexpr size_t magic_bytes = sizeof magic - 1;
constexpr uint64_t most_threads = 64, most_items = 1 << 16;

}  // namespace

Block::Block(size_t bytes) : bytes_(bytes), data_(bytes) { data_.shrink_to_fit(); }

std::vector<char> read_all(std::FILE* stream) {
  std::vector<char> bytes;
  char part[1 << 16];
  for (size_t count; (count = std::fread(part, 1, sizeof part, stream)) != 0;) {
    bytes.insert(bytes.end(), part, part + count);
  }
  require(std::ferror(stream) == 0, "the cases cannot be read");
  return bytes;
}

size_t tensor_bytes(int32_t type, const std::vector<int64_t>& sizes) {
  const Tensor tensor{static_cast<ElementType>(type), Shape(sizes.data(), sizes.size()), nullptr};
  return tensor.bytes();
}

CaseReader::CaseReader(std::vector<char> file) : file_(std::move(file)) {
  const bool known = file_.size() >= magic_bytes && std::memcmp(file_.data(), magic, magic_bytes) == 0;
  require(known, "this is no file of cases: it does not start with QCASES1");
  place_ = magic_bytes;
}

const char* CaseReader::take(size_t bytes, const char* what) {
  if (bytes > file_.size() - place_) throw Error(std::string("the file of cases ends within ") + what);
  const char* found = file_.data() + place_;
  place_ += bytes;
  return found;
}

uint32_t CaseReader::number(uint64_t most, const char* what) {
  uint32_t value;
  std::memcpy(&value, take(sizeof value, what), sizeof value);
  if (value > most) throw Error(std::to_string(value) + " is too great for " + what);
  return value;
}

std::string CaseReader::text(const char* what) {
  const uint32_t length = number(most_items, what);
  return std::string(take(length, what), length);
}

std::vector<int64_t> CaseReader::integers(size_t count, const char* what) {
  std::vector<int64_t> values(count);
  const char* found = take(count * sizeof(int64_t), what);
  if (count != 0) std::memcpy(values.data(), found, count * sizeof(int64_t));
  return values;
}

Operand CaseReader::operand() {
  Operand made;
  made.type = static_cast<int32_t>(number(INT32_MAX, "an element type"));
  if (made.type == 0) return made;
  made.constant = number(1, "a mark of constants") != 0;
  made.sizes = integers(number(Shape::limit, "a rank"), "sizes");
  const size_t bytes = tensor_bytes(made.type, made.sizes);
  const char* found = take(bytes, "elements");
  made.elements = Block(bytes);
  if (bytes != 0) std::memcpy(made.elements.data(), found, bytes);
  return made;
}

OneCase CaseReader::next() {
  OneCase made;
  made.set = text("an instruction set");
  made.type = text("an operator type");
  made.packed = number(1, "a mark of packing") != 0;
  made.threads = number(most_threads, "a number of threads");
  const uint32_t attributes = number(most_items, "a number of attributes");
  for (uint32_t index = 0; index < attributes; ++index) {
    std::string name = text("an attribute's name");
    made.attributes.push_back({std::move(name), integers(number(most_items, "a number of values"), "values")});
  }
  const uint32_t operands = number(most_items, "a number of operands");
  for (uint32_t index = 0; index < operands; ++index) made.operands.push_back(operand());
  return made;
}

}  // namespace qcompiler
