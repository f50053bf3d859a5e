#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/low_rank.h"  // the types of its kernels, for declare.inl

/// What the per-instruction-set files may call: plain functions compiled once with portable flags.
/// Those files must not use inline code of the standard library that could leave the linker with
/// one copy built for an instruction set this CPU lacks.
namespace attune::kernels::detail {

/// A 64-byte aligned buffer of this thread that lives until the next request for the same slot
/// (contents undefined). Slot 0 is for a call's own thread, slot 1 for the body of a parallel
/// region, slot 2 for gemm and for what a call keeps beside slot 0.
void* thread_scratch(int slot, size_t bytes);

/// 64-byte aligned memory for one call, contents undefined, from where lend_memory says: for what
/// is too large to stay between calls.
class Borrowed {
 public:
  explicit Borrowed(size_t bytes);
  ~Borrowed();
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
};

/// Runs piece(body, begin, end) over all of [0, count) on every thread. Each begins with a part of
/// its own, the same in every loop over the same rows, so that it finds in its caches what it left
/// there; then it takes from the ends of parts that are not finished: a processor that another
/// guest slows, or that clocks down, does less, where equal parts would make the others wait. What
/// is taken at once is half of what is left of an own part, `grain` at least; `grain` of another's.
using Piece = void (*)(const void* body, int64_t begin, int64_t end);
void share_out(int64_t count, int64_t grain, Piece piece, const void* body);

template <class Body>
static void share_out(int64_t count, int64_t grain, const Body& body) {
  const Piece piece = [](const void* x, int64_t begin, int64_t end) {
    (*static_cast<const Body*>(x))(begin, end);
  };
  share_out(count, grain, piece, &body);
}

template <class Body>
static void share_out_each(int64_t count, int64_t grain, const Body& body) {
  share_out(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

/// Rows of `cols` numbers that are worth handing out as one piece.
static inline int64_t rows_a_piece(int64_t cols) {
  return 8192 / (cols + 1) + 1;
}

template <class T>
static T* scratch(int slot, int64_t count) {
  return static_cast<T*>(thread_scratch(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace attune::kernels::detail
