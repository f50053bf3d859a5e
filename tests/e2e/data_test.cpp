// Training data from several files, evaluation on several sets, and where files may lie.
#include "e2e/workshop.h"

namespace attune {

namespace {

using Mixture = Workshop;
using EvalOn = Workshop;
using Anywhere = Workshop;

/// `count` rows with this one label.
std::string rows_of(const std::string& label, int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += Json{{"text", "the " + std::string(label == "good" ? "happy" : "sad") + " house"},
                 {"label", label}}
                .dump() +
            "\n";
  return text;
}

}  // namespace

TEST_F(Mixture, WeightsDecideWhatIsSeenWhateverTheSizes) {
  write("many.jsonl", rows_of("good", 90));
  write("few.jsonl", rows_of("bad", 10));
  // All drawn from the large file: class weights of 0 for its label leave no loss at all.
  const std::vector<std::string> sets = {
      "data.train=[{path: many.jsonl, weight: 1}, {path: few.jsonl, weight: 3}]", "data.eval=null",
      "train.epochs=1", "train.batch_size=100", "train.steps=1"};
  const Json mixed = attune_json(train_args(sets));
  EXPECT_EQ(mixed["examples"], 100);
  EXPECT_EQ(mixed["steps"], 1);
  // An epoch of the mixture draws 25 of one label and 75 of the other: after a step the bias has
  // moved towards the rare label, and without weights towards the other.
  std::vector<std::string> plain = sets;
  plain[0] = "data.train=[many.jsonl, few.jsonl]";
  plain.push_back("output=plain");
  attune_json(train_args(plain));
  write("one.jsonl", "{\"text\": \"the house\"}\n");
  const auto bad = [&](const std::string& run) {
    return attune_json({"predict", run, "--data", "one.jsonl"})["results"][0]["scores"]["bad"]
        .get<double>();
  };
  EXPECT_GT(bad("run"), bad("plain"));
}

TEST_F(Mixture, ALimitIsOfItsOwnFile) {
  write("a.jsonl", rows_of("good", 30));
  write("b.jsonl", rows_of("bad", 30));
  const Json found =
      attune_json({"check", "recipe.yaml", "--set",
                   "data.train=[{path: a.jsonl, limit: 7}, b.jsonl]", "--set", "data.eval=null"});
  EXPECT_EQ(found["rows"]["train"], 37);
  EXPECT_EQ(found["labels"], (Json{{"good", 7}, {"bad", 30}}));
}

TEST_F(Mixture, FilesMayNameTheirColumnsDifferently) {
  write("a.jsonl", rows_of("good", 20));
  write("b.csv", "body,section\nthe sad road,bad\nthe sad tree,bad\n");
  const std::string train =
      "data.train=[a.jsonl, {path: b.csv, columns: {text: body, label: section}}]";
  const Json found =
      attune_json({"check", "recipe.yaml", "--set", train, "--set", "data.eval=null"});
  EXPECT_EQ(found["labels"], (Json{{"good", 20}, {"bad", 2}}));
  expect_refused(attune({"check", "recipe.yaml", "--quiet", "--set",
                         "data.train=[a.jsonl, {path: b.csv, columns: {text: bdy, label: "
                         "section}}]",
                         "--set", "data.eval=null"}),
                 2, {"b.csv:2: no column \"bdy\"; the record has: body, section; did you mean"});
}

TEST_F(Mixture, EveryNameOfARoleMayBeMapped) {
  write("pairs.csv", "q1,q2,same\nthe house,the road,1\na tree,a tree,0\nnight,day,1\n");
  const Json found = attune_json({"check", "recipe.yaml", "--set", "task=pair", "--set",
                                  "data.train=pairs.csv", "--set", "data.eval=null", "--set",
                                  "data.columns={sentence1: q1, sentence2: q2, label: same}"});
  EXPECT_EQ(found["labels"], (Json{{"0", 1}, {"1", 2}}));
}

TEST_F(EvalOn, EverySetIsMeasuredUnderItsName) {
  write("train.jsonl", rows_of("good", 60) + rows_of("bad", 60));
  write("news.jsonl", rows_of("good", 5));
  write("forum.csv", "body,label\nsad,bad\nhappy,bad\nsad,good\n");
  const Json result = attune_json(
      train_args({"eval_on=[news.jsonl, {path: forum.csv, name: web, columns: {text: body}}]",
                  "train.best={metric: web/accuracy}", "train.steps=40"}));
  const Json record = json("run/run.json");
  EXPECT_EQ(record["eval_on"]["news"]["examples"], 5);
  EXPECT_EQ(record["eval_on"]["web"]["examples"], 3);
  EXPECT_EQ(record["metrics"]["examples"], 12);
  EXPECT_EQ(record["kept"]["which"], "best web/accuracy");
  double best = -1;
  for (const Json& line : lines("run/log.jsonl")) {
    if (!line.contains("eval")) continue;
    for (const char* name : {"accuracy", "news/accuracy", "web/accuracy", "web/macro_f1"})
      EXPECT_TRUE(line["eval"].contains(name)) << line.dump();
    best = std::max(best, line["eval"]["web/accuracy"].get<double>());
  }
  EXPECT_EQ(record["eval_on"]["web"]["accuracy"], best);
  const Json state = json("run/trainer_state.json");
  EXPECT_EQ(state["best_metric"], best);
  EXPECT_NE(state["log_history"].dump().find("eval_web_accuracy"), std::string::npos);
  // The kept adapter is the state that was measured.
  write("same.jsonl",
        "{\"text\": \"sad\", \"label\": \"bad\"}\n"
        "{\"text\": \"happy\", \"label\": \"bad\"}\n"
        "{\"text\": \"sad\", \"label\": \"good\"}\n");
  EXPECT_EQ(attune_json({"eval", "run", "--data", "same.jsonl"})["accuracy"], best);
  const Json again = attune_json({"resume", "run"});
  EXPECT_EQ(again["eval_on"], result["eval_on"]);
}

TEST_F(EvalOn, ItNeedsNoMainSet) {
  write("news.jsonl", rows_of("good", 5));
  const Json result =
      attune_json(train_args({"data.eval=null", "eval_on={x: news.jsonl}", "train.steps=4"}));
  EXPECT_TRUE(result["metrics"].is_null());
  EXPECT_EQ(result["eval_on"]["x"]["examples"], 5);
}

TEST_F(Anywhere, ARunIsResumedAndUsedFromAnotherFolder) {
  const std::string other = path("elsewhere");
  std::filesystem::create_directories(other);
  Child child(folder_.string(), train_args({"train.steps=4000", "train.save_every={steps: 2}"}));
  while (!exists("run/checkpoints/step-00000002") && child.running()) ::usleep(2000);
  child.kill(SIGTERM);
  EXPECT_EQ(child.wait().status, 143);
  EXPECT_EQ(run_program(folder_.string(), {"train", "run/recipe.yaml", "--set", "output=whole",
                                           "--set", "train.steps=4"})
                .status,
            0);
  // The recorded recipe ends sooner: only where its files are is of interest here.
  std::string recipe = read("run/recipe.yaml");
  recipe.replace(recipe.find("steps: 4000"), 11, "steps: 4");
  std::filesystem::remove_all(folder_ / "run/checkpoints");
  write("run/recipe.yaml", recipe);
  const Outcome resumed = run_program(other, {"resume", "../run", "--json"});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_EQ(read("run/adapter/attune.safetensors"), read("whole/adapter/attune.safetensors"));
  const Outcome predicted = run_program(other, {"predict", "../run", "--text", "happy"});
  EXPECT_EQ(predicted.status, 0) << predicted.err;
  EXPECT_EQ(predicted.out, attune({"predict", "run", "--text", "happy"}).out);
  EXPECT_EQ(run_program(other, {"tokenize", "../run", "--text", "happy"}).status, 0);
  EXPECT_EQ(run_program(other, {"train", "../run/recipe.yaml", "--set", "output=here"}).status, 0);
  EXPECT_TRUE(exists("elsewhere/here/adapter/attune.json"));
}

TEST_F(Anywhere, AModelThatHasMovedIsNamedWithBothPlaces) {
  ASSERT_EQ(train({"train.steps=2"}).status, 0);
  std::filesystem::rename(folder_ / "model", folder_ / "moved");
  expect_refused(
      attune({"predict", "run", "--text", "a"}), 3,
      {"belongs to the model \"model\"", "(when it was trained: " + path("model") + ")"});
  std::filesystem::create_directories(folder_ / "elsewhere");
  std::filesystem::rename(folder_ / "moved", folder_ / "elsewhere/model");
  // By its name it is found where it is now.
  EXPECT_EQ(run_program(path("elsewhere"), {"predict", "../run", "--text", "a"}).status, 0);
}

TEST_F(Anywhere, ASeedBelongsToItsRun) {
  ASSERT_EQ(train({"train.steps=2"}).status, 0);
  expect_refused(attune({"resume", "run", "--seed", "2"}), 2,
                 {"--seed 2: a run goes on with the seed it began with"});
}

}  // namespace attune
