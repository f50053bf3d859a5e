#include "text/sentencepiece.h"

#include <cstring>

#include "unit/text/folder.h"

namespace attune {
namespace sentencepiece_test {

// Wire format of the protocol buffers, written independently of the reader.

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  return out + char(value);
}
std::string number_field(uint64_t number, uint64_t value) {
  return varint(number << 3) + varint(value);
}
std::string bytes_field(uint64_t number, const std::string& value) {
  return varint(number << 3 | 2) + varint(value.size()) + value;
}
std::string float_field(uint64_t number, float value) {
  std::string out = varint(number << 3 | 5) + "....";
  std::memcpy(out.data() + out.size() - 4, &value, 4);
  return out;
}
std::string piece(const std::string& text, float score, int type = 1) {
  return bytes_field(
      1, bytes_field(1, text) + float_field(2, score) + number_field(3, uint64_t(type)));
}

std::string small_model(int kind = 1) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581a", -1) +
         piece("a", -2) + piece("\u2581", -3) + piece("(", -4, 4) +
         bytes_field(2, number_field(3, uint64_t(kind)) + number_field(40, 0)) + bytes_field(3, "");
}

SentencePieceModel parse(const std::string& bytes) {
  return parse_sentencepiece(bytes, "f");
}
std::string error(const std::string& bytes) {
  return error_text([&] { parse(bytes); }, ErrorCode::Corrupt);
}

TEST(SentencePiece, ReadsPiecesTrainerAndNormalizer) {
  // Fields of other numbers and wire types stand in between.
  const std::string bytes = bytes_field(99, "new") + small_model(2) + number_field(7, 1) +
                            float_field(8, 1) + varint(9 << 3 | 1) + "12345678" +
                            bytes_field(3, bytes_field(2, "map")) +
                            bytes_field(2, number_field(40, 3));
  const SentencePieceModel model = parse(bytes);
  ASSERT_EQ(model.pieces.size(), 7u);
  EXPECT_EQ(model.pieces[3].piece, "\u2581a");
  EXPECT_EQ(model.pieces[3].score, -1.0f);
  EXPECT_EQ(model.pieces[3].type, SentencePieceModel::Normal);
  EXPECT_EQ(model.pieces[6].type, SentencePieceModel::UserDefined);
  EXPECT_EQ(model.kind, SentencePieceModel::Bpe);
  EXPECT_EQ(model.unknown_id, 3);
  EXPECT_EQ(model.char_map, "map");
}

TEST(SentencePieceErrors, TruncationAtEveryByteIsCorrupt) {
  const std::string whole = small_model();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string text = error(whole.substr(0, size));
    EXPECT_TRUE(text.starts_with("f: damaged SentencePiece model: ")) << size << ": " << text;
  }
  EXPECT_EQ(parse(whole).pieces.size(), 7u);
}

TEST(SentencePieceErrors, ChangedBytesAreReadOrRefusedButNeverOverrun) {
  const std::string whole = golden_file("tokenizers/files_t5/spiece.model");
  for (size_t at = 0; at < whole.size(); at += 5) {
    std::string bytes = whole;
    bytes[at] = char(bytes[at] ^ (at % 2 == 0 ? 0xFF : 0x41));
    try {
      parse(bytes);
    } catch (const Error& found) {
      EXPECT_EQ(found.code(), ErrorCode::Corrupt);
    }
  }
}

