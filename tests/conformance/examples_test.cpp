// The examples that methods show in their help are accepted, and so is what is saved of them.
#include "methods.h"

namespace attune {
namespace examples_test {

TEST(Examples, AreAcceptedAndSoIsWhatASavedAdapterSaysOfThem) {
  const Registry<Tuner> registry = methods();
  for (const Entry<Tuner>& entry : registry.all()) {
    for (const std::string& example : entry.examples) {
      SCOPED_TRACE(entry.name + " " + example);
      const Options given(entry.options, parse_yaml(example, "example"), "example");
      EXPECT_NE(entry.make(given), nullptr);
      // Saved options state every value, defaults included.
      const Options saved(entry.options, Node::from_json(given.to_json(), {"saved", 0, 0}),
                          "saved");
      EXPECT_EQ(saved.to_json(), given.to_json());
      EXPECT_NE(entry.make(saved), nullptr);
    }
  }
}

}  // namespace examples_test
}  // namespace attune
