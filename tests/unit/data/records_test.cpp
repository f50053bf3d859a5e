#include "data/records.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "support/temp_folder.h"

namespace attune {
namespace records_test {

class Records : public testing::Test {
 protected:
  Dataset open(const std::string& name, std::string_view content, const ReadOptions& options = {}) {
    return Dataset::open(folder_.write(name, content), options);
  }
  std::string dump(const Dataset& data, int64_t index) { return data.at(index).value.dump(); }
  std::string open_error(const std::string& name, std::string_view content,
                         const ReadOptions& options = {}) {
    return error_text(folder_, ErrorCode::BadInput, [&] { open(name, content, options); });
  }
  std::string row_error(const Dataset& data, int64_t index) {
    return error_text(folder_, ErrorCode::BadInput, [&] { data.at(index); });
  }
  TempFolder folder_;
};

TEST_F(Records, JsonLinesSkipBlankLinesAndKeepLineNumbers) {
  const Dataset data = open("a.jsonl", "{\"text\":\"a\",\"label\":1}\r\n\n  \n{\"b\":[1,null]}");
  EXPECT_EQ(data.format_name(), "jsonl");
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(dump(data, 0), R"({"text":"a","label":1})");
  EXPECT_EQ(dump(data, 1), R"({"b":[1,null]})");
  EXPECT_EQ(data.at(1).line, 4);
  EXPECT_TRUE(data.at(1).typed);
  EXPECT_EQ(data.at(1).where(), data.where(1));
}

TEST_F(Records, ByteOrderMarkIsDropped) {
  EXPECT_EQ(dump(open("a.jsonl", "\xEF\xBB\xBF{\"a\":1}\n"), 0), R"({"a":1})");
  EXPECT_EQ(dump(open("a.csv", "\xEF\xBB\xBFtext,label\nx,y\n"), 0), R"({"text":"x","label":"y"})");
}

TEST_F(Records, BadJsonLineIsNamedWithLineAndColumn) {
  const Dataset data = open("a.jsonl", "{\"a\":1}\n{\"a\": tru}\n[1]\n{\"a\":\n");
  EXPECT_EQ(row_error(data, 1).substr(0, 28), "a.jsonl:2:10: not valid JSON");
  EXPECT_EQ(row_error(data, 2),
            "a.jsonl:3: the record is of type array, expected a JSON object such as {\"text\": "
            "\"...\"}");
  EXPECT_EQ(row_error(data, 3).substr(0, 27), "a.jsonl:4:6: not valid JSON");
}

TEST_F(Records, NumberOutOfRangeIsNamed) {
  const Dataset data = open("a.jsonl", "{\"a\":1e999}\n");
  EXPECT_EQ(row_error(data, 0).substr(0, 25), "a.jsonl:1: not valid JSON");
}

TEST_F(Records, BadRowsAreCountedWhenSkipped) {
  ReadOptions options;
  options.skip_bad_rows = true;
  const Dataset data = open("a.jsonl", "{\"a\":1}\nno\n{\"a\":\"\xFF\"}\n{\"a\":2}\n", options);
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(data.at(1).line, 4);
  ASSERT_EQ(data.bad_rows().size(), 2u);
  EXPECT_NE(data.bad_rows()[0].find("a.jsonl:2:"), std::string::npos);
  EXPECT_NE(data.bad_rows()[1].find("a.jsonl:3: invalid UTF-8 at byte offset 17"),
            std::string::npos);
}

TEST_F(Records, FileOfBadRowsOnlyIsAnError) {
  ReadOptions options;
  options.skip_bad_rows = true;
  EXPECT_EQ(open_error("a.jsonl", "no\nnor\n", options)
                .find("a.jsonl: no records found reading it as "
                      "jsonl; all 2 rows are bad, the first: "),
            0u);
}

TEST_F(Records, LimitCountsGoodRowsOverAllFiles) {
  ReadOptions options;
  options.limit = 3;
  options.skip_bad_rows = true;
  const std::string first = folder_.write("a.jsonl", "{\"a\":1}\nno\n{\"a\":2}\n");
  const std::string second = folder_.write("b.csv", "a\n3\n4\n");
  const Dataset data = Dataset::open(std::vector<std::string>{first, second}, options);
  EXPECT_EQ(data.size(), 3);
  EXPECT_EQ(data.format_name(), "jsonl, csv");
  EXPECT_EQ(dump(data, 2), R"({"a":"3"})");
  EXPECT_EQ(data.where(2), second + ":2");
}

TEST_F(Records, EachFileHasItsOwnLimit) {
  const std::string first = folder_.write("a.jsonl", "{\"t\":1}\nx\n{\"t\":2}\n{\"t\":3}\n");
  const std::string second = folder_.write("b.csv", "t\n4\n5\n6\n");
  const std::string third = folder_.write("c.jsonl", "{\"t\":7}\n{\"t\":8}\n");
  ReadOptions options;
  options.skip_bad_rows = true;
  const Dataset data =
      Dataset::open(std::vector<InputFile>{{first, 2}, {second, 1}, {third}}, options);
  std::string found;
  for (int64_t i = 0; i < data.size(); ++i)
    found += data.at(i).value["t"].dump() + format(" of {}, ", data.file_of(i));
  EXPECT_EQ(found, "1 of 0, 2 of 0, \"4\" of 1, 7 of 2, 8 of 2, ");
  options.limit = 4;
  EXPECT_EQ(Dataset::open(std::vector<InputFile>{{first, 2}, {second}, {third}}, options).size(),
            4);
}

TEST_F(Records, AFileMayHaveOtherNamesForItsColumns) {
  const std::string first = folder_.write("a.jsonl", "{\"text\":\"a\"}\n");
  const std::string second = folder_.write(
      "b.jsonl", "{\"text\":\"not this\",\"meta\":{\"body\":\"b\"}}\n{\"text\":\"c\"}\n");
  const Dataset data =
      Dataset::open(std::vector<InputFile>{{first}, {second, 0, {{"text", "meta.body"}}}});
  EXPECT_EQ(data.at(0).value["text"], "a");
  EXPECT_EQ(data.at(1).value["text"], "b");
  EXPECT_EQ(error_text(folder_, ErrorCode::BadInput, [&] { data.at(2); }),
            "b.jsonl:2: no column \"meta.body\"; the record has: text; data.columns says which is "
            "which, as {text: body, label: topic}");
}

TEST_F(Records, JsonArrayGivesItsObjects) {
  const Dataset data = open(
      "a.json", "[\n {\"t\": \"a ] \\\" , }\", \"n\": [1, {\"x\": []}]},\n\n {\"t\": \"b\"} ]\n");
  EXPECT_EQ(data.format_name(), "json");
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(data.at(0).value["n"].dump(), R"([1,{"x":[]}])");
  EXPECT_EQ(data.at(0).line, 2);
  EXPECT_EQ(data.at(1).line, 4);
}

TEST_F(Records, ObjectWithOneArrayOfObjectsIsAContainer) {
  const Dataset data = open(
      "a.json", "{\"version\": \"1\", \"names\": [\"x\"], \"data\": [{\"a\": 1}, {\"a\": 2}]}");
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(dump(data, 1), R"({"a":2})");
}

TEST_F(Records, ObjectWithSeveralArraysIsRefused) {
  EXPECT_EQ(open_error("a.json", "{\"train\": [{\"a\": 1}], \"test\": [{\"a\": 1}]}"),
            "a.json: expected an array of records, or an object with one array of records inside; "
            "found an object with 2 such arrays: train, test");
  EXPECT_EQ(open_error("a.json", "{\"a\": 1\n}"),
            "a.json: expected an array of records, or an object with one array of records inside; "
            "found an object with 0 such arrays");
}

TEST_F(Records, TruncatedOrBrokenArrayIsNamed) {
  EXPECT_EQ(open_error("a.json", "[{\"a\": 1},\n{\"a\": \"x"),
            "a.json:2: the file ends inside the record that starts here; expected ]");
  EXPECT_EQ(open_error("a.json", "[{\"a\": 1}\n{\"a\": 2}]"),
            "a.json:2: expected , or ] after a record, found '{'");
  EXPECT_EQ(open_error("a.json", "[{\"a\": 1}"),
            "a.json:1: expected , or ] after a record, found the end of the file");
  ReadOptions options;
  options.format = Format::JsonArray;
  EXPECT_EQ(open_error("a.txt", "7", options),
            "a.txt:1: expected a JSON array of objects, found another value");
  EXPECT_EQ(open_error("a.json", "[]"),
            "a.json: no records found reading it as json; expected at least one");
}

TEST_F(Records, JsonArrayErrorsCountLinesOfTheFile) {
  const Dataset data = open("a.json", "[\n{\"a\": 1},\n{\"a\":\n  nope}]");
  EXPECT_EQ(row_error(data, 1).substr(0, 13), "a.json:4:4: n");
}

TEST_F(Records, JsonLinesInAFileNamedJsonAreFound) {
  const Dataset data = open("a.json", "{\"a\": 1}\n{\"a\": 2}\n");
  EXPECT_EQ(data.format_name(), "jsonl");
  EXPECT_EQ(data.size(), 2);
}

TEST_F(Records, CsvQuotingFollowsRfc4180) {
  const Dataset data = open("a.csv",
                            "id,\"text, long\",label\r\n1,\"a \"\"b\"\"\r\nc, d\",x\r\n\r\n2,5\" "
                            "screen,\"\"\r\n3,,z");
  EXPECT_EQ(data.format_name(), "csv");
  ASSERT_EQ(data.size(), 3);
  EXPECT_EQ(data.at(0).value["text, long"].get<std::string>(), "a \"b\"\r\nc, d");
  EXPECT_EQ(dump(data, 1), R"({"id":"2","text, long":"5\" screen","label":""})");
  EXPECT_EQ(dump(data, 2), R"({"id":"3","text, long":"","label":"z"})");
  EXPECT_EQ(data.at(0).line, 2);
  EXPECT_EQ(data.at(1).line, 5);
  EXPECT_EQ(data.at(2).line, 6);
  EXPECT_FALSE(data.at(0).typed);
}

TEST_F(Records, CsvWithoutHeaderNumbersItsColumns) {
  ReadOptions options;
  options.header = false;
  EXPECT_EQ(dump(open("a.csv", "x,1\ny,2\n", options), 0), R"({"0":"x","1":"1"})");
}

TEST_F(Records, CsvFaultsAreNamedWithLineAndColumn) {
  EXPECT_EQ(open_error("a.csv", "a,b\n1,2\n3,\"x\n\n"),
            "a.csv:3:3: a quote is opened here and never closed");
  EXPECT_EQ(
      open_error("a.csv", "a,b\n1,\"x\ny\"z\n").find("a.csv:3:3: text after a closing quote; "),
      0u);
  EXPECT_EQ(open_error("a.csv", "a,\"b\n").find("a.csv:1:3: a quote is opened"), 0u);
  EXPECT_EQ(open_error("a.csv", "a,b,a\n1,2,3\n"),
            "a.csv:1: the header names column \"a\" twice; expected unique names");
  EXPECT_EQ(open_error("a.csv", "\n\n"),
            "a.csv: the file has only blank lines; expected at least one record");
  EXPECT_EQ(open_error("a.csv", "a,b\n"),
            "a.csv: no records found reading it as csv; expected at least one");
  EXPECT_EQ(row_error(open("a.csv", "a,b\n1,2\n1,2,3\n"), 1),
            "a.csv:3: 3 fields, expected 2 (a, b)");
}

TEST_F(Records, CsvSkippingGoesOnAfterAFault) {
  ReadOptions options;
  options.skip_bad_rows = true;
  const Dataset data = open("a.csv", "a,b\n1,\"x\"y\n2\n3,4\n5,\"6\n7,8\n", options);
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(dump(data, 0), R"({"a":"3","b":"4"})");
  EXPECT_EQ(dump(data, 1), R"({"a":"7","b":"8"})");
  EXPECT_EQ(data.bad_rows().size(), 3u);
}

TEST_F(Records, CsvWithSemicolonsIsRead) {
  EXPECT_EQ(dump(open("a.csv", "text;label\nx, y;1\n"), 0), R"({"text":"x, y","label":"1"})");
}

TEST_F(Records, TsvIsQuotedWhenItsQuotesBalance) {
  const Dataset data = open("a.tsv", "a\tb\n\"x\ty\"\t\"1\n2\"\n");
  EXPECT_EQ(dump(data, 0), R"({"a":"x\ty","b":"1\n2"})");
}

TEST_F(Records, TsvFallsBackToNoQuotingAsGlueNeeds) {
  // Text after a closing quote; a quote never closed; a quote closed lines later.
  for (const std::string text :
       {"a\tb\n\"He\" said\t1\nx\t0\n", "a\tb\n\"He said\t1\nx\t0\n", "a\tb\n\"He\t1\nx\"\t0\n"}) {
    const Dataset data = open("a.tsv", text);
    ASSERT_EQ(data.size(), 2) << text;
    EXPECT_EQ(data.at(0).value["a"].get<std::string>().substr(0, 3), "\"He") << text;
    EXPECT_EQ(data.at(0).value["b"].get<std::string>(), "1") << text;
  }
}

TEST_F(Records, ConllColumnsGiveTokensAndTags) {
  const Dataset data = open("a.conll",
                            "-DOCSTART- -X- O O\n\n# id = 1\nEU NNP I-NP B-ORG\n# # O O\n\n\n"
                            "Peter NNP I-NP B-PER\nBlackburn NNP I-NP I-PER\n");
  EXPECT_EQ(data.format_name(), "conll");
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(dump(data, 0), R"({"tokens":["EU","#"],"tags":["B-ORG","O"]})");
  EXPECT_EQ(dump(data, 1), R"({"tokens":["Peter","Blackburn"],"tags":["B-PER","I-PER"]})");
  EXPECT_EQ(data.at(0).line, 4);
  EXPECT_EQ(data.at(1).line, 8);
}

TEST_F(Records, HashTokenAtTheStartOfASentenceIsNoComment) {
  EXPECT_EQ(dump(open("a.conll", "x O\n\n# O\ntag B-X\n"), 1),
            R"({"tokens":["#","tag"],"tags":["O","B-X"]})");
}

TEST_F(Records, Iob1IsConvertedToIob2AndLogged) {
  std::string logged;
  set_log_sink([&](LogLevel, const std::string& text) { logged += text; });
  const Dataset data = open("a.conll", "a I-PER\nb I-PER\nc B-PER\nd I-LOC\ne O\n\nf I-PER\n");
  set_log_sink({});
  EXPECT_NE(logged.find("a.conll: tags are IOB1; converted to IOB2"), std::string::npos);
  EXPECT_EQ(data.at(0).value["tags"].dump(), R"(["B-PER","I-PER","B-PER","B-LOC","O"])");
  EXPECT_EQ(data.at(1).value["tags"].dump(), R"(["B-PER"])");
}

TEST_F(Records, Iob2WithStrayInsideTagsIsLeftAlone) {
  const Dataset data = open("a.conll", "a I-PER\nb O\nc B-PER\n");
  EXPECT_EQ(data.at(0).value["tags"].dump(), R"(["I-PER","O","B-PER"])");
}

TEST_F(Records, ConllUGivesFormsAndUniversalTags) {
  const std::string rest = "\t_\t_\t0\troot\t_\t_\n";
  const Dataset data =
      open("a.conllu", "# text = au chat\n1-2\tau\t_\t_" + rest + "1\t\xC3\xA0\tlem\tADP" + rest +
                           "2\tle\tle\tDET" + rest + "2.1\tx\tx\tX" + rest + "\n");
  EXPECT_EQ(dump(data, 0), "{\"tokens\":[\"\xC3\xA0\",\"le\"],\"tags\":[\"ADP\",\"DET\"]}");
}

TEST_F(Records, ConllLineWithMissingColumnIsNamed) {
  const Dataset data = open("a.conll", "a O\nb\n\nc\tx O\n");
  EXPECT_EQ(row_error(data, 0),
            "a.conll:2: 1 columns, expected 2 separated by spaces (token first, tag last)");
  EXPECT_EQ(row_error(open("a.conll", "a\tO\n\tO\n"), 0), "a.conll:2: the token is empty");
}

TEST_F(Records, FormatWithoutTellingNameComesFromTheContent) {
  EXPECT_EQ(open("x", "{\"a\": 1}\n{\"a\": 2}\n").format_name(), "jsonl");
  EXPECT_EQ(open("x", "\n[{\"a\": 1}]").format_name(), "json");
  EXPECT_EQ(open("x", "{\n\"d\": [{\"a\": 1}]}").format_name(), "json");
  EXPECT_EQ(open("x", "a\tb\n1\t2\n").format_name(), "tsv");
  EXPECT_EQ(open("x", "text,label\nx,y\n").format_name(), "csv");
  EXPECT_EQ(open("x", "Once, there was\na line, and another\n").format_name(), "text");
  EXPECT_EQ(open("x.txt", "a O\nb B-PER\n\nc O\n").format_name(), "conll");
  EXPECT_EQ(open("x.txt", "a,b\n1,2\n").format_name(), "text");
}

TEST_F(Records, PlainTextKeepsEveryLine) {
  const Dataset data = open("x.txt", "one\n\n three \r\n");
  ASSERT_EQ(data.size(), 3);
  EXPECT_EQ(dump(data, 1), R"({"text":""})");
  EXPECT_EQ(dump(data, 2), R"({"text":" three "})");
}

TEST_F(Records, FormatNamesRoundTripAndUnknownOnesAreNamed) {
  for (const Format format :
       {Format::Jsonl, Format::JsonArray, Format::Csv, Format::Tsv, Format::Conll, Format::Text})
    EXPECT_EQ(format_from_name(format_name(format), "here"), format);
  EXPECT_FALSE(format_from_name("auto", "here").has_value());
  EXPECT_EQ(
      error_text(folder_, ErrorCode::BadInput, [] { format_from_name("cvs", "recipe.yaml:3:5"); }),
      "recipe.yaml:3:5: unknown data format \"cvs\"; expected one of auto, jsonl, json, csv, tsv, "
      "conll, text");
}

TEST_F(Records, InvalidUtf8IsNamedWithOffsetAndLine) {
  // 23 bytes before the bad one.
  EXPECT_EQ(open_error("a.jsonl", "{\"t\":\"gr\xC3\xBC\xC3\x9F\"}\n{\"t\":\"gr\xFC\xDF\"}\n")
                .find("a.jsonl:2: invalid UTF-8 at byte offset 23 (byte 0xFC); expected UTF-8"),
            0u);
  EXPECT_EQ(open_error("a.txt",
                       "\xEF\xBB\xBF"
                       "abc\xE2\x82")
                .find("a.txt:1: invalid UTF-8 at byte offset 6"),
            0u);
}

TEST_F(Records, InvalidUtf8InAHeaderIsAnErrorEvenWhenRowsAreSkipped) {
  ReadOptions options;
  options.skip_bad_rows = true;
  EXPECT_EQ(open_error("a.csv", "a,\xFC\n1,2\n", options)
                .find("a.csv:1: invalid UTF-8 at byte offset 2 "),
            0u);
}

TEST_F(Records, FingerprintIsTheHashOfTheContent) {
  const std::string text = "{\"a\":1}\n";
  const Dataset data = open("a.jsonl", text);
  EXPECT_EQ(data.fingerprint(), sha256_hex(text));
  const std::string path = folder_.file("a.jsonl");
  EXPECT_EQ(Dataset::open(std::vector<std::string>{path, path}).fingerprint(),
            sha256_hex(sha256_hex(text) + sha256_hex(text)));
}

TEST_F(Records, NoFileNamedIsAnError) {
  EXPECT_EQ(
      error_text(folder_, ErrorCode::BadInput, [] { Dataset::open(std::vector<std::string>{}); }),
      "reading data: no file is named; expected at least one");
}

TEST_F(Records, ThreadsReadTheSameRecords) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "{\"i\":" + std::to_string(i) + "}\n";
  const Dataset data = open("a.jsonl", text);
  std::vector<std::thread> threads;
  std::vector<int64_t> sums(4, 0);
  for (size_t t = 0; t < sums.size(); ++t)
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < data.size(); ++i) sums[t] += data.at(i).value["i"].get<int64_t>();
      data.fingerprint();
    });
  for (std::thread& thread : threads) thread.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 1999000);
}

TEST_F(Records, EveryPrefixOfAFileIsReadOrRefused) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"a.jsonl", "{\"a\":\"\xC3\xBC\"}\n{\"b\":[1,{\"c\":null}]}\n"},
      {"a.json", "{\"v\":1,\"data\":[{\"a\":\"x\\\"\"},{\"b\":[1]}]}"},
      {"a.csv", "a,b\r\n\"x\"\"y\",2\r\n3,\"4\n5\"\r\n"},
      {"a.tsv", "a\tb\n\"x\"\t2\n3\t\"4\n5\"\n"},
      {"a.conll", "# c\n-DOCSTART- O\n\na\tI-X\nb\tB-X\n\nc\tO\n"}};
  for (const std::pair<std::string, std::string>& file : files)
    for (size_t bytes = 0; bytes < file.second.size(); ++bytes)
      for (const bool skip : {false, true}) {
        ReadOptions options;
        options.skip_bad_rows = skip;
        try {
          const Dataset data = open(file.first, file.second.substr(0, bytes), options);
          for (int64_t i = 0; i < data.size(); ++i) data.at(i);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::BadInput)
              << file.first << " " << bytes << error.what();
        }
      }
}

}  // namespace records_test
}  // namespace attune
