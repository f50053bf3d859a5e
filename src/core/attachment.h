#pragma once
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/model.h"
#include "core/tuner.h"

namespace attune {

/// One tensor a tuner owns.
struct Owned {
  enum class Role : uint8_t { Parameter, Buffer, State, Thawed };
  std::string name;  // "enc.0.self.q/down"; thawed: "enc.0.self.q/weight"
  Role role = Role::Parameter;
  int site = -1;  // -1: shared by several
  Tensor value;
  Learn learn;
  bool decays = true;  // the optimizer's own rule: no decay on biases and norms
  Tensor base = {};    // thawed: the model's tensor when it began
  bool alone = false;  // thawed for its site only, whatever else shares the base tensor
};

/// Thawed tensors by (storage, part), shared by every tuner of one model that trains the same
/// tensor; of a site alone by (-1 - site, part).
using Thawed = std::map<std::pair<int, Part>, Share>;

/// The engine's side of Attachment: records what a tuner declares, without touching the model.
class Recorder final : public Attachment {
 public:
  Recorder(Model& model, Thawed& thawed, std::string method, uint64_t seed);
  ~Recorder() override;
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  std::vector<Site> sites(std::string_view glob) const override;
  const std::vector<Site>& all_sites() const override { return sites_; }
  Tensor weight(const Site& site) const override;
  Tensor bias(const Site& site) const override;
  bool fresh(const Site& site) const override;
  Tensor parameter(const Site& site, std::string_view name, const Tensor& init,
                   Learn learn) override;
  Tensor buffer(const Site& site, std::string_view name, const Tensor& init) override;
  Tensor state(const Site& site, std::string_view name, const Tensor& init) override;
  Edit& add(const Site& site, Edit edit) override;
  std::vector<std::vector<Site>> route(const Site& part, Route edit) override;
  void thaw(const Site& site, Learn learn, Part part) override;
  Tensor normal(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                double deviation) const override;
  Tensor uniform(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                 double bound) const override;
  std::vector<int32_t> encode(const std::string& text) const override;
  const Json& config() const override { return model_.config(); }
  uint64_t stream(std::string_view name) const override;
  Tensor zeros(const std::vector<int64_t>& shape) const override;
  Tensor ones(const std::vector<int64_t>& shape) const override;

  /// What acts: the method's edits, with their strength where that is not 1.
  const std::deque<std::pair<int, Edit>>& edits() const {
    return strength_ == 1 ? edits_ : scaled_;
  }
  /// Multiplies the strength of the edits, which all have one; new addresses.
  void scale(double factor);
  /// After the method's prepare, which may have made its edits anew.
  void refresh();
  const std::vector<Owned>& owned() const { return owned_; }
  const std::string& method() const { return method_; }
  /// Weight sites whose tensor the method trains, tied or not.
  const std::set<int>& thawed_sites() const { return thawed_sites_; }

 private:
  std::string sites_that_admit(const Site& site, const Edit& edit) const;
  bool trains_alone(const Site& site, const Learn& learn) const;
  bool changes_by_rows(const Site& site, const Tensor& base) const;
  void thaw_part(const Site& site, const Learn& learn, Part part, const Tensor& base);
  void own(Owned owned);

  Model& model_;
  std::vector<Site> sites_;  // without copies in mixtures
  Thawed& thawed_;
  std::string method_;
  uint64_t seed_;
  std::deque<std::pair<int, Edit>> edits_;  // a deque: addresses stay
  double strength_ = 1;
  std::deque<std::pair<int, Edit>> scaled_;  // edits_ with that strength
  std::vector<Owned> owned_;
  std::set<int> thawed_sites_;  // those that were asked for, tied or not
};

/// Values of a named random stream as a tensor.
Tensor normal_tensor(uint64_t key, const std::vector<int64_t>& shape, double deviation,
                     at::ScalarType type);

}  // namespace attune
