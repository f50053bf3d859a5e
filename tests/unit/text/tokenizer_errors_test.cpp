// What is said of texts, lengths and files that a tokenizer cannot take.
#include <gtest/gtest.h>

#include "folder.h"
#include "small_tokenizer.h"

namespace attune {
namespace tokenizer_errors_test {

using nlohmann::json;

/// The error of loading a folder with this tokenizer.json.
std::string error_of(const std::string& content, ErrorCode code) {
  const TestFolder folder;
  folder.write("tokenizer.json", content);
  return error_text([&] { folder.load(); }, code, folder.path());
}

std::string input_error(const std::function<void()>& call) {
  return error_text(call, ErrorCode::BadInput);
}

TEST(TokenizerErrors, InvalidUtf8NamesTheByte) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  EXPECT_EQ(
      input_error([&] { tokenizer.encode("a b\xff c"); }),
      "tokenizing a text of 6 bytes: byte 3 (0xff) is not valid UTF-8; convert the text to UTF-8");
}

TEST(TokenizerErrors, ImpossibleLengthsAreExplained) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  EXPECT_EQ(input_error([&] { tokenizer.encode("a", {.max_length = 1}); }),
            "tokenizing with max_length 1: the 2 special tokens alone are more; raise max_length");
  const EncodeOptions second{.max_length = 4, .truncate = EncodeOptions::Truncate::OnlySecond};
  EXPECT_EQ(
      input_error([&] { tokenizer.encode("a b c", second); }),
      "tokenizing with max_length 4: only the second sequence may be shortened, but there is one "
      "sequence only; use OnlyFirst or LongestFirst");
  EXPECT_EQ(
      input_error([&] { tokenizer.encode_pair("a b", "c", second); }),
      "tokenizing with max_length 4: the sequences have 2 and 1 tokens, so the second one alone "
      "cannot be shortened enough; raise max_length or use LongestFirst");
  EXPECT_EQ(
      input_error([&] { tokenizer.encode_windows("a b c", 4, 2); }),
      "tokenizing in windows: a stride of 2 tokens leaves no room to move on in windows that hold "
      "2 "
      "tokens beside special tokens and the other sequence; lower stride or raise max_length");
  EXPECT_EQ(input_error([&] { tokenizer.encode_windows("a b c", 0, 0); }),
            "tokenizing in windows: found max_length 0 and stride 0; expected max_length of 1 or "
            "more and "
            "stride of 0 or more");
  EXPECT_EQ(input_error([&] { tokenizer.token(99); }),
            "looking up token id 99: the tokenizer has no such id; ids go from 0 to 12");
}

TEST(TokenizerErrors, EmptyFolderIsNotFound) {
  const TestFolder folder;
  try {
    folder.load();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::NotFound);
    EXPECT_EQ(
        std::string(error.what()),
        folder.path() +
            ": found neither tokenizer.json nor vocab.txt, vocab.json with merges.txt, "
            "spiece.model, tokenizer.model or sentencepiece.bpe.model; expected the folder of "
            "a pretrained model");
  }
}

TEST(TokenizerErrors, TruncationAtEveryByteIsCorrupt) {
  const std::string whole = small_tokenizer().dump(1);
  for (size_t size = 0; size + 1 < whole.size(); size += 7) {
    const std::string text = error_of(whole.substr(0, size), ErrorCode::Corrupt);
    EXPECT_NE(text.find("the file is not complete JSON"), std::string::npos) << size << text;
  }
  EXPECT_EQ(
      error_of("{\n \"model\": {", ErrorCode::Corrupt),
      "tokenizer.json:2:12: the file is not complete JSON (13 bytes, error at byte 13); copy or "
      "download it again");
}

TEST(TokenizerErrors, UnknownTypesNameFieldAndFile) {
  const std::pair<std::string, std::string> cases[] = {
      {"/model/type",
       "tokenizer.json: model.type: model type \"Nope\" is not supported; supported: "},
      {"/normalizer/type",
       "tokenizer.json: normalizer: normalizer type \"Nope\" is not supported; "},
      {"/pre_tokenizer/type", "tokenizer.json: pre_tokenizer: pre-tokenizer type \"Nope\" is not "},
      {"/post_processor/type",
       "tokenizer.json: post_processor: post-processor type \"Nope\" is not "},
      {"/decoder/type", "tokenizer.json: decoder: decoder type \"Nope\" is not supported; "}};
  for (const auto& [place, expected] : cases) {
    json value = small_tokenizer();
    value[json::json_pointer(place)] = "Nope";
    const std::string text = error_of(value.dump(), ErrorCode::Unsupported);
    EXPECT_EQ(text.substr(0, expected.size()), expected);
  }
}

TEST(TokenizerErrors, UnusableRegularExpressionIsUnsupported) {
  json value = small_tokenizer();
  value["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Unsupported),
      "tokenizer.json: pre_tokenizer.pattern: cannot use the regular expression \"(a\": missing "
      "closing parenthesis at byte 2");
  value["pre_tokenizer"]["pattern"] = {{"String", "a"}};
  value["pre_tokenizer"]["behavior"] = "Odd";
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: pre_tokenizer: unknown behavior \"Odd\"; expected Removed, Isolated, "
            "MergedWithPrevious, MergedWithNext or Contiguous");
}

