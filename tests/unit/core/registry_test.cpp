#include "core/registry.h"

#include <gtest/gtest.h>

namespace attune {
namespace registry_test {

struct Thing {
  int64_t size = 0;
};

Entry<Thing> entry(const std::string& name) {
  Entry<Thing> result;
  result.name = name;
  result.options = {{"size", "int", "3", "[1, inf)", "how large"}};
  result.make = [](const Options& options) {
    return std::make_unique<Thing>(Thing{options.get<int64_t>("size")});
  };
  return result;
}

Registry<Thing> three() {
  Registry<Thing> registry;
  for (const char* name : {"lora", "bias", "norms"}) registry.add(entry(name));
  return registry;
}

template <class Body>
std::string text_of_error(ErrorCode code, Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Registry, EntriesAreSortedByName) {
  EXPECT_EQ(three().names(), (std::vector<std::string>{"bias", "lora", "norms"}));
  EXPECT_EQ(three().all().size(), 3u);
}

TEST(Registry, EntriesMakeTheirThingFromOptions) {
  const Registry<Thing> registry = three();
  const Entry<Thing>& found = registry.at("lora");
  EXPECT_EQ(found.make(Options(found.options, Node(), ""))->size, 3);
  const Node given = Node::from_json(Json{{"size", 5}}, {"test", 0, 0});
  EXPECT_EQ(found.make(Options(found.options, given, ""))->size, 5);
  EXPECT_EQ(registry.find("none"), nullptr);
}

TEST(Registry, UnknownNamesGetASuggestion) {
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [] { three().at("lroa"); }),
            "unknown name \"lroa\"; did you mean \"lora\"?");
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [] { three().at("something"); }),
            "unknown name \"something\"; known: bias, lora, norms");
}

TEST(Registry, ANameIsTakenOnce) {
  EXPECT_EQ(text_of_error(ErrorCode::Internal, [] { three().add(entry("lora")); }),
            "\"lora\" is registered twice");
}

}  // namespace registry_test
}  // namespace attune
