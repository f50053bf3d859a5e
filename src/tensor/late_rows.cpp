#include "tensor/late_rows.h"

#include <map>
#include <mutex>

#include "tensor/file_table.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

struct LateTables {
  std::mutex mutex;
  std::map<const void*, LateRows*> by_memory;
};
LateTables& late_tables() {
  static LateTables tables;
  return tables;
}

LateRows* late_of(const at::Tensor& table) {
  LateTables& tables = late_tables();
  const std::lock_guard<std::mutex> lock(tables.mutex);
  if (tables.by_memory.empty()) return nullptr;
  const std::map<const void*, LateRows*>::const_iterator found =
      tables.by_memory.find(table.data_ptr());
  return found == tables.by_memory.end() ? nullptr : found->second;
}

}  // namespace

void set_late(const at::Tensor& table, LateRows* late) {
  LateTables& tables = late_tables();
  const std::lock_guard<std::mutex> lock(tables.mutex);
  if (late == nullptr)
    tables.by_memory.erase(table.data_ptr());
  else
    tables.by_memory[table.data_ptr()] = late;
}

void bring_rows(const at::Tensor& table, const at::Tensor& index) {
  own_rows(table, index);
  if (LateRows* late = late_of(table); late != nullptr)
    late->bring(pointer<const int32_t>(index), index.numel());
}

void bring_rows(const at::Tensor& table) {
  if (LateRows* late = late_of(table); late != nullptr) late->bring_all();
}

}  // namespace attune
