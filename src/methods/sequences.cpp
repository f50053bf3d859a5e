#include "methods/sequences.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Tensor sequence_of_rows(const RowIndex& rows) {
  std::vector<int64_t> ids;
  for (int64_t b = 0; b < rows.sequences(); ++b)
    ids.insert(ids.end(), static_cast<size_t>(rows.length(b)), b);
  return int64_tensor(ids);
}

Tensor sequence_mean(const Tensor& x, const RowIndex& rows) {
  std::vector<int64_t> counts;
  for (int64_t b = 0; b < rows.sequences(); ++b)
    counts.push_back(std::max<int64_t>(1, rows.length(b)));
  const Tensor sums =
      at::zeros({rows.sequences(), x.size(1)}, x.options()).index_add(0, sequence_of_rows(rows), x);
  return sums / int64_tensor(counts).to(x.scalar_type()).unsqueeze(1);
}

Tensor sequence_gate(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const RowIndex& rows) {
  const Tensor wide = cast(x, weight.scalar_type());
  return sequence_mean((attune::matmul(wide, weight, false, true) + bias).sigmoid(), rows);
}

namespace {

/// Before positions join where rows are tokens; after them where they are patches, whose positions
/// are counted.
const Site* prompt_site(const std::vector<Site>& sites) {
  for (const Site& site : sites)
    if (ends_with(site.name, ".embed.tok"))
      if (const Site* rows = find_site(sites, site.name.substr(0, site.name.size() - 3) + "rows"))
        return rows;
  for (const Site& site : sites)
    if (ends_with(site.name, ".embed.out")) return &site;
  return nullptr;
}

}  // namespace

std::vector<Site> flow_sites(Attachment& attachment, const std::vector<std::string>& globs,
                             SiteKind kind, const char* method) {
  std::vector<Site> result;
  if (globs == std::vector<std::string>{"auto"}) {
    const Site* site = prompt_site(attachment.all_sites());
    if (site != nullptr) result.push_back(*site);
  } else {
    for (const std::string& glob : globs)
      for (const Site& site : attachment.sites(glob)) {
        const bool seen = std::any_of(result.begin(), result.end(),
                                      [&](const Site& other) { return other.name == site.name; });
        if (site.kind == kind && !seen) result.push_back(site);
      }
  }
  if (result.empty())
    fail(ErrorCode::BadInput,
         "{}: none of the sites that {} selects is of kind {}; `attune inspect MODEL` lists every "
         "site with its kind",
         method, join(globs, ", "), kind_name(kind));
  return result;
}

namespace {

Tensor token_rows(Attachment& attachment, const Site& site, const std::vector<int64_t>& ids) {
  const std::string stack = site.name.substr(0, site.name.find('.'));
  const Site* table = find_site(attachment.all_sites(), stack + ".embed.tok");
  if (table == nullptr || table->out != site.in)
    fail(ErrorCode::BadInput,
         "prompt rows at {} cannot begin from tokens: the model has no token table of width {}; "
         "use init: random",
         site.name, site.in);
  std::vector<int64_t> inside;
  for (const int64_t id : ids) inside.push_back(id % table->in);
  return attachment.weight(*table).index_select(0, int64_tensor(inside));
}

}  // namespace

Tensor first_prompt(Attachment& attachment, const Site& site, int64_t length,
                    const std::string& init, const std::string& text) {
  const std::string stack = site.name.substr(0, site.name.find('.'));
  const bool tokens = find_site(attachment.all_sites(), stack + ".embed.tok") != nullptr;
  if (init == "random" || length == 0 || (init == "auto" && !tokens)) {
    const Site* patch = find_site(attachment.all_sites(), stack + ".embed.patch");
    const double bound =
        patch != nullptr ? std::sqrt(6 / static_cast<double>(patch->in + site.in)) : 0.5;
    return attachment.uniform(site, "prompt", {length, site.in}, bound);
  }
  std::vector<int64_t> ids;
  if (init == "text") {
    const std::vector<int32_t> tokens = attachment.encode(text);
    if (tokens.empty())
      fail(ErrorCode::BadInput,
           "prompt rows from a text: the text \"{}\" has no tokens; give `text` some words", text);
    for (int64_t i = 0; i < length; ++i)
      ids.push_back(tokens[static_cast<size_t>(i) % tokens.size()]);
  } else {
    const Stream64 stream(attachment.stream(site.name + "/vocabulary"));
    for (int64_t i = 0; i < length; ++i)
      ids.push_back(
          static_cast<int64_t>(stream.below(static_cast<uint64_t>(i), uint64_t{1} << 40)));
  }
  return token_rows(attachment, site, ids);
}

}  // namespace attune
