// LoReFT: rows at a few positions change within a trained low-dimensional subspace.
#include <algorithm>
#include <deque>

#include "base/error.h"
#include "methods/adapters.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

/// Orthonormal rows that span those of `a` [r, d], r <= d: L^-1 a with a a^T = L L^T, which is
/// Gram-Schmidt from the first row to the last.
Tensor orthonormal_rows(const Tensor& a) {
  const Tensor lower = at::linalg_cholesky(attune::matmul(a, a, false, true));
  const Tensor identity = at::eye(a.size(0), a.options());
  const Tensor inverse = at::linalg_solve_triangular(lower, identity, /*upper=*/false);
  return attune::matmul(inverse, a);
}

/// Which rows of a sequence of `length` are the first and which the last ones, never both: a short
/// sequence is divided in the middle, unless one end asks for less than its half.
/// Differs: the released code takes at most half of a sequence at either end, so that it leaves out
/// the middle row of an odd one, and all of a sequence of one row.
struct Ends {
  int64_t first = 0, last = 0;
  static Ends of(int64_t length, int64_t first, int64_t last) {
    const int64_t f = std::min(first, std::max(length / 2, length - last));
    return {f, std::min(last, length - f)};
  }
};

class Loreft final : public Tuner {
 public:
  explicit Loreft(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        first_(options.get<int64_t>("first")),
        last_(options.get<int64_t>("last")),
        tied_(options.get<bool>("tied")),
        orthonormal_(options.get<std::string>("form") == "loreft"),
        activation_(activation_named(options.get<std::string>("activation"))),
        dropout_(options.get<double>("dropout")) {
    if (first_ + last_ == 0)
      fail(ErrorCode::BadInput,
           "{}: loreft: first and last are both 0, so that no row would change; give at least one "
           "of them",
           options.where("first"));
  }

  void attach(Attachment& attachment) override {
    for (const Site& site : sites_of_kinds(attachment, sites_, "", {SiteKind::Rows}, "loreft")) {
      check_rank("loreft", rank_, site);
      places_.emplace_back();
      Place& place = places_.back();  // a deque: addresses stay
      if (tied_) {
        place.parts.push_back(subspace(attachment, site, "", true, true));
      } else {
        if (first_ > 0) place.parts.push_back(subspace(attachment, site, "first_", true, false));
        if (last_ > 0) place.parts.push_back(subspace(attachment, site, "last_", false, true));
      }
      attachment.add(site, Apply{[this, &place](const View& view) {
                                   Tensor x = view.x;
                                   for (const Subspace& part : place.parts)
                                     x = changed(part, view, x);
                                   return x;
                                 },
                                 {}});
    }
    prepare({});
  }

  void prepare(const Pass&) override {
    for (Place& place : places_)
      for (Subspace& part : place.parts)
        part.basis = orthonormal_ ? orthonormal_rows(part.rotation) : part.rotation;
  }

  static int64_t parts(const Options& options) {
    if (options.get<bool>("tied")) return 1;
    return (options.get<int64_t>("first") > 0 ? 1 : 0) + (options.get<int64_t>("last") > 0 ? 1 : 0);
  }

 private:
  struct Subspace {
    Tensor rotation, weight, bias;  // trained: [r, d], [r, d], [r]
    Tensor basis;                   // R [r, d]
    bool first = false, last = false;
  };
  struct Place {
    std::vector<Subspace> parts;
  };

  /// R begins as a random subspace, W and b as a linear layer does.
  Subspace subspace(Attachment& attachment, const Site& site, const std::string& prefix, bool first,
                    bool last) const {
    Subspace part;
    const std::vector<int64_t> shape{rank_, site.out};
    const auto uniform = [&](const std::string& name, const std::vector<int64_t>& of) {
      return attachment.uniform(site, name, of, kaiming_bound(site.out));
    };
    const std::string rotation = prefix + "rotation";
    // Without decay: the length of a row of `rotation` has no meaning.
    part.rotation =
        plain_parameter(attachment, site, rotation.c_str(),
                        orthonormal_rows(attachment.normal(site, rotation, shape, 1.0)));
    part.weight = attachment.parameter(site, prefix + "weight", uniform(prefix + "weight", shape));
    part.bias = plain_parameter(attachment, site, (prefix + "bias").c_str(),
                                uniform(prefix + "bias", {rank_}));
    part.first = first;
    part.last = last;
    return part;
  }

  Tensor rows_of(const Subspace& part, const RowIndex& rows) const {
    std::vector<int64_t> index;
    for (int64_t b = 0; b < rows.sequences(); ++b) {
      const Ends ends = Ends::of(rows.length(b), first_, last_);
      for (int64_t i = 0; part.first && i < ends.first; ++i) index.push_back(rows.begin(b) + i);
      for (int64_t i = ends.last; part.last && i > 0; --i) index.push_back(rows.end(b) - i);
    }
    return int64_tensor(index);
  }

  /// h + R^T (f(W h + b) - R h) at the chosen rows (equation 2); without orthonormal rows DiReFT's
  /// h + R^T f(W h + b). In the master type: the rows are few.
  Tensor changed(const Subspace& part, const View& view, const Tensor& x) const {
    const Tensor index = rows_of(part, view.rows);
    if (index.numel() == 0) return x;
    const Tensor h = cast(x.index_select(0, index), part.basis.scalar_type());
    Tensor inner = activate(activation_, attune::matmul(h, part.weight, false, true) + part.bias);
    if (orthonormal_) inner = inner - attune::matmul(h, part.basis, false, true);
    // Dropout of the changed rows themselves, as the released code has it.
    const Tensor y = dropout_rows(h + attune::matmul(inner, part.basis), dropout_, view, index);
    return x.index_copy(0, index, cast(y, x.scalar_type()));
  }

  std::vector<std::string> sites_;
  int64_t rank_, first_, last_;
  bool tied_, orthonormal_;
  kernels::Activation activation_;
  double dropout_;
  std::deque<Place> places_;
};

}  // namespace

