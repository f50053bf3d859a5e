#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/edit.h"
#include "core/tuner.h"
#include "kernels/ops/linear.h"

namespace attune {

/// A set's part in a base tensor that it trains: it adds value - base.
struct Share {
  Tensor value, base;
};

/// What runs at one site: the edits in attachment order, and what stands in for the base tensors.
struct SitePlan {
  struct Entry {
    const Edit* edit = nullptr;
    std::string owner;  // "lora" of set "default", for messages
    uint32_t dropout_site = 0;
    bool passing = false;  // gone before the backward pass (policies/scoped_edit.h)
  };
  std::vector<Entry> edits;
  Tensor weight, bias;                    // thawed values; undefined: the base
  std::vector<Share> weights, biases;     // what they are made from, one a set
  WeightCopies copies;                    // compute copies of a thawed weight
  bool read = false;                      // some function reads this site's value,
  bool read_whole = false;                // and for more than the row it is at
  std::vector<std::vector<int>> experts;  // Route: by expert, the copy of each site (-1: itself)
  /// Every edit is a LowRank: the projection takes them as arguments of one node.
  bool only_low_rank() const;
  /// No edit asks for another weight or another input: the product is the base's, the edits run on
  /// its result.
  bool beside_the_base() const;
};

/// What runs at every site of one model. A site nobody edits or reads is a null pointer.
class Plan {
 public:
  const SitePlan* at(int site) const {
    return static_cast<size_t>(site) < sites_.size() ? sites_[static_cast<size_t>(site)].get()
                                                     : nullptr;
  }
  SitePlan* mutable_at(int site) { return const_cast<SitePlan*>(at(site)); }
  /// The plan of a site, made when absent.
  SitePlan& need(int site);
  void clear();
  bool empty() const;

  /// Called with the pass before every forward (the tuners' prepare).
  std::function<void(const Pass&)> prepare;
  /// The plan of one adapter set alone, enabled or not, for sequences that name it (Batch::sets).
  std::function<const Plan&(int32_t set)> of_set;

 private:
  std::vector<std::unique_ptr<SitePlan>> sites_;
};

}  // namespace attune
