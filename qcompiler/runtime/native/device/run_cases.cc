// qcompiler_cases [CASES [RESULTS]]: runs the cases of a file (device/case_file.h), or of standard input, through the C
// interface and writes what they give. --sets names the instruction sets that can be used here, --operators the
// operators that have kernels.
#include <cstring>
#include <exception>
#include <memory>

#include "core/error.h"
#include "device/case_file.h"

namespace qcompiler {
namespace {

constexpr uint64_t room = 4096;
constexpr char magic[] = "QRESULT1";

class Output {
 public:
  explicit Output(std::FILE* stream) : stream_(stream) {}

  void bytes(const void* data, size_t count) {
    require(count == 0 || std::fwrite(data, 1, count, stream_) == count, "the results cannot be written");
  }
  void number(uint32_t value) { bytes(&value, sizeof value); }
  void text(const char* words) {
    number(static_cast<uint32_t>(std::strlen(words)));
    bytes(words, std::strlen(words));
  }

 private:
  std::FILE* stream_;
};

using Handle = std::unique_ptr<void, void (*)(void*)>;

/// What the C interface takes of a case; refers to it.
struct Arguments {
  explicit Arguments(OneCase& given) {
    for (NamedValues& item : given.attributes) {
      attributes.push_back({item.name.c_str(), item.values.data(), item.values.size()});
    }
    for (Operand& item : given.operands) {
      tensors.push_back({item.type, item.constant, item.sizes.size(), item.sizes.data(), item.elements.data()});
    }
  }

  std::vector<qcompiler_attribute> attributes;
  std::vector<qcompiler_tensor> tensors;
};

void refused(int status, const char* message) {
  if (status != 0) throw Error(message);
}

void answer(OneCase& given, Output& output) {
  Arguments arguments(given);
  const qcompiler_tensor* tensors = arguments.tensors.data();
  const uint64_t count = arguments.tensors.size();
  char message[room] = {};
  void* made = nullptr;
  refused(qcompiler_operator_make(given.set.c_str(), "case", given.type.c_str(), arguments.attributes.data(),
                                  arguments.attributes.size(), tensors, count, given.packed, &made, message, room),
          message);
  const Handle handle(made, qcompiler_operator_release);
  int32_t type = 0;
  uint64_t rank = 0;
  std::vector<int64_t> sizes(8);
  refused(qcompiler_operator_result(made, tensors, count, &type, sizes.data(), &rank, message, room), message);
  sizes.resize(rank);
  Block result(tensor_bytes(type, sizes));
  refused(qcompiler_operator_run(made, tensors, count, result.data(), given.threads, message, room), message);
  output.number(0);
  output.number(static_cast<uint32_t>(type));
  output.number(static_cast<uint32_t>(rank));
  output.bytes(sizes.data(), rank * sizeof(int64_t));
  output.bytes(result.data(), result.bytes());
}

void run(std::FILE* cases, std::FILE* results) {
  CaseReader reader(read_all(cases));
  Output output(results);
  output.bytes(magic, sizeof magic - 1);
  while (!reader.at_end()) {
    OneCase given = reader.next();
    try {
      answer(given, output);
    } catch (const Error& error) {
      output.number(1);
      output.text(error.what());
    }
  }
  require(std::fflush(results) == 0, "the results cannot be written");
}

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File opened(const char* path, const char* mode) {
  File file(std::fopen(path, mode), std::fclose);
  if (!file) throw Error(std::string("'") + path + "' cannot be opened");
  return file;
}

int names(void (*give)(char*, uint64_t)) {
  char text[room];
  give(text, room);
  return std::puts(text) < 0;
}

int program(int count, char** words) {
  if (count > 1 && std::strcmp(words[1], "--sets") == 0) return names(qcompiler_instruction_sets);
  if (count > 1 && std::strcmp(words[1], "--operators") == 0) return names(qcompiler_operators);
  const File cases = count > 1 ? opened(words[1], "rb") : File(nullptr, std::fclose);
  const File results = count > 2 ? opened(words[2], "wb") : File(nullptr, std::fclose);
  run(cases ? cases.get() : stdin, results ? results.get() : stdout);
  return 0;
}

}  // namespace
}  // namespace qcompiler

int main(int count, char** words) {
  try {
    return qcompiler::program(count, words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "qcompiler_cases: %s\n", error.what());
    return 2;
  }
}
