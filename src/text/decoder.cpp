#include "text/decoder.h"

#include <string_view>
#include <utility>

#include "base/error.h"

namespace attune {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

void clean_up(std::string& text) {
  if (text.find(' ') == std::string::npos) return;
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

class WordPieceDecoder : public Decoder {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup)
      : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  std::string decode(std::vector<std::string> tokens) const override {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0) {
        if (token.starts_with(prefix_)) {
          token.erase(0, prefix_.size());
        } else {
          token.insert(0, 1, ' ');
        }
      }
      // Token by token, as the reference does: a rule never sees two tokens.
      if (cleanup_) clean_up(token);
      out += token;
    }
    return out;
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class JoinDecoder : public Decoder {
 public:
  std::string decode(std::vector<std::string> tokens) const override {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) out += (i > 0 ? " " : "") + tokens[i];
    return out;
  }
};

}  // namespace

std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup) {
  return std::make_unique<WordPieceDecoder>(std::move(prefix), cleanup);
}

std::unique_ptr<Decoder> make_decoder(const JsonView& json) {
  if (json.is_null()) return std::make_unique<JoinDecoder>();
  const std::string type = json.at("type").as_string();
  if (type == "WordPiece") {
    return make_word_piece_decoder(json.text("prefix", "##"), json.flag("cleanup", true));
  }
  fail(ErrorCode::Unsupported, "{}: decoder type \"{}\" is not supported; supported: WordPiece",
       json.where(), type);
}

}  // namespace attune
