#pragma once
// The inside of Adaptation, shared by its source files.
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/adaptation.h"
#include "core/attachment.h"

namespace attune {

struct Attached {
  TunerSpec spec;
  std::unique_ptr<Tuner> tuner;
  std::unique_ptr<Recorder> recorder;
  size_t number = 0;  // stays when those before it are removed: keys of dropout, optimizer names
};

struct AdapterSet {
  std::string name;
  bool enabled = true;
  std::vector<Attached> tuners;
  Thawed thawed;  // its own copies of the base tensors it trains
};

/// A site, and whether its weight is meant or its bias.
using SitePart = std::pair<int, bool>;
/// What a set trains for one site alone, whatever else shares the base tensor.
std::set<SitePart> trained_apart(const AdapterSet& set);

struct Adaptation::State {
  Model& model;
  const Registry<Tuner>& methods;
  uint64_t seed;
  std::list<AdapterSet> sets;  // a list: recorders refer to a set's thawed tensors
  struct PreImage {
    int storage;
    Tensor weight, bias;
    std::shared_ptr<const kernels::QuantizedMatrix> codes;
  };
  /// A base tensor whose stand-in is added up from what several sets train, or from what one set
  /// trains and another has folded in.
  struct Sum {
    int site;
    bool weight;
    std::vector<int64_t> versions;  // of what went into it; empty: never made
  };
  std::vector<PreImage> merged;
  std::vector<std::string> merged_sets;
  std::map<int32_t, Plan> set_plans;  // of single sets, made when a batch names one
  std::map<const Plan*, std::vector<Sum>> sums;

  AdapterSet* find(std::string_view name);
  AdapterSet& need(std::string_view name);  // BadInput when absent
  const Site* site_of(const Owned& owned) const {
    return owned.site < 0 ? nullptr : &model.sites()[static_cast<size_t>(owned.site)];
  }

  // adaptation_plan.cpp
  void plan();
  void plan_set(Plan& plan, const AdapterSet& set) const;
  void plan_thawed(Plan& plan, const AdapterSet& set) const;
  void plan_sums(Plan& plan);
  void add_up(Plan& plan);
  void plan_edit(Plan& plan, int site, const SitePlan::Entry& entry) const;
  void plan_experts(Plan& plan) const;
  void prepare(const Pass& pass, const AdapterSet* only) const;  // the tuners of one set, or of all
  const Plan& plan_of(int32_t set);
  void hide_unused_copies();
  static void drop_unused_thaws(AdapterSet& set);
  /// Errors: BadInput when the new last tuner of the set cannot stand beside another.
  void check_partners(const AdapterSet& set) const;
};

/// Part of a head: adapters that belong together (PEFT's, of one mixture) each hold it whole, so
/// that equal values in several sets are one change.
bool is_head(const Site& site);

/// "default/0.lora".
std::string tuner_label(const AdapterSet& set, const Attached& attached);

}  // namespace attune
