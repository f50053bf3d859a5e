#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace attune::kernels::ref {
namespace {

/// One lane with the interface of the vector types; its mathematics is that of the C library, so
/// the reference shares no approximation with the vector code.
template <class S>
struct Lane {
  using Scalar = S;
  using Mask = bool;
  static constexpr int kWidth = 1, kTileCols = 4, kTileRows = 3, kPairRows = 4, kSingleRows = 4;
  S v;

  static Lane set(double x) { return {static_cast<S>(x)}; }
  static Lane splat(S x) { return {x}; }
  static Lane zero() { return {S(0)}; }
  static Lane index() { return zero(); }
  static Lane load(const float* p) { return {static_cast<S>(*p)}; }
  static Lane load(const double* p) { return {static_cast<S>(*p)}; }
  static Lane load(const bf16* p) {
    const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return {static_cast<S>(x)};
  }
  template <class T>
  static Lane load(const T* p, int) {
    return load(p);
  }
  void store(float* p) const { *p = static_cast<float>(v); }
  void store(double* p) const { *p = v; }
  void store(bf16* p) const {
    const float x = static_cast<float>(v);
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    // Rounding could carry a NaN's payload into infinity: quieten it instead.
    p->bits = static_cast<uint16_t>(x != x ? (bits >> 16) | 0x40
                                           : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
  template <class T>
  void store(T* p, int) const {
    store(p);
  }

  friend Lane operator+(Lane a, Lane b) { return {a.v + b.v}; }
  friend Lane operator-(Lane a, Lane b) { return {a.v - b.v}; }
  friend Lane operator*(Lane a, Lane b) { return {a.v * b.v}; }
  friend Lane operator/(Lane a, Lane b) { return {a.v / b.v}; }
  static Lane fma(Lane a, Lane b, Lane c) { return {a.v * b.v + c.v}; }
  static Lane max(Lane a, Lane b) { return a.v > b.v ? a : b; }
  static Lane min(Lane a, Lane b) { return a.v < b.v ? a : b; }
  static Mask less(Lane a, Lane b) { return a.v < b.v; }
  static Mask both(Mask a, Mask b) { return a && b; }
  static Lane select(Mask m, Lane a, Lane b) { return m ? a : b; }
  static Lane sqrt(Lane a) { return {std::sqrt(a.v)}; }
  static S sum(Lane a) { return a.v; }
  static Lane sums(const Lane (&x)[1]) { return x[0]; }
  static S maximum(Lane a) { return a.v; }
  /// x where the 16-bit draws reach the threshold, else 0.
  static Lane keep(const uint16_t* draws, uint32_t threshold, Lane x) {
    return *draws >= threshold ? x : zero();
  }
  static Lane keep_bytes(const uint8_t* flags, int, Lane yes, Lane no) {
    return *flags != 0 ? yes : no;
  }

  static Lane exp(Lane x) { return {std::exp(x.v)}; }
  static Lane exp2(Lane x) { return {std::exp2(x.v)}; }
  static Lane log(Lane x) { return {std::log(x.v)}; }
  static Lane tanh(Lane x) { return {std::tanh(x.v)}; }
  static constexpr bool kTables = false;
  /// Standard normal distribution function; `density` gets its derivative.
  static Lane normal(Lane x, Lane* density) {
    *density = {std::exp(S(-0.5) * x.v * x.v) * S(0.39894228040143267794)};
    return {S(0.5) * std::erfc(-x.v * S(0.70710678118654752440))};
  }
  static void transpose(const S* from, int64_t, S* to, int64_t) { *to = *from; }
};

/// One Philox word in the low half of 64 bits; the high half is rubbish that no operation reads.
struct Wide {
  static constexpr int kLanes = 1;
  uint64_t v;
  static Wide set(uint64_t x) { return {x}; }
  static Wide load(const uint64_t* p) { return {*p}; }
  static Wide add(Wide a, uint32_t b) { return {a.v + b}; }
  static Wide times(Wide a, uint32_t b) { return {(a.v & 0xffffffff) * b}; }
  static Wide high(Wide a) { return {a.v >> 32}; }
  static Wide exclusive(Wide a, Wide b, Wide c) { return {a.v ^ b.v ^ c.v}; }
  static void store(Wide w0, Wide w1, Wide w2, Wide w3, uint16_t* draws) {
    const uint32_t words[4] = {static_cast<uint32_t>(w0.v), static_cast<uint32_t>(w1.v),
                               static_cast<uint32_t>(w2.v), static_cast<uint32_t>(w3.v)};
    std::memcpy(draws, words, 16);
  }
};

template <class T>
using vec_for = Lane<acc_t<T>>;

}  // namespace
}  // namespace attune::kernels::ref