void register_loreft(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "loreft";
  entry.summary =
      "rows at the first and last positions change within a subspace: h += R^T (W h + b - R h)";
  entry.reference =
      "Wu et al. 2024, \"ReFT: Representation Finetuning for Language Models\", arXiv 2404.03592, "
      "section 3.2";
  entry.options = {
      {"sites", "globs", "\"*.resid.out\"", "",
       "rows that are changed (globs over site names), for example enc.{2,4}.resid.out"},
      {"rank", "int", "8", "[1, inf)", "dimensions of the subspace"},
      {"first", "int", "7", "[0, inf)", "how many of the first rows of a sequence are changed"},
      {"last", "int", "7", "[0, inf)", "how many of the last rows of a sequence are changed"},
      {"tied", "bool", "true", "", "first and last rows share one subspace"},
      {"form", "choice", "loreft", "loreft|direft",
       "loreft: R has orthonormal rows and R h is replaced; direft: R is any matrix and its part "
       "is "
       "added"},
      {"activation", "choice", "identity", kActivationNames, "on W h + b"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the changed rows"},
  };
  entry.learning_rate = 1e-3;
  entry.identity_at_start = false;  // W h + b is not R h
  // Below the last block every row reaches the head, whichever it pools.
  entry.tiny = "{sites: \"*.0.resid.out\", rank: 2, first: 1, last: 2, tied: false}";
  entry.examples = {"{}", "{rank: 4, first: 1, last: 0, sites: \"enc.*.resid.out\"}",
                    "{form: direft, rank: 4}", "{tied: false, first: 3, last: 3}"};
  entry.make = [](const Options& options) { return std::make_unique<Loreft>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const int64_t rank = options.get<int64_t>("rank");
    int64_t count = 0;
    for (const Site& site : sites) count += Loreft::parts(options) * (2 * rank * site.out + rank);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
