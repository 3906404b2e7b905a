// Files of cases: operators with their operands, so that kernels can be run where there is no Python.
//
// Everything is little endian and follows without gaps. A text is a uint32 length and its bytes.
//
//   file       "QCASES1\n", then cases up to the end
//   case       text instruction set, text operator type, uint32 packed (0 or 1), uint32 threads,
//              uint32 attributes, those, uint32 operands, those
//   attribute  text name, uint32 count, int64 values
//   operand    int32 element type (ONNX's number; 0 where absent: nothing follows), uint32 constant (0 or 1),
//              uint32 rank (at most 8), int64 sizes, the elements
//
//   results    "QRESULT1", then one answer per case
//   answer     uint32 0, int32 element type, uint32 rank, int64 sizes, the elements; or uint32 1, text why not
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "interface/operator_interface.h"

namespace qcompiler {

/// Memory of exactly so many bytes, aligned for every element type: a sanitizer sees whatever reads beyond it.
class Block {
 public:
  explicit Block(size_t bytes);
  size_t bytes() const { return bytes_; }
  char* data() { return data_.data(); }

 private:
  size_t bytes_;
  std::vector<char> data_;
};

struct NamedValues {
  std::string name;
  std::vector<int64_t> values;
};

struct Operand {
  int32_t type = 0;
  bool constant = false;
  std::vector<int64_t> sizes;
  Block elements{0};
};

struct OneCase {
  std::string set, type;
  bool packed = false;
  uint32_t threads = 1;
  std::vector<NamedValues> attributes;
  std::vector<Operand> operands;
};

/// Reads cases from a whole file in memory; an Error where a length or a number is wrong.
class CaseReader {
 public:
  explicit CaseReader(std::vector<char> file);
  bool at_end() const { return place_ == file_.size(); }
  OneCase next();

 private:
  const char* take(size_t bytes, const char* what);
  uint32_t number(uint64_t most, const char* what);
  std::string text(const char* what);
  std::vector<int64_t> integers(size_t count, const char* what);
  Operand operand();

  std::vector<char> file_;
  size_t place_ = 0;
};

/// All bytes of a stream.
std::vector<char> read_all(std::FILE* stream);

/// Bytes of a tensor; an Error for types without whole bytes and for impossible shapes.
size_t tensor_bytes(int32_t type, const std::vector<int64_t>& sizes);

}  // namespace qcompiler
