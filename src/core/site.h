#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

using Names = std::vector<std::string>;

/// What flows at a site; decides which verbs it admits (docs/sites.md).
enum class SiteKind : uint8_t { Weight, Rows, Heads, Scores, KeyValue, Part };
/// What a Weight site holds: a projection [out, in] with an optional bias [out], a norm's scale
/// [out] with an optional bias, an embedding table [in, out], or a lone vector [out] (an output
/// bias).
enum class WeightKind : uint8_t { None, Projection, Norm, Table, Vector };

/// One named place in one loaded model.
struct Site {
  std::string name;  // "dec.3.self.q"; see docs/sites.md
  SiteKind kind = SiteKind::Weight;
  WeightKind weight = WeightKind::None;
  int layer = -1;                      // -1 outside the blocks
  int64_t in = 0, out = 0, heads = 1;  // features, never rows
  bool bias = false;                   // a Weight site that has a bias tensor
  int storage = -1;  // sites that share one tensor (tied embeddings, shared layers) share this id
  int id = -1;       // position in Model::sites()
  int copy_of = -1;  // an expert's copy: the site it copies
  bool hidden = false;  // a copy whose mixture is not attached: no pattern selects it

  /// Stands for no site: the owner of tensors that several sites share ("shared/NAME").
  static Site shared();
};

const char* kind_name(SiteKind kind);

/// "enc.3." of "enc.3.self.q"; empty outside the blocks.
std::string block_of(const Site& site);
/// The site of that name, or null.
const Site* find_site(const std::vector<Site>& sites, std::string_view name);

/// The sites whose names match the glob, in model order. Errors: BadInput when nothing matches,
/// showing near names.
std::vector<Site> select_sites(const std::vector<Site>& sites, std::string_view glob);

}  // namespace attune