TEST(TokenizerErrors, DamagedVocabulariesAreCorrupt) {
  json value = small_tokenizer();
  value["model"].erase("vocab");
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: model: key \"vocab\" is missing");
  value = small_tokenizer();
  value["model"]["unk_token"] = "<unk>";
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Corrupt),
      "tokenizer.json: model.vocab: the unknown token \"<unk>\" is not in the vocabulary of 13 "
      "pieces; correct unk_token");
  value = small_tokenizer();
  value["model"]["vocab"]["b"] = 7;
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: \"a\" and \"b\" share id 7; ids must differ");
  value["model"]["vocab"]["b"] = -1;
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: piece \"b\" has id -1; expected an integer, 0 or more");
  value["model"]["vocab"]["b"] = 2000000000;
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: piece \"b\" has id 2000000000; expected 0 to 1000129");
  EXPECT_EQ(error_of(R"({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "a": 2}}})",
                     ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: piece \"a\" is listed twice");
}

TEST(TokenizerErrors, DamagedAddedTokensAreCorrupt) {
  json value = small_tokenizer();
  value["added_tokens"][0]["id"] = 5;
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Corrupt),
      "tokenizer.json: added_tokens: added token \"[PAD]\" has id 5, but the vocabulary gives it "
      "id 0");
  value["added_tokens"][0]["content"] = "<new>";
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Corrupt),
      "tokenizer.json: added_tokens: added token \"<new>\" has id 5, but the vocabulary gives that "
      "id to \"un\"");
  value["added_tokens"][0]["id"] = -3;
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: added_tokens[0]: added token has id -3; expected 0 or more");
  value["added_tokens"][0]["id"] = 13;
  value["added_tokens"].push_back({{"id", 13}, {"content", "<other>"}});
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Corrupt),
      "tokenizer.json: added_tokens: added tokens \"<new>\" and \"<other>\" share id 13; ids must "
      "differ");
}

TEST(TokenizerErrors, DamagedTemplatesAreCorrupt) {
  json value = small_tokenizer();
  const json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json cls = {{"SpecialToken", {{"id", "[X]"}, {"type_id", 0}}}};
  value["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", json::array({cls, first})},
                             {"pair", json::array({first})},
                             {"special_tokens", json::object()}};
  EXPECT_NE(
      error_of(value.dump(), ErrorCode::Corrupt).find("special token \"[X]\" is not listed in"),
      std::string::npos);
  value["post_processor"]["single"] = json::array({first});
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: post_processor.pair: the template does not use sequence B");
  value["post_processor"]["single"] = json::array({{{"Sequence", {{"id", "B"}, {"type_id", 0}}}}});
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Corrupt),
      "tokenizer.json: post_processor.single[0].Sequence: sequence \"B\" does not exist here; "
      "expected A");
  value = small_tokenizer();
  value["post_processor"]["cls"] = json::array({"[CLS]"});
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: post_processor.cls: expected [token, id]");
  value["post_processor"]["cls"] = json::array({"[CLS]", -2});
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: post_processor.cls[1]: expected a token id, found -2");
  const json one = small_tokenizer()["post_processor"];
  value["post_processor"] = {{"type", "Sequence"}, {"processors", json::array({one, one})}};
  EXPECT_EQ(
      error_of(value.dump(), ErrorCode::Unsupported),
      "tokenizer.json: post_processor: a sequence of several post-processors that put in special "
      "tokens is not supported; expected one, beside ByteLevel");
}

TEST(TokenizerErrors, WrongKindsAreCorrupt) {
  const std::pair<json, std::string> cases[] = {
      {{{"type", 3}}, "tokenizer.json: normalizer.type: expected a string, found 3"},
      {{{"type", "BertNormalizer"}, {"lowercase", "yes"}},
       "tokenizer.json: normalizer.lowercase: expected true or false, found \"yes\""},
      {{{"type", "Sequence"}, {"normalizers", 1}},
       "tokenizer.json: normalizer.normalizers: expected a list, found 1"},
      {"NFC", "tokenizer.json: normalizer: expected an object, found \"NFC\""}};
  for (const auto& [normalizer, expected] : cases) {
    json value = small_tokenizer();
    value["normalizer"] = normalizer;
    EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt), expected);
  }
  json value = small_tokenizer();
  value["added_tokens"][0]["id"] = "x";
  EXPECT_EQ(error_of(value.dump(), ErrorCode::Corrupt),
            "tokenizer.json: added_tokens[0].id: expected an integer, found \"x\"");
}

TEST(TokenizerErrors, DamagedVocabTxtIsCorrupt) {
  const auto text_of = [](const std::string& vocabulary) {
    const TestFolder folder;
    folder.write("vocab.txt", vocabulary);
    try {
      folder.load();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Corrupt);
      return std::string(error.what()).substr(folder.path().size() + 1);
    }
    return std::string("no error");
  };
  EXPECT_EQ(text_of("[UNK]\na\xff\n"), "vocab.txt: byte 7 is not valid UTF-8");
  EXPECT_EQ(text_of("[UNK]\n[SEP]\n"),
            "vocab.txt: the cls_token \"[CLS]\" is not in the vocabulary");
  EXPECT_EQ(text_of("[CLS]\n[SEP]\n"),
            "vocab.txt: the unknown token \"[UNK]\" is not in the vocabulary of 2 pieces; correct "
            "unk_token");
}

}  // namespace tokenizer_errors_test
}  // namespace attune
