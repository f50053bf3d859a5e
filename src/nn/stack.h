#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/block.h"
#include "nn/embedding.h"

namespace attune {

/// One stack: front end, blocks, final norm.
class Stack {
 public:
  /// Adds its sites. shared: the token table it uses too, or -1; result: the name of the site of
  /// its last rows.
  Stack(const StackSpec& spec, int shared, const std::string& result, const SiteMaker& sites);
  const StackSpec& spec() const { return spec_; }
  int tokens() const { return embedding_.tokens(); }
  /// The stack's part of a pass, up to the last block. memory: rows of the stack before, for cross
  /// attention. With a cache, ids are those of new rows. read: the rows that are read behind the
  /// stack (StackPass::read), or empty: all.
  Tensor blocks(const std::shared_ptr<Forward>& pass, const Stream& stream, const Tensor& memory,
                const std::string& memory_stream, std::function<Tensor(const Forward&)> read) const;
  /// The final norm, and the site of the result.
  Tensor result(Forward& pass, const Tensor& x) const;

 private:
  /// One block, keeping only its input where the model's numerics ask for that.
  Tensor run(const Block& block, const std::shared_ptr<Forward>& pass, StackPass& shared,
             const Tensor& x) const;
  Tensor biases(Forward& pass) const;
  void place(Forward& pass, const Stream& stream) const;
  /// Notes in the cache where each sequence goes on.
  void remember(Forward& pass, Cache& cache, const Stream& stream) const;

  StackSpec spec_;
  Embedding embedding_;
  int bias_ = -1, final_norm_ = -1, result_ = -1;
  std::vector<Block> blocks_;
  Tensor buckets_;  // of every distance, for the relative biases
};

}  // namespace attune
