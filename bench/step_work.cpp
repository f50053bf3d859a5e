#include "step_work.h"

#include "base/text.h"
#include "kernels/kernels.h"

namespace attune {

Work work_of(const Model& model, const std::vector<int64_t>& lengths,
             const std::vector<int64_t>& read, bool causal, bool full) {
  Work work;
  int64_t rows = 0, rows_read = 0;
  double pairs = 0, pairs_read = 0;  // of a query and a key
  for (size_t b = 0; b < lengths.size(); ++b) {
    const double keys = static_cast<double>(lengths[b]), asking = static_cast<double>(read[b]);
    rows += lengths[b];
    rows_read += read[b];
    pairs += keys * keys * (causal ? 0.5 : 1);
    pairs_read += asking * (causal ? keys - 0.5 * asking : keys);
  }
  const int last = model.config()["num_hidden_layers"].get<int>() - 1;
  for (const Site& site : model.sites()) {
    const bool narrow = site.layer == last;
    if (site.kind == SiteKind::Scores && ends_with(site.name, ".scores"))
      work.attention +=
          3 * 4 * model.config()["hidden_size"].get<double>() * (narrow ? pairs_read : pairs);
    const bool output = site.name == "head.proj" && causal;
    if (site.kind != SiteKind::Weight || site.weight != WeightKind::Projection) continue;
    if (site.layer < 0 && !output) continue;
    // Of a classifier's last block no key and no value is made.
    const bool few =
        output ||
        (narrow && (!causal || !(ends_with(site.name, ".k") || ends_with(site.name, ".v"))));
    const double flops =
        2.0 * static_cast<double>(site.in * site.out) * static_cast<double>(few ? rows_read : rows);
    work.shapes[{site.in, site.out}] += flops;
    work.shapes[{site.out, site.in}] += flops;
    if (full) work.shapes[{site.in, site.out}] += flops;
    work.linear += (full ? 3 : 2) * flops;
  }
  return work;
}

double ceiling_of(const Work& work, int64_t rows, kernels::DType type) {
  double seconds = 0;
  for (const auto& [shape, flops] : work.shapes)
    seconds += flops / (1e9 * kernels::measure_gemm(rows, shape.first, shape.second, type, 0.15));
  return work.linear / seconds * 1e-9;
}

}  // namespace attune
