// Draws for dropout; included inside attune::kernels::<set> after the vector type.
namespace {

/// Philox4x32-10 on Wide::kLanes counters {block, site, stream, 0} with keys (k0, k1): 8 draws
/// each.
inline void philox_lanes(Wide block, Wide k0, Wide k1, uint32_t site, uint32_t stream,
                         uint16_t* draws) {
  Wide c0 = block, c1 = Wide::set(site), c2 = Wide::set(stream), c3 = Wide::set(0);
  for (int round = 0; round < 10; ++round) {
    const Wide a = Wide::times(c0, 0xD2511F53), b = Wide::times(c2, 0xCD9E8D57);
    c0 = Wide::exclusive(Wide::high(b), c1, k0);
    c1 = b;
    c2 = Wide::exclusive(Wide::high(a), c3, k1);
    c3 = a;
    k0 = Wide::add(k0, 0x9E3779B9);
    k1 = Wide::add(k1, 0xBB67AE85);
  }
  Wide::store(c0, c1, c2, c3, draws);
}

/// Room for the draws of `count` columns or lanes of eight: whole vectors.
inline int64_t draw_room(int64_t cols) {
  return (cols + 127) / 128 * 128;
}

/// The 16-bit draws of one row's columns 0 .. cols - 1 (rounded up).
inline void draw_row(const Dropout& drop, int64_t row, uint32_t stream, int64_t cols,
                     uint16_t* draws) {
  static constexpr uint64_t kOrder[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  const Wide k0 = Wide::set(drop.row_keys[row]), k1 = Wide::set(drop.row_keys[row] >> 32);
  Wide block = Wide::load(kOrder);
  for (int64_t c = 0; c < cols; c += 8 * Wide::kLanes) {
    philox_lanes(block, k0, k1, drop.site, stream, draws + c);
    block = Wide::add(block, Wide::kLanes);
  }
}

/// Draws of rows [row, row + rows), blocks [first, first + blocks) of eight columns each, dense
/// [rows][8 * blocks]. Short rows share vectors, which is why this is not a loop over draw_row.
inline void draw_rows(const Dropout& drop, int64_t row, int64_t rows, uint32_t stream,
                      int64_t first, int64_t blocks, uint16_t* draws) {
  const int64_t lanes = rows * blocks;
  int64_t r = 0, b = 0;
  for (int64_t lane = 0; lane < lanes; lane += Wide::kLanes) {
    uint64_t block[Wide::kLanes], keys[Wide::kLanes];
    for (int i = 0; i < Wide::kLanes; ++i) {
      block[i] = static_cast<uint64_t>(first + b);
      keys[i] = drop.row_keys[row + r];
      if (++b < blocks) continue;
      b = 0;
      if (r + 1 < rows) ++r;  // lanes past the end repeat the last row: never read
    }
    const Wide k0 = Wide::load(keys);
    philox_lanes(Wide::load(block), k0, Wide::high(k0), drop.site, stream, draws + lane * 8);
  }
}

inline uint32_t drop_threshold(const Dropout& drop) {
  return static_cast<uint32_t>(static_cast<double>(drop.p) * 65536.0 + 0.5);
}
inline double drop_scale(const Dropout& drop) {
  return drop.p < 1 ? 1.0 / (1.0 - static_cast<double>(drop.p)) : 0.0;
}

}  // namespace
