// What a session says of itself: to the user before a run, and to the run's record.
#include <set>

#include "base/text.h"
#include "recipe/session.h"
#include "tensor/types.h"

namespace attune {

std::vector<std::string> Session::summary() const {
  std::vector<std::string> lines;
  int64_t total = 0;
  for (size_t i = 0; i < loaded_.model->slots(); ++i) {
    const WeightSlot& slot = loaded_.model->slot_at(i);
    total += slot.numel();
  }
  const Cost cost = adaptation_->cost();
  lines.push_back(format("model      {} ({}, {} parameters, {})", recipe_.model,
                         loaded_.model->config().value("model_type", "?"), with_thousands(total),
                         dtype_name(loaded_.model->numerics().compute)));
  for (const std::string& line : loaded_.report.lines()) lines.push_back("           " + line);
  if (stored_.weights > 0)
    lines.push_back(format("storage    {}: {} weights in {} instead of {}", recipe_.storage.kind,
                           with_thousands(stored_.weights),
                           human_bytes(static_cast<double>(stored_.bytes)),
                           human_bytes(static_cast<double>(stored_.before))));
  std::string evaluated = with_thousands(eval_.size());
  for (const NamedView& set : eval_on_)
    evaluated += format(" + {} ({})", with_thousands(set.view.size()), set.name);
  lines.push_back(format("data       {} {} to train ({}), {} to evaluate",
                         with_thousands(train_.size()), train_.windows ? "windows" : "rows",
                         train_.data.format_name(), evaluated));
  lines.push_back(
      format("task       {}{}{}", recipe_.task,
             task_->labels().empty() ? "" : format(", {} labels", task_->labels().size()),
             loaded_.report.pool.empty() ? "" : format(", head pools by {}", loaded_.report.pool)));
  std::vector<std::string> names;
  for (const NamedOptions& method : recipe_.methods) names.push_back(method.name);
  lines.push_back(format("methods    {}: {} trained parameters ({:.2f} %), head {}",
                         names.empty() ? "full" : join(names, " + "),
                         with_thousands(cost.trainable),
                         100.0 * static_cast<double>(cost.trainable) / static_cast<double>(total),
                         with_thousands(cost.head)));
  if (!rates_line_.empty()) lines.push_back(format("rates      {}", rates_line_));
  if (start_)
    lines.push_back(format("start      from {}{}", recipe_.init_from,
                           start_head_ ? "" : "; the head starts anew, for its labels are others"));
  return lines;
}

Json Session::sources() {
  Json hashes{{"model", fingerprint()},
              {"tokenizer", tokenizer_ != nullptr ? Json(tokenizer_->fingerprint()) : Json()},
              {"data", train_.data.fingerprint()}};
  if (!recipe_.eval.empty()) hashes["eval"] = eval_.data.fingerprint();
  for (const NamedView& set : eval_on_) hashes["eval_on"][set.name] = set.view.data.fingerprint();
  return hashes;
}

std::vector<std::string> Session::bad_rows() const {
  std::vector<std::string> all = train_.data.bad_rows();
  const auto add = [&](const Dataset& data) {
    all.insert(all.end(), data.bad_rows().begin(), data.bad_rows().end());
  };
  if (!recipe_.eval.empty()) add(eval_.data);
  for (const NamedView& set : eval_on_) add(set.view.data);
  return all;
}

std::vector<std::pair<std::string, Names>> Session::method_sites() const {
  std::vector<std::pair<std::string, Names>> result;
  const std::vector<TunerSpec> specs = adaptation_->specs("default");
  const std::vector<Param> trained = adaptation_->trainable();
  const Model& model = *loaded_.model;
  for (size_t i = 0; i + 1 < specs.size(); ++i) {  // the last one is the head
    const std::string owner = format("default/{}.{}", i, specs[i].method);
    std::set<std::string> found;
    for (const Param& param : trained)
      if (starts_with(param.name, owner + "/")) found.insert(split(param.name, '/')[2]);
    Names sites;
    for (const Site& site : model.sites()) {
      const SitePlan* plan = model.plan().at(site.id);
      bool edited = found.count(site.name) > 0;
      if (plan != nullptr)
        for (const SitePlan::Entry& entry : plan->edits) edited = edited || entry.owner == owner;
      if (edited && !site.hidden) sites.push_back(site.name);
    }
    result.emplace_back(specs[i].method, std::move(sites));
  }
  return result;
}

}  // namespace attune
