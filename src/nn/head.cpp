#include "nn/head.h"

#include "base/error.h"
#include "kernels/ops/rowwise.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

HeadLayers::HeadLayers(const ModelSpec& spec, int tokens, const SiteMaker& sites)
    : head_(spec.head),
      causal_(spec.last().causal),
      norm_kind_(spec.last().norm),
      norm_eps_(spec.last().norm_eps) {
  const StackSpec& s = spec.last();
  const HeadSpec& h = head_;
  const WeightKind projection = WeightKind::Projection;
  const int64_t pool_width = h.pooler && h.pooler_size > 0 ? h.pooler_size : s.hidden;
  if (h.pooler) pool_ = sites.weight("head.pool", projection, s.hidden, pool_width, true);
  if (h.kind == HeadKind::MaskedLm) {
    transform_ = sites.weight("head.transform", projection, s.hidden, s.hidden, true);
    norm_ = sites.weight("head.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias);
  }
  if (h.kind != HeadKind::None || h.pooler) in_ = sites.flow("head.in", SiteKind::Rows, pool_width);
  if (h.kind == HeadKind::None) return;
  const bool words = h.kind == HeadKind::MaskedLm || h.kind == HeadKind::Lm;
  if (words) {
    proj_ = sites.weight("head.proj", projection, s.hidden, s.vocabulary, false, -1,
                         h.tied ? tokens : -1);
    if (h.kind == HeadKind::MaskedLm)
      bias_ = sites.weight("head.bias", WeightKind::Vector, s.vocabulary, s.vocabulary, false);
  } else {
    proj_ = sites.weight("head.proj", projection, pool_width, h.labels, h.bias);
  }
  logits_ = sites.flow("logits", SiteKind::Rows, words ? s.vocabulary : h.labels);
}

namespace {

/// Of every sequence the last row whose token is `token`, or with `absent` is not. Int64 [B].
Tensor rows_by_token(const HeadSpec& head, const Stream& input, const RowIndex& rows) {
  if (!input.ids.defined() || input.rows.rows() != rows.rows())
    fail(
        ErrorCode::BadInput,
        "this head takes the row of a token of the input, so both stacks need the same rows; found "
        "{} and {}",
        input.rows.rows(), rows.rows());
  const int32_t* ids = pointer<const int32_t>(input.ids);
  std::vector<int64_t> result;
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    int64_t row = input.rows.end(b) - 1;
    while (row >= input.rows.begin(b) && (ids[row] == head.token) == head.token_absent) --row;
    if (row < input.rows.begin(b)) {
      if (!head.token_absent)
        fail(ErrorCode::BadInput,
             "sequence {} of the batch has no token {}, whose row this head reads; end every text "
             "with it (the tokenizer's end-of-sequence token)",
             b, head.token);
      row = input.rows.begin(b);  // padding alone: the first row, as in transformers
    }
    result.push_back(rows.begin(b) + row - input.rows.begin(b));
  }
  return int64_tensor(result);
}

/// The row of the input that a present row is, -1 for added ones.
int64_t given_row(const Forward& pass, int64_t row) {
  return pass.origin().defined() ? pointer<const int64_t>(pass.origin())[row] : row;
}

}  // namespace

Tensor HeadLayers::rows_read(const Forward& pass, const Stream& input, const Tensor& labels) const {
  return pooled() ? row_of_each(pass, input) : labelled_rows(pass, labels);
}

Tensor HeadLayers::row_of_each(const Forward& pass, const Stream& input) const {
  const RowIndex& rows = pass.rows();
  const bool last = head_.pool == kernels::Pool::Last, by_token = head_.token >= 0;
  if (!(by_token || last || head_.pool == kernels::Pool::First)) return Tensor();
  if (by_token && pass.rows_left()) return Tensor();
  const Tensor token = by_token ? rows_by_token(head_, input, pass.given_rows()) : Tensor();
  const auto reads = [&](int64_t sequence, int64_t row) {
    const int64_t from = given_row(pass, row);
    return by_token ? from == pointer<const int64_t>(token)[sequence]
                    : from >= 0 || pass.pools_prompt();
  };
  std::vector<int64_t> result;
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    int64_t row = last ? rows.end(b) - 1 : rows.begin(b);
    while (row >= rows.begin(b) && row < rows.end(b) && !reads(b, row)) row += last ? -1 : 1;
    if (row < rows.begin(b) || row >= rows.end(b)) return Tensor();
    result.push_back(row);
  }
  return int64_tensor(result);
}

Tensor HeadLayers::labelled_rows(const Forward& pass, const Tensor& labels) const {
  const RowIndex& rows = pass.rows();
  if (head_.kind == HeadKind::Span || !labels.defined() || pass.rows_left() ||
      labels.numel() != pass.given_rows().rows())
    return Tensor();
  for (const int site : {transform_, norm_, in_, proj_, logits_})
    if (!pass.by_row(site)) return Tensor();
  const int64_t* label = pointer<const int64_t>(labels);
  std::vector<int64_t> result;
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    bool any = false;
    for (int64_t row = rows.begin(b); row < rows.end(b); ++row) {
      const int64_t from = given_row(pass, row);
      const bool labelled = from >= 0 && label[from] != kUnlabelled;
      if (from < 0 && row + 1 == rows.end(b)) return Tensor();  // nothing of the input behind
      if (labelled || (any && causal_) || (!any && row + 1 == rows.end(b))) result.push_back(row);
      any = any || labelled;
    }
  }
  // Choosing rows has its price as well.
  if (static_cast<int64_t>(result.size()) * 8 > rows.rows() * 7) return Tensor();
  return int64_tensor(result);
}

