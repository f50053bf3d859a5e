#include "nn/embedding.h"

#include "base/error.h"
#include "kernels/ops/rowwise.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Embedding::Embedding(const StackSpec& spec, int shared, const SiteMaker& sites) : spec_(spec) {
  const StackSpec& s = spec_;
  const std::string at = s.name + ".embed.";
  if (s.front == FrontEnd::Tokens) {
    tok_ = sites.weight(at + "tok", WeightKind::Table, s.vocabulary, s.hidden, false, -1, shared);
  } else {
    patch_ = sites.weight(at + "patch", WeightKind::Projection, s.patches.values(), s.hidden, true);
    class_ = sites.weight(at + "class", WeightKind::Vector, s.hidden, s.hidden, false);
  }
  if (s.positions == PositionScheme::Learned)
    pos_ = sites.weight(at + "pos", WeightKind::Table, s.max_positions, s.hidden, false);
  if (s.types > 0) type_ = sites.weight(at + "type", WeightKind::Table, s.types, s.hidden, false);
  if (s.embed_norm)
    norm_ = sites.weight(at + "norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias);
  rows_ = sites.flow(at + "rows", SiteKind::Rows, s.hidden);
  out_ = sites.flow(at + "out", SiteKind::Rows, s.hidden);
}

void Embedding::check(const Stream& stream) const {
  const StackSpec& s = spec_;
  if (s.front == FrontEnd::Tokens) {
    if (!stream.ids.defined())
      fail(ErrorCode::BadInput, "stream {} holds no token ids, which this model reads", s.name);
    if (s.positions == PositionScheme::Learned &&
        stream.rows.longest + s.position_offset > s.max_positions)
      fail(ErrorCode::BadInput,
           "a text of {} tokens is longer than the {} positions of this model; set "
           "data.max_length, or truncate",
           stream.rows.longest, s.max_positions - s.position_offset);
    return;
  }
  if (!stream.values.defined() || stream.values.size(1) != s.patches.values())
    fail(ErrorCode::BadInput,
         "stream {} holds no patches of {} values each ({} channels of {} x {} pixels), which this "
         "model reads",
         s.name, s.patches.values(), s.patches.channels, s.patches.patch_height,
         s.patches.patch_width);
  for (int64_t b = 0; b < stream.rows.sequences(); ++b)
    if (stream.rows.length(b) != s.patches.rows())
      fail(ErrorCode::BadInput,
           "an image has {} patches; this model's positions are for {} ({} x {} pixels); resize it",
           stream.rows.length(b), s.patches.rows(), s.patches.height, s.patches.width);
}

RowIndex Embedding::rows(const Stream& stream) const {
  check(stream);
  if (spec_.front == FrontEnd::Tokens) return stream.rows;
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < stream.rows.sequences(); ++b)
    lengths.push_back(stream.rows.length(b) + 1);
  return RowIndex::from_lengths(lengths);
}

Tensor Embedding::position_index(Forward& pass, const Stream& stream) const {
  const Tensor positions = pass.positions();
  if (spec_.front == FrontEnd::Tokens && !stream.positions.defined() && positions.numel() > 0) {
    const int64_t rows = positions.max().item<int64_t>() + 1 + spec_.position_offset;
    if (rows > spec_.max_positions)
      fail(ErrorCode::BadInput,
           "a text of {} tokens and {} rows in front of it (a prompt's or a prefix's) take more "
           "than "
           "the {} positions of this model; lower data.max_length or the method's length",
           stream.rows.longest, rows - spec_.position_offset - stream.rows.longest,
           spec_.max_positions - spec_.position_offset);
  }
  const int64_t offset = stream.positions.defined() ? 0 : spec_.position_offset;
  return offset == 0 ? positions : positions + offset;
}

Tensor Embedding::fused(Forward& pass, const Stream& stream) const {
  std::vector<Tensor> tables{pass.table(tok_)}, indices{stream.ids};
  if (pos_ >= 0) {
    tables.push_back(pass.table(pos_));
    indices.push_back(position_index(pass, stream));
  }
  if (type_ >= 0) {
    tables.push_back(pass.table(type_));
    indices.push_back(stream.types.defined() ? stream.types
                                             : at::zeros({stream.rows.rows()}, at::kInt));
  }
  return embedding(tables, indices, pass.master(), spec_.padding);
}

/// A class row before the projected patches of every image.
Tensor Embedding::patch_rows(Forward& pass, const Stream& stream) const {
  const Extended with_class = extend_index(stream.rows, 1, false, {});
  const Tensor blank = at::zeros({1, stream.values.size(1)}, stream.values.options());
  // The class rows pass through the projection as zeros, so that every site sees all rows.
  const Tensor values =
      cast(at::cat({stream.values, blank}).index_select(0, with_class.order), pass.scalar());
  const Tensor projected = cast(pass.project(patch_, values), pass.master());
  return at::where(with_class.is_new.unsqueeze(1), pass.table(class_).unsqueeze(0), projected);
}

/// Table by table, where an edit asks for it: rows may be added before positions and types join.
Tensor Embedding::apart(Forward& pass, const Stream& stream) const {
  Tensor x = tok_ >= 0 ? pass.gather(tok_, stream.ids, spec_.padding) : patch_rows(pass, stream);
  x = pass.at(rows_, x);
  if (pos_ >= 0) x = x + pass.gather(pos_, position_index(pass, stream));
  if (type_ < 0) return x;
  Tensor types = at::zeros({pass.rows().rows()}, at::kInt);
  if (stream.types.defined()) types = pass.of_rows(stream.types);
  return x + pass.gather(type_, types);
}

Tensor Embedding::forward(Forward& pass, const Stream& stream) const {
  if (stream.positions.defined()) pass.set_positions(stream.positions);
  const bool together = tok_ >= 0 && !pass.touched(rows_) && !pass.table_edited(tok_) &&
                        (pos_ < 0 || !pass.table_edited(pos_)) &&
                        (type_ < 0 || !pass.table_edited(type_));
  // The sum and its norm are made in the master type: one rounding instead of three.
  Tensor x = together ? fused(pass, stream) : apart(pass, stream);
  if (norm_ >= 0) x = pass.norm(norm_, spec_.norm, spec_.norm_eps, x).y;
  x = dropout(x, pass.drop(out_, spec_.hidden_dropout));
  return pass.at(out_, cast(x, pass.scalar()));
}

}  // namespace attune
