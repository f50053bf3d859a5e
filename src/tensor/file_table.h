#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace attune {

/// A copy to train of a table [rows, cols] that stands in a mapped file (base/file.h): it shares
/// the file's pages, and the system makes one its own once something is written there. Undefined
/// where `stored` stands in no file. Known by its memory, as tables with late rows are.
at::Tensor copied_when_written(const at::Tensor& stored);

bool is_copied_when_written(const at::Tensor& table);

/// To be called before rows of such a copy are read, index int32 [n]: makes their pages its own,
/// because to read one of the file brings 64 KiB of its neighbours into the process. Does nothing
/// for any other tensor.
void own_rows(const at::Tensor& table, const at::Tensor& index);

/// All rows of such a copy but those that `keep` names are as the file has them again; pages
/// without a row to keep go back to the system. Errors: Io when the file cannot be read.
void give_back_rows(const at::Tensor& table, const std::vector<bool>& keep);

}  // namespace attune
