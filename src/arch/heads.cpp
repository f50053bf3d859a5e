#include "arch/heads.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace attune {

void set_pool(const ConfigReader& config, HeadSpec& head, const std::string& pool,
              const std::vector<std::string>& offers) {
  if (std::find(offers.begin(), offers.end(), pool) == offers.end())
    fail(ErrorCode::Unsupported,
         "{}: a head that pools by \"{}\" was asked for; this family pools by {}", config.path(),
         pool, join(offers, ", "));
  head.pool_name = pool;
  head.pooler = pool == "pooler";
  head.pool = pool == "mean"   ? kernels::Pool::Mean
              : pool == "max"  ? kernels::Pool::Max
              : pool == "last" ? kernels::Pool::Last
                               : kernels::Pool::First;
}

void refuse_head(const ConfigReader& config, const std::string& family, const std::string& head) {
  fail(ErrorCode::Unsupported, "{}: {} has no {} head", config.path(), family, head);
}

}  // namespace attune
