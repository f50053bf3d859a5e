#include "recipe/model_path.h"

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "recipe/target.h"

namespace attune {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string hub_folder() {
  const std::string home = environment("HF_HOME");
  if (!home.empty()) return home + "/hub";
  const std::string user = environment("HOME");
  return user.empty() ? std::string() : user + "/.cache/huggingface/hub";
}

/// "org/name" -> "models--org--name".
std::string cache_name(const std::string& name) {
  return "models--" + join(split(name, '/'), "--");
}

/// The snapshot that refs/main names, else the newest one, else "".
std::string snapshot_in(const std::string& folder) {
  const std::string snapshots = folder + "/snapshots";
  const std::string ref = folder + "/refs/main";
  if (file_exists(ref)) {
    const std::string content = read_file(ref);
    const std::string revision(trim(content));
    if (!revision.empty() && directory_exists(snapshots + "/" + revision))
      return snapshots + "/" + revision;
  }
  std::string newest;
  std::filesystem::file_time_type newest_time;
  std::error_code ignored;
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(snapshots, ignored)) {
    if (!entry.is_directory(ignored)) continue;
    const std::filesystem::file_time_type time = entry.last_write_time(ignored);
    if (newest.empty() || time > newest_time) newest = entry.path().string(), newest_time = time;
  }
  return newest;
}

/// The checkpoint in a directory that exists: itself, or of a run the one it wrote.
std::string checkpoint_in(const std::string& directory) {
  if (file_exists(directory + "/config.json")) return directory;
  if (file_exists(directory + "/model/config.json")) return directory + "/model";
  if (!adapter_folder(directory).empty())
    fail(ErrorCode::BadInput,
         "looking for the model \"{}\": it holds an adapter, not a whole checkpoint; fold it in "
         "(attune merge {} -o DIR) and take DIR, or start from its values with init_from",
         directory, directory);
  return directory;
}

}  // namespace

std::string find_model(const std::string& name) {
  if (name.empty())
    fail(ErrorCode::BadInput, "looking for a model: its name is empty; pass a directory or a name");
  if (directory_exists(name)) return checkpoint_in(name);
  std::vector<std::string> looked = {name};
  const bool relative = name.front() != '/' && name.front() != '.';
  const std::string models = environment("ATTUNE_MODELS");
  if (relative && !models.empty()) {
    const std::string path = models + "/" + name;
    if (directory_exists(path)) return path;
    looked.push_back(path);
  }
  const std::string hub = hub_folder();
  if (relative && !hub.empty()) {
    const std::string folder = hub + "/" + cache_name(name);
    const std::string snapshot = snapshot_in(folder);
    if (!snapshot.empty()) return snapshot;
    looked.push_back(folder + "/snapshots");
  }
  fail(ErrorCode::NotFound,
       "looking for the model \"{}\": no such directory; looked at {}{}. Nothing is downloaded: "
       "put the model in a "
       "directory and pass its path",
       name, join(looked, ", "), models.empty() ? " ($ATTUNE_MODELS is not set)" : "");
}

}  // namespace attune
