// Training data from several files, evaluation on several sets, and where files may lie.
#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace data_test {

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

TEST_F(Mixture, MistakesAreFoundBeforeTheRunDirectoryIsMade) {
  write("a.jsonl", rows_of("good", 60) + rows_of("bad", 60));
  write("b.jsonl", rows_of("bad", 5));
  const auto refused = [&](const std::string& train, const std::vector<std::string>& parts) {
    const std::vector<std::string> sets = {"data.train=" + train, "data.eval=null"};
    for (const char* command : {"train", "check"}) {
      std::vector<std::string> args = train_args(sets);
      args[0] = command;
      expect_refused(attune(args), 2, parts);
      EXPECT_FALSE(exists("run")) << command << " " << train;
    }
  };
  refused("[{path: a.jsonl, weight: 1}, b.jsonl]",
          {"data.train[1]: b.jsonl has no weight, but another file has one"});
  refused("[{path: a.jsonl, weight: 0}, {path: b.jsonl, weight: 1}]", {"weight", "(0, inf)"});
  refused("[{path: a.jsonl, weight: much}, {path: b.jsonl, weight: 1}]", {"weight", "number"});
  refused("[{path: a.jsonl, weight: 10000}, {path: b.jsonl, weight: 1}]",
          {"the share of data.train[1] (b.jsonl) in an epoch of 125 examples is less than one",
           "raise its weight (1) or leave it out"});
}

TEST_F(Mixture, AFileThatIsWhollyHeldOutIsFoundBeforeTheRunDirectoryIsMade) {
  write("a.jsonl", rows_of("good", 8) + rows_of("bad", 1));
  write("b.jsonl", rows_of("bad", 1));
  std::string found;
  for (int seed = 1; seed <= 20 && found.empty(); ++seed) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome =
        train({"data.train=[{path: a.jsonl, weight: 1}, {path: b.jsonl, weight: 1}]",
               "data.eval=50%", "train.steps=1", "train.seed=" + std::to_string(seed)});
    if (outcome.status == 0) continue;
    found = outcome.err;
    EXPECT_EQ(outcome.status, 2);
    EXPECT_FALSE(exists("run"));
  }
  EXPECT_NE(found.find("data.train[1]: none of the rows of b.jsonl are left for training"),
            std::string::npos)
      << found;
}

TEST_F(EvalOn, MistakesAreFoundBeforeTheRunDirectoryIsMade) {
  write("unseen.jsonl", "{\"text\": \"a\", \"label\": \"fine\"}\n");
  write("other.jsonl", "{\"body\": \"a\", \"label\": \"good\"}\n");
  write("empty.jsonl", "");
  write("news.jsonl", rows_of("good", 5));
  const auto refused = [&](const std::string& eval_on, int status,
                           const std::vector<std::string>& parts,
                           const std::string& more = "train.log_every=1") {
    for (const char* command : {"train", "check"}) {
      std::vector<std::string> args = train_args({"eval_on=" + eval_on, more});
      args[0] = command;
      expect_refused(attune(args), status, parts);
      EXPECT_FALSE(exists("run")) << command << " " << eval_on;
    }
  };
  refused("[unseen.jsonl]", 2,
          {"label \"fine\" at unseen.jsonl:1 does not occur in the training data"});
  refused("[other.jsonl]", 2, {"other.jsonl:1: no column \"text\""});
  refused("[empty.jsonl]", 2, {"empty.jsonl: the file is empty"});
  refused("[nowhere.jsonl]", 3, {"nowhere.jsonl"});
  refused("[news.jsonl, news.jsonl]", 2, {"are both called \"news\"; give them names"});
  refused("[{path: news.jsonl, weight: 2}]", 2, {"weight", "unknown key"});
  refused("{a b: news.jsonl}", 2, {"\"a b\" cannot name a set"});
  refused("[news.jsonl]", 2, {"eval_on has no set \"new\"", "did you mean \"news\"?"},
          "train.best={metric: new/accuracy}");
  refused("[news.jsonl]", 2, {"there is no metric \"acuracy\"", "did you mean \"accuracy\"?"},
          "train.best={metric: news/acuracy}");
  refused("[]", 2, {"train.best: eval_on has no set \"news\""},
          "train.best={metric: news/accuracy}");
}

TEST_F(EvalOn, SoAreThoseOfLabelsAndPolicies) {
  const auto refused = [&](const std::string& set, const std::vector<std::string>& parts) {
    for (const char* command : {"train", "check"}) {
      std::vector<std::string> args = train_args({set});
      args[0] = command;
      expect_refused(attune(args), 2, parts);
      EXPECT_FALSE(exists("run")) << command << " " << set;
    }
  };
  refused("class_weights={god: 2}",
          {"class_weights: the label \"god\" does not occur; did you mean \"good\"?"});
  refused("policies=[{mixout: {sites: \"enc.9.*\"}}]", {"enc.9.*"});
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
  while (!exists("run/checkpoints/step-000002") && child.running()) ::usleep(2000);
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

TEST_F(Anywhere, RowsCutAreCountedOverTheWholeRun) {
  std::string rows;
  for (int i = 0; i < 40; ++i) {
    std::string text = i % 2 == 0 ? "happy" : "sad";
    if (i % 4 == 0)
      for (int word = 0; word < 20; ++word) text += " house";
    rows += Json{{"text", text}, {"label", i % 2 == 0 ? "good" : "bad"}}.dump() + "\n";
  }
  write("train.jsonl", rows);
  // 40 rows of which 10 are cut, five batches an epoch, four epochs; with weights an epoch draws
  // some rows twice and others not.
  for (const char* files : {"train.jsonl", "[{path: train.jsonl, weight: 1}]"}) {
    const std::vector<std::string> sets = {
        std::string("data.train=") + files, "data.eval=null", "data.max_length=8", "train.epochs=4",
        "train.save_every={steps: 1}",      "train.keep=100"};
    std::vector<std::string> whole = sets;
    whole.push_back("output=whole");
    const Json expected = attune_json(train_args(whole));
    EXPECT_EQ(expected["steps"], 20);
    EXPECT_EQ(expected["rows_cut"], 10);
    // What a run that was killed after a step leaves.
    for (const int step : {1, 3, 5, 7, 12, 20}) {
      std::filesystem::remove_all(folder_ / "cut");
      std::filesystem::copy(folder_ / "whole", folder_ / "cut",
                            std::filesystem::copy_options::recursive);
      for (int later = step + 1; later <= 20; ++later)
        std::filesystem::remove_all(folder_ / format("cut/checkpoints/step-{:08}", later));
      const Json resumed = attune_json({"resume", "cut"});
      EXPECT_EQ(resumed["rows_cut"], 10) << files << " from step " << step;
      EXPECT_EQ(resumed["steps"], 20);
    }
    std::filesystem::remove_all(folder_ / "whole");
  }
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

}  // namespace data_test
}  // namespace attune
