#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/adaptation.h"
#include "core/storage.h"
#include "io/safetensors.h"

namespace attune {

/// What attune.json says beside the methods: enough to build the same model again.
struct AdapterCard {
  std::string base;         // model as the user named it
  std::string directory;    // where it was, as an absolute path
  std::string fingerprint;  // SHA-256 over the base checkpoint's tensors
  std::string task;         // "classify", ...; empty for a bare adapter
  Json task_state = Json::object();
  std::string pool;        // of the sequence head
  bool new_head = false;   // drawn, though the base has one of that shape, for other labels
  StorageOptions storage;  // of the base while it was trained on
  uint64_t seed = 1;
  Json methods = Json::array();
};

/// Writes DIR/attune.json and DIR/attune.safetensors: to a new folder, synced, then exchanged for
/// DIR. Tensors of 65,536 elements and more of which two thirds are zeros, or as in the base, are
/// kept as places and values (docs/formats.md). `beside` may write further files into the new
/// folder before the exchange.
void save_adapter(const Adaptation& adaptation, const std::string& set, const AdapterCard& card,
                  const std::string& directory,
                  const std::function<void(const std::string& folder)>& beside = {});
/// Errors: NotFound, Corrupt.
AdapterCard read_adapter_card(const std::string& directory);
/// The tensors of DIR/attune.safetensors, those kept as places and values whole again. `base`: the
/// model that they were trained on. Errors: NotFound, Corrupt.
NamedTensors read_adapter_tensors(const std::string& directory, const Model& base);
/// Attaches the methods and copies the tensors in. Errors: BadInput when the base is another model
/// (both fingerprints).
void load_adapter(Adaptation& adaptation, const std::string& set, const std::string& directory,
                  const std::string& base_fingerprint);

/// Puts a complete new folder in the place of `directory`: one atomic exchange where the file
/// system can.
void replace_directory(const std::string& fresh, const std::string& directory);

/// A folder that is written beside `directory` (as DIRECTORY.tmp) and takes its place when it is
/// complete. Destroyed before that, it leaves nothing behind, not even the parents made for it.
class FreshDirectory {
 public:
  /// Errors: Io when it cannot be made.
  explicit FreshDirectory(std::string directory);
  ~FreshDirectory();
  FreshDirectory(const FreshDirectory&) = delete;
  FreshDirectory& operator=(const FreshDirectory&) = delete;

  const std::string& path() const { return path_; }
  /// Errors: Io.
  void replace();

 private:
  std::string directory_, path_;
  std::vector<std::string> parents_;  // that did not exist before, innermost first
  bool replaced_ = false;
};

}  // namespace attune
