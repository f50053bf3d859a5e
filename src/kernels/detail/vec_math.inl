// exp, tanh and the normal distribution for the vector types; included inside the namespace of an
// instruction set after struct Vec. Maximum errors, checked by tests: exp and exp2 2 ulp, tanh 2e-7,
// normal 3e-7 absolute.

/// exp(x); 0 far below -87, infinity above 88.7, NaN for NaN.
inline Vec Vec::exp(Vec x) {
  // Where scale() rounds to 0 and infinity by itself, wide bounds suffice; else the ends are put in
  // by hand.
  const float bound_low = Vec::kScaleSaturates ? -200.0f : -87.33654f;
  const float bound_high = Vec::kScaleSaturates ? 200.0f : 88.72283f;
  const Vec clamped = Vec::max(Vec::set(bound_low), Vec::min(Vec::set(bound_high), x));
  const Vec n = Vec::round(clamped * Vec::set(1.44269504088896341f));
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), clamped);
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.0f / 720);
  p = Vec::fma(p, r, Vec::set(1.0f / 120));
  p = Vec::fma(p, r, Vec::set(1.0f / 24));
  p = Vec::fma(p, r, Vec::set(1.0f / 6));
  p = Vec::fma(p, r, Vec::set(0.5f));
  p = Vec::fma(p, r * r, r) + Vec::set(1.0f);
  const Vec y = Vec::scale(p, n);
  if constexpr (Vec::kScaleSaturates) return y;
  const Vec low = Vec::select(Vec::less(x, Vec::set(bound_low)), Vec::zero(), y);
  return Vec::select(Vec::less(Vec::set(bound_high), x), Vec::set(__builtin_inff()), low);
}

/// 2^x for x <= 127; 0 far below -126, NaN for NaN.
inline Vec Vec::exp2(Vec x) {
  const float low = Vec::kScaleSaturates ? -200.0f : -126.0f;
  const Vec clamped = Vec::max(Vec::set(low), x);
  const Vec n = Vec::round(clamped), r = clamped - n;
  // Of the least relative error on [-0.5, 0.5] (9.2e-8) with 2^0 = 1.
  Vec p = Vec::set(0.0013264727f);
  p = Vec::fma(p, r, Vec::set(0.009671513f));
  p = Vec::fma(p, r, Vec::set(0.055507336f));
  p = Vec::fma(p, r, Vec::set(0.24022242f));
  p = Vec::fma(p, r, Vec::set(0.693147f));
  p = Vec::fma(p, r, Vec::set(1.0f));
  const Vec y = Vec::scale(p, n);
  if constexpr (Vec::kScaleSaturates) return y;
  return Vec::select(Vec::less(x, Vec::set(low)), Vec::zero(), y);
}

/// Natural logarithm; -infinity for 0 (subnormals count as 0), NaN for NaN. Negative arguments do
/// not occur.
inline Vec Vec::log(Vec x) {
  const Mask none = Vec::less(x, Vec::set(1.17549435e-38f));
  Vec m = Vec::mantissa(x), e = Vec::exponent(x);
  const Mask upper =
      Vec::less(Vec::set(1.41421356f), m);  // keep the argument of the series around 0
  m = Vec::select(upper, m * Vec::set(0.5f), m);
  e = Vec::select(upper, e + Vec::set(1.0f), e);
  // log(m) = 2 atanh(t), t = (m - 1) / (m + 1), |t| < 0.172.
  const Vec t = (m - Vec::set(1.0f)) / (m + Vec::set(1.0f)), t2 = t * t;
  Vec p = Vec::set(2.0f / 9);
  p = Vec::fma(p, t2, Vec::set(2.0f / 7));
  p = Vec::fma(p, t2, Vec::set(2.0f / 5));
  p = Vec::fma(p, t2, Vec::set(2.0f / 3));
  const Vec series = Vec::fma(p * t2, t, t + t);
  const Vec y = Vec::fma(e, Vec::set(0.693359375f), Vec::fma(e, Vec::set(-2.12194440e-4f), series));
  const Vec known = Vec::select(none, Vec::set(-__builtin_inff()), y);
  return Vec::select(
      Vec::both(Vec::less(x, Vec::set(__builtin_inff())), Vec::less(Vec::set(-1.0f), x)), known, x);
}

inline Vec Vec::tanh(Vec x) {
  // 1 - 2 / (exp(2x) + 1) loses digits near 0, where the odd polynomial is used.
  const Vec x2 = x * x;
  const Vec big = Vec::set(1.0f) - Vec::set(2.0f) / (Vec::exp(x + x) + Vec::set(1.0f));
  Vec p = Vec::set(-17.0f / 315);
  p = Vec::fma(p, x2, Vec::set(2.0f / 15));
  p = Vec::fma(p, x2, Vec::set(-1.0f / 3));
  const Vec small = Vec::fma(p * x2, x, x);
  return Vec::select(Vec::less(x2, Vec::set(0.04f)), small, big);
}

/// Phi(-a) = exp(-a^2 / 2) g(1 / (1 + 0.33 a)) for a >= 0, g a fitted polynomial (error of a Phi(a)
/// below 2e-9).
inline Vec Vec::normal(Vec x, Vec* density) {
  // Beyond 20 nothing changes in float; finite values suit reciprocal(). NaN passes through both.
  const Vec a = Vec::min(Vec::set(20.0f), Vec::max(Vec::zero() - x, x));
  const Vec e = Vec::exp(a * a * Vec::set(-0.5f));
  const Vec t = Vec::reciprocal(Vec::fma(a, Vec::set(0.33f), Vec::set(1.0f)));
  Vec p = Vec::set(0.04557449842734638f);
  p = Vec::fma(p, t, Vec::set(-0.22063584245351912f));
  p = Vec::fma(p, t, Vec::set(0.33116977088210753f));
  p = Vec::fma(p, t, Vec::set(-0.0890587892854762f));
  p = Vec::fma(p, t, Vec::set(0.18079859246131705f));
  p = Vec::fma(p, t, Vec::set(0.11954960125098621f));
  p = Vec::fma(p, t, Vec::set(0.1326021742080284f));
  const Vec tail = e * (p * t);
  *density = e * Vec::set(0.39894228040143268f);
  return Vec::select(Vec::less(x, Vec::zero()), tail, Vec::set(1.0f) - tail);
}
