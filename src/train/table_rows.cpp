#include "train/table_rows.h"

#include <utility>

#include "tensor/file_table.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// With so many steps behind, all rows are brought, and no file's any more.
constexpr size_t kMostSteps = 1024;

}  // namespace

TableRows::TableRows(Tensor value, Tensor m, Tensor v, std::vector<bool> reached)
    : value_(std::move(value)),
      m_(std::move(m)),
      v_(std::move(v)),
      reached_(std::move(reached)),
      lent_(is_copied_when_written(value_) && version_of(value_) == 0),
      version_(version_of(value_)),
      taken_(reached_.size(), 0) {
  set_late(value_, this);
}

TableRows::~TableRows() {
  set_late(value_, nullptr);
}

void TableRows::miss(int64_t row) {
  const size_t at = static_cast<size_t>(row);
  const int32_t first = std::exchange(taken_[at], static_cast<int32_t>(steps_.size()));
  if (first < (reached_[at] ? taken_[at] : decays_)) missed_.push_back({row, first, reached_[at]});
}

void TableRows::bring_missed() {
  if (missed_.empty()) return;
  dispatch_master(value_, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::adamw_missed<T>(options_, steps_.data(), static_cast<int64_t>(steps_.size()),
                             missed_.data(), static_cast<int64_t>(missed_.size()),
                             pointer<T>(value_), pointer<T>(m_), pointer<T>(v_), value_.size(1));
  });
  missed_.clear();
  changed();
}

void TableRows::changed() {
  lent_ = lends();
  mark_changed(value_);
  version_ = version_of(value_);
}

void TableRows::bring(const int32_t* rows, int64_t count) {
  for (int64_t i = 0; i < count; ++i) miss(rows[i]);
  bring_missed();
}

void TableRows::bring_all() {
  if (steps_.empty()) return;
  for (int64_t row = 0; row < value_.size(0); ++row) miss(row);
  bring_missed();
  if (lends()) return;  // rows that are let go need the steps once more
  steps_.clear();
  taken_.assign(taken_.size(), 0);
  decays_ = 0;
}

void TableRows::let_go() {
  if (!lends()) return;
  give_back_rows(value_, reached_);
  for (size_t row = 0; row < taken_.size(); ++row)
    if (!reached_[row]) taken_[row] = 0;
}

void TableRows::step(const kernels::AdamW& options, const RowGradient& gradient) {
  const int64_t* rows = pointer<const int64_t>(gradient.rows);
  const int64_t count = gradient.rows.numel();
  for (int64_t i = 0; i < count; ++i) miss(rows[i]);
  bring_missed();
  options_ = options;
  dispatch_master(value_, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::adamw_rows<T>(options, rows, count, pointer<const T>(gradient.values),
                           pointer<T>(value_), pointer<T>(m_), pointer<T>(v_), value_.size(1));
  });
  changed();
  steps_.push_back(kernels::adamw_rest(options));
  const int32_t now = static_cast<int32_t>(steps_.size());
  if (steps_.back().keep != 1) decays_ = now;
  for (int64_t i = 0; i < count; ++i) {
    taken_[static_cast<size_t>(rows[i])] = now;
    reached_[static_cast<size_t>(rows[i])] = true;
  }
  if (steps_.size() < kMostSteps) return;
  lent_ = false;
  bring_all();
}

}  // namespace attune