Tensor HeadLayers::pooled_rows(Forward& pass, const Tensor& x, const Stream& input) const {
  if (pass.narrowed()) return cast(x, pass.master());
  if (head_.token < 0) return pool(head_.pool, x, pass.rows());
  return cast(x, pass.master()).index_select(0, rows_by_token(head_, input, pass.rows()));
}

Tensor HeadLayers::features(Forward& pass, const Tensor& x, const Stream& input) const {
  const HeadSpec& h = head_;
  if (h.kind == HeadKind::MaskedLm) {
    const Tensor y = activation(h.transform_activation, pass.project(transform_, x));
    return pass.at(in_, pass.norm(norm_, norm_kind_, norm_eps_, y).y);
  }
  if (h.kind == HeadKind::Lm) return pass.at(in_, h.scale == 1 ? x : x * h.scale);
  if (h.kind == HeadKind::Token || h.kind == HeadKind::Span)
    return pass.at(in_, dropout(cast(x, pass.master()), pass.drop(in_, h.dropout)));
  Tensor rows = pooled_rows(pass, x, input);
  pass.enter_pooled();
  if (h.pooler) {
    if (h.pooler_dropout) rows = dropout(rows, pass.drop(pool_, h.dropout));
    rows = activation(h.pooler_activation, pass.project(pool_, rows));
  }
  return pass.at(in_, dropout(rows, pass.drop(in_, h.dropout)));
}

bool HeadLayers::wanted(const Forward& pass) const {
  return pass.touched(in_) || (pool_ >= 0 && pass.touched(pool_));
}

std::unique_ptr<Head> HeadLayers::make(const std::shared_ptr<Forward>& pass, const Tensor& features,
                                       bool capture) const {
  if (proj_ < 0) return nullptr;
  const bool words = head_.kind == HeadKind::MaskedLm || head_.kind == HeadKind::Lm;
  std::unique_ptr<ProjectionHead> head =
      std::make_unique<ProjectionHead>(pass, proj_, bias_, logits_, words, features,
                                       !pooled() && pass->narrowed() ? pass->origin() : Tensor());
  if (capture) head->make_all();
  return head;
}

ProjectionHead::ProjectionHead(std::shared_ptr<Forward> pass, int projection, int bias, int logits,
                               bool words, Tensor features, Tensor given)
    : pass_(std::move(pass)),
      projection_(projection),
      bias_(bias),
      logits_(logits),
      words_(words),
      features_(std::move(features)),
      given_(std::move(given)) {}

Tensor ProjectionHead::logits(const Tensor& which) const {
  if (given_.defined())
    fail(ErrorCode::Internal, "the logits of a pass that left out the rows without labels");
  if (!which.defined()) return logits_of_all();
  const Tensor index = which.to(at::kLong);
  return all_.defined() ? all_.index_select(0, index) : projected(features_.index_select(0, index));
}

Tensor ProjectionHead::projected(const Tensor& features) const {
  Tensor y = cast(pass_->project(projection_, features), pass_->master());
  if (bias_ >= 0) y = y + pass_->table(bias_);
  return pass_->at(logits_, y);
}

std::optional<WordProjection> ProjectionHead::chunked() const {
  if (!words_ || all_.defined() || pass_->touched(logits_)) return std::nullopt;
  const std::optional<PlainProjection> plain = pass_->plain_projection(projection_);
  if (!plain || (plain->bias.defined() && bias_ >= 0)) return std::nullopt;
  return WordProjection{plain->weight, bias_ >= 0 ? pass_->table(bias_) : plain->bias,
                        plain->copies};
}

Score ProjectionHead::cross_entropy(const Tensor& labels, const Tensor& weights,
                                    double smoothing) const {
  const std::optional<WordProjection> words = chunked();
  const Tensor own = given_.defined() ? labels.index_select(0, given_) : labels;
  const CrossEntropy loss = words ? word_cross_entropy(features_, *words, own, weights, smoothing)
                                  : attune::cross_entropy(logits_of_all(), own, weights, smoothing);
  return {loss.sum, loss.count};
}

Tensor ProjectionHead::row_losses(const Tensor& labels) const {
  const std::optional<WordProjection> words = chunked();
  const Tensor own = given_.defined() ? labels.index_select(0, given_) : labels;
  const Tensor losses =
      words ? word_row_losses(features_, *words, own) : attune::row_losses(logits_of_all(), own);
  if (!given_.defined()) return losses;
  return at::zeros({labels.numel()}, losses.options()).index_copy_(0, given_, losses);
}

}  // namespace attune