TEST(SentencePieceErrors, EachDamageIsNamed) {
  const std::string end = "; copy or download it again";
  EXPECT_EQ(error(""),
            "f: damaged SentencePiece model: the file ends without pieces (field at byte 0)" + end);
  EXPECT_EQ(
      error(piece("a", 0)),
      "f: damaged SentencePiece model: the file ends without trainer_spec (field at byte 0)" + end);
  EXPECT_EQ(error(piece("a", 0) + bytes_field(2, "")),
            "f: damaged SentencePiece model: the file ends without normalizer_spec (field at byte "
            "12)" +
                end);
  EXPECT_EQ(
      error(small_model() + bytes_field(2, number_field(40, 7))),
      "f: damaged SentencePiece model: the unknown piece has number 7, but there are 7 pieces "
      "(field at byte 107)" +
          end);
  EXPECT_EQ(
      error("\x0A\x05"
            "ab"),
      "f: damaged SentencePiece model: 5 bytes are announced, 2 are left (field at byte 0)" + end);
  EXPECT_EQ(error("\x0A"),
            "f: damaged SentencePiece model: a number is cut off (field at byte 0)" + end);
  EXPECT_EQ(
      error(std::string(11, '\xFF')),
      "f: damaged SentencePiece model: a number has more than 10 bytes (field at byte 0)" + end);
  EXPECT_EQ(error("\x0B"),
            "f: damaged SentencePiece model: wire type 3 does not exist (field at byte 0)" + end);
  EXPECT_EQ(
      error(number_field(1, 5)),
      "f: damaged SentencePiece model: field 1 has wire type 0, expected 2 (field at byte 0)" +
          end);
  EXPECT_EQ(
      error(bytes_field(1, bytes_field(1, "a") + number_field(2, 1))),
      "f: damaged SentencePiece model: field 2 has wire type 0, expected 5 (field at byte 5)" +
          end);
  EXPECT_EQ(error(piece("a", NAN)),
            "f: damaged SentencePiece model: a score is not a number (field at byte 5)" + end);
  EXPECT_EQ(error(piece("\xFF", 0)),
            "f: damaged SentencePiece model: a piece is not valid UTF-8 (field at byte 10)" + end);
}

/// A folder with a SentencePiece model and this tokenizer_config.json.
std::string folder_error(const std::string& file, const std::string& model,
                         const nlohmann::json& config, ErrorCode code) {
  const TestFolder folder;
  folder.write(file, model);
  folder.write("tokenizer_config.json", config.dump());
  return error_text([&] { folder.load(); }, code, folder.path());
}

TEST(SentencePieceErrors, OtherClassesAndTypesAreUnsupported) {
  using nlohmann::json;
  EXPECT_EQ(folder_error("spiece.model", small_model(), {{"tokenizer_class", "XLNetTokenizerFast"}},
                         ErrorCode::Unsupported),
            "spiece.model: making the tokenizer of class XLNetTokenizer from this file is not "
            "supported; save its tokenizer.json with transformers and put it beside");
  EXPECT_EQ(
      folder_error("tokenizer.model", small_model(1), json::object(), ErrorCode::Unsupported),
      "tokenizer.model: the SentencePiece model is of type 1, but this model's tokenizer needs "
      "type 2 (1 is unigram, 2 is BPE)");
  EXPECT_EQ(folder_error("tokenizer.model", small_model(2), {{"tokenizer_class", "GPT2Tokenizer"}},
                         ErrorCode::Unsupported),
            "tokenizer.model: making the tokenizer of class GPT2Tokenizer from this file is not "
            "supported; save its tokenizer.json with transformers and put it beside");
  const TestFolder folder;
  folder.write("spiece.model", small_model());
  folder.write("config.json", R"({"model_type": "pegasus"})");
  EXPECT_EQ(error_text([&] { folder.load(); }, ErrorCode::Unsupported, folder.path()),
            "spiece.model: making the tokenizer of model type pegasus from this file is not "
            "supported; save its tokenizer.json with transformers and put it beside");
}

TEST(SentencePiece, ModelTypeOfConfigJsonDecidesTheClass) {
  const TestFolder folder;
  folder.write("spiece.model", small_model());
  folder.write("config.json", R"({"model_type": "xlm-roberta"})");
  const Tokenizer tokenizer = folder.load();
  // <s> <pad> </s> <unk>, then the file's pieces from the fourth on, then <mask>.
  EXPECT_EQ(tokenizer.token(4), "\u2581a");
  EXPECT_EQ(tokenizer.mask_id(), 8);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.pad_id(), 1);
  EXPECT_EQ(tokenizer.encode("a").ids, (std::vector<int32_t>{0, 4, 2}));
}

TEST(SentencePiece, SpecialTokensFollowTheFiles) {
  const TestFolder folder;
  folder.write("tokenizer.model", small_model(2));
  folder.write("tokenizer_config.json",
               R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "unk_token": null,
                   "pad_token": {"__type": "AddedToken", "content": "<pad>"},
                   "added_tokens_decoder": {"7": {"content": "<x>", "special": true},
                                            "8": {"content": "<y>", "lstrip": true}}})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.id("<x>"), 7);
  EXPECT_EQ(tokenizer.pad_id(), 9);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.unk_id(), std::nullopt);
  EXPECT_EQ(tokenizer.encode("a <y>(").ids, (std::vector<int32_t>{1, 3, 8, 6}));
}

}  // namespace sentencepiece_test
}  // namespace attune
