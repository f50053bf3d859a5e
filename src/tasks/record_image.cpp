#include "tasks/record_image.h"

#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"

namespace attune {

std::string file_of(const Record& record, const std::string& column) {
  const std::string name = text_of(record, column);
  const std::filesystem::path beside = std::filesystem::path(record.file).parent_path() / name;
  return std::filesystem::exists(beside) ? beside.string() : name;
}

Image image_of(const Record& record, const std::string& column) {
  try {
    return read_image(file_of(record, column));
  } catch (const Error& error) {
    // What is wrong with an image is said with the row that names it.
    if (starts_with(error.what(), record.where())) throw;
    throw Error(error.code(), record.where() + ": " + error.what());
  }
}

}  // namespace attune
