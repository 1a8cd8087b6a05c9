// The loss and its gradient by logit, for rows of logits on the processor: one read, one exponential
// and one write for each logit, in pieces that stay in the cache.
//
// The definitions are those of softhot/core/row.py: all statistics are taken of z - max z, classes
// whose logit is -inf have no mass and no gradient, and log(sum exp) is log1p of the sum without the
// maximum's own 1, so that the loss of a confident row keeps its digits. Rules are unknown here: what
// arrives is a share `alpha` of the target that goes to a prior, and what penalties add to the
// coefficients of the statistics. Whatever is not finite, out of range or not supported ends the call
// with a status, and the caller turns to the reference, which names the culprit; unless the call is
// LENIENT with logits: then a row that is not finite has loss and gradient NaN, one whose true class
// is missing has loss inf, and the other rows go on.
//
// This file is compiled once for each instruction set (see hatch_build.py), with SOFTHOT_ENTRY as the
// name of its one entry; the one compiled for any processor also tells what the running one supports.
//
// Threads are those of the OpenMP library that the caller's framework runs on, through a pointer to
// its GOMP_parallel; which thread takes which rows changes no bit of the result.

#include "simd.h"

#define PASS __attribute__((noinline))  // a loop with all registers to itself

namespace {

enum { FLOAT32, BFLOAT16, FLOAT16 };
enum { NONE, SUM, MEAN };
enum {
  HAS_IGNORE = 1,
  PRIOR_BY_CLASS = 2,
  PRIOR_BY_ROW = 4,
  WEIGHT_BY_CLASS = 8,
  NO_MASKED = 16,
  LENIENT = 32,
  INT32_LABELS = 64
};
enum { DONE, BAD_LABEL, BAD_LOGIT, UNSUPPORTED, NO_MEMORY };

typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);

struct Call {
  const void* logits;      // (n, k), rows `stride` apart
  void* gradient;          // (n, k) contiguous, may be the logits; null: the loss only
  float* loss;             // (n) for NONE, else one
  double* normalizer;      // of MEAN: what the loss was divided by; or null
  const void* labels;      // (n) int64, or int32 for INT32_LABELS
  const uint8_t* counted;  // (n) or null: whether a row counts
  const float* alpha;      // (n) or null: share
  const float* prior;      // (k), or rows of k by class or by row; null: uniform
  const float* weight;     // (k) or null: class weights
  const float* scale;      // (n) or null: factor of each row's gradient
  Parallel parallel;       // GOMP_parallel or null
  int64_t n, k, stride, ignore;
  double share;                         // of the target that goes to the prior
  double lse, mean, largest, expected;  // what penalties add to the coefficients
  int32_t dtype, reduction, threads, flags;

  int64_t label(int64_t row) const {
    return flags & INT32_LABELS ? ((const int32_t*)labels)[row] : ((const int64_t*)labels)[row];
  }
};

// Rows up to SEGMENT are taken W at a time; a longer one is cut into segments that are about as long,
// and these are taken W at a time.
enum { TINY = 16, SEGMENT = 2048, STACK = 4096, MAX_CHUNKS = 1024 };
// A gradient of more bytes than the last cache is likely to hold is written past it.
enum { PAST_CACHES = 32 << 20 };

struct Job {
  const Call* call;
  double normalizer;
  int64_t rows, chunks;  // rows of a chunk; how many chunks
  int64_t next;          // the chunk to take
  int status;
  bool general, past_caches;
  double sums[MAX_CHUNKS];  // the loss of each chunk, added up in order at the end
};

// Up to W rows or segments of equal width.
template <class T>
struct Block {
  const T* z;
  int64_t stride;
  const T* end;  // of all logits
  int rows, width;
  Last last;
  int vectors() const { return (width + W - 1) / W; }
};

// The statistics of a block, a row in each lane; of less than W rows the other lanes are neutral.
struct Lanes {
  Floats peak, total, rest, sum, count, prior, mass, weighted, expected;
};

// The same of one row, before the lanes are added up.
struct Spread {
  Floats total, sum, count, prior, mass, weighted, expected;
};

struct Prior {
  const float *u, *w;  // null for ones
  INLINE Floats prior(int k) const { return u ? load(u + k) : all(1); }
  INLINE Floats weight(int k) const { return w ? load(w + k) : all(1); }
  INLINE Floats prior(int k, Last last) const { return u ? load(u + k, last, u + k + last.n) : all(1); }
  INLINE Floats weight(int k, Last last) const { return w ? load(w + k, last, w + k + last.n) : all(1); }
};

// ---------------------------------------------------------------- passes over rows

template <class T>
PASS void peaks(const Block<T>& b, Floats* spread) {
  const int full = b.vectors() - 1;
  const Last last = b.last;
  for (int r = 0; r < b.rows; r++) {
    const T* z = b.z + r * b.stride;
    Floats peak = select(last.mask, load(z + full * W, last, b.end), all(-INFINITY)), other = peak;
    int v = 0;
    for (; v + 1 < full; v += 2) {
      peak = larger(load(z + v * W), peak);
      other = larger(load(z + v * W + W), other);
    }
    if (v < full) peak = larger(load(z + v * W), peak);
    spread[r] = larger(peak, other);
  }
}

// exp(z - peak), padded with zeros to whole vectors, its sum, and the sum of z - peak.
template <class T>
PASS void exponentials(const Block<T>& b, const float* peak, float* exps, Floats* totals, Floats* sums) {
  const int full = b.vectors() - 1;
  const Last last = b.last;
  const int64_t ahead = b.rows * b.stride;
  for (int r = 0; r < b.rows; r++, exps += (full + 1) * W) {
    const T* z = b.z + r * b.stride;
    const Floats top = all(peak[r]);
    Floats sum = load(z + full * W, last, b.end) - top;
    Floats total = select(last.mask, exp_negative(sum), Floats{});
    sum = select(last.mask, sum, Floats{});
    store(exps + full * W, total);
    for (int v = 0; v < full; v++) {
      __builtin_prefetch(z + v * W + ahead);
      const Floats d = load(z + v * W) - top, e = exp_negative(d);
      store(exps + v * W, e);
      total += e;
      sum += d;
    }
    totals[r] = total;
    sums[r] = sum;
  }
}

// Gradients e * by_exp + constant.
template <class T>
PASS void write(const Block<T>& b, const float* exps, T* gradient, int64_t stride, const float* by_exp,
                const float* constant, bool past_caches) {
  const int full = b.vectors() - 1;
  const Last last = b.last;
  for (int r = 0; r < b.rows; r++, exps += (full + 1) * W) {
    T* g = gradient + r * stride;
    const Floats f = all(by_exp[r]), c = all(constant[r]);
    if (past_caches) {
      // Up to where vectors are aligned, then past the caches.
      const int head = (int)(-(uintptr_t)g % (W * sizeof(T)) / sizeof(T)), end = b.width - W;
      if (head) store(g, fma(load(exps), f, c), Last(head));
      int k = head;
      for (; k <= end; k += W) stream(g + k, fma(load(exps + k), f, c));
      if (k < b.width) store(g + k, fma(load(exps + k), f, c), Last(b.width - k));
      continue;
    }
    for (int v = 0; v < full; v++) store(g + v * W, fma(load(exps + v * W), f, c));
    store(g + full * W, fma(load(exps + full * W), f, c), last);
  }
}

// The sum of what is below 1: all exponentials but the maximum's own.
template <class T>
PASS void below_one(const Block<T>& b, const float* e, Floats* rests) {
  for (int r = 0; r < b.rows; r++) {
    Floats rest{};
    for (int v = 0; v < b.vectors(); v++, e += W) rest += load(e) < 1.0f ? load(e) : Floats{};
    rests[r] = rest;
  }
}

// The two passes over one row where classes may be missing, or a prior, class weights or <p, z> enter.
INLINE void general_step(Floats z, Ints in, Floats u, Floats w, float peak, float* out, Spread& s) {
  const Ints valid = in & (z != -INFINITY);
  const Floats d = valid ? z - peak : Floats{}, e = valid ? exp_negative(d) : Floats{};
  store(out, e);
  u = valid ? u : Floats{};
  s.total += e;
  s.sum += d;
  s.count += valid ? all(1) : Floats{};
  s.mass += u;
  s.weighted += u * w;
  s.prior = fma(u * w, d, s.prior);
  s.expected = fma(e, d, s.expected);
}

template <class T>
PASS void general_exponentials(const Block<T>& b, int r, float peak, Prior p, float* out, Spread& spread) {
  const T* z = b.z + r * b.stride;
  const int full = (b.vectors() - 1) * W;
  Spread s = {};
  if (peak == -INFINITY) peak = 0;  // no class of this segment is allowed
  for (int k = 0; k < full; k += W) general_step(load(z + k), ~Ints{}, p.prior(k), p.weight(k), peak, out + k, s);
  general_step(load(z + full, b.last, b.end), lanes_of(b.last.mask), p.prior(full, b.last), p.weight(full, b.last),
               peak, out + full, s);
  spread = s;
}

// How the exponentials e and d = z - max z of a row become its gradient:
// e (by_exp + by_exp_d d) + constant + by_prior u w.
struct Slopes {
  float by_exp, by_exp_d, constant, by_prior;
};

INLINE Floats general_slope(Floats e, Floats z, Floats u, Floats w, float peak, Slopes c) {
  const Ints valid = z != -INFINITY;
  const Floats d = valid ? z - peak : Floats{};
  const Floats by_exp = fma(d, all(c.by_exp_d), all(c.by_exp));
  const Floats g = fma(e, by_exp, fma(u * w, all(c.by_prior), all(c.constant)));
  return valid ? g : Floats{};
}

template <class T>
PASS void general_write(const Block<T>& b, int r, const float* e, T* g, float peak, Prior p, Slopes c) {
  const T* z = b.z + r * b.stride;
  const int full = (b.vectors() - 1) * W;
  for (int k = 0; k < full; k += W)
    store(g + k, general_slope(load(e + k), load(z + k), p.prior(k), p.weight(k), peak, c));
  const Floats u = p.prior(full, b.last), w = p.weight(full, b.last);
  store(g + full, general_slope(load(e + full), load(z + full, b.last, b.end), u, w, peak, c), b.last);
}

// ---------------------------------------------------------------- rows

template <class T>
struct Worker {
  Job& job;
  const Call& call;
  const int64_t n, k, segment;
  const T* const end;
  static constexpr bool FOURS = sizeof(T) == sizeof(float);  // rows are read four classes at a time
  float* exps = 0;         // the exponentials of the rows in hand
  Lanes lanes = {};        // their statistics
  Lanes* segments = 0;     // the statistics of a long row's segments
  Prior priors[W];
  Ints label = {}, counting = {};  // class ids; which rows count
  Floats true_logit = {};
  bool general[W], all_count, any_general;
  Ints bad = {};  // rows that count and whose loss is NaN
  alignas(64) float peak[W], true_z[W], alpha[W], on[W], scale[W], true_u[W];
  alignas(64) float loss[W], by_exp[W], by_exp_d[W], constant[W], by_prior[W], true_g[W], top_g[W];

  explicit Worker(Job& j)
      : job(j),
        call(*j.call),
        n(call.n),
        k(call.k),
        segment(even(k)),
        end((const T*)call.logits + (n - 1) * call.stride + k) {
    store(alpha, all((float)call.share));
    store(on, all(1));
    store(scale, all(1));
    store(true_u, all(1));
    for (int r = 0; r < W; r++) priors[r] = {0, 0};
  }

  // A row in about as few segments of whole vectors as there have to be, all of a length but the last
  // and W at a time: a short rest costs as much as W of them.
  static int64_t even(int64_t k) {
    const int64_t least = (k + SEGMENT - 1) / SEGMENT, count = least < W ? least : (least + W - 1) / W * W;
    return ((k + count - 1) / count + W - 1) / W * W;
  }

  Block<T> block(const T* z, int64_t stride, int rows, int width) const {
    return {z, stride, end, rows, width, Last(width)};
  }

  Prior prior_of(int64_t row) const {
    Prior p = {call.prior, call.flags & WEIGHT_BY_CLASS ? call.weight : 0};
    if (p.u && call.flags & PRIOR_BY_ROW) p.u += row * k;
    if (p.u && call.flags & PRIOR_BY_CLASS) p.u += call.label(row) * k;
    return p;
  }

  // What is known of rows before their logits are looked at.
  int read_rows(int64_t row, int rows) {
    const int64_t* y = (const int64_t*)call.labels + row;
    int64_t part[W] = {};
    if (rows < W || call.flags & INT32_LABELS) {
      for (int r = 0; r < rows; r++) part[r] = call.label(row + r);
      y = part;
    }
    const Longs whole = read<Longs>(y);
    const Ints low = __builtin_convertvector(whole, Ints), high = __builtin_convertvector(whole >> 32, Ints);
    Ints counts = lanes_of(first(rows));
    if (call.flags & HAS_IGNORE) counts &= ~((low == (int32_t)call.ignore) & (high == (int32_t)(call.ignore >> 32)));
    for (int r = 0; call.counted && r < rows; r++) counts[r] &= -(call.counted[row + r] != 0);
    if (any(counts & ~((high == 0) & (low >= 0) & (low < (int32_t)k)))) return BAD_LABEL;
    counting = counts;
    label = low & counts;
    all_count = !any(~counts & lanes_of(first(rows)));
    if (!call.alpha && !call.weight && !call.scale && !job.general) return DONE;
    for (int r = 0; r < rows; r++) {
      if (!counting[r]) continue;
      if (call.alpha) alpha[r] = call.alpha[row + r];
      if (call.weight) on[r] = call.weight[label[r]];
      if (call.scale) scale[r] = call.scale[row + r];
      if (!job.general) continue;
      const Prior p = priors[r] = prior_of(row + r);
      true_u[r] = (p.u ? p.u[label[r]] : 1) * (p.w ? p.w[label[r]] : 1);
    }
    return DONE;
  }

  void read_true(const T* z, int64_t stride, int rows) {
    for (int r = 0; r < rows; r++) true_z[r] = load_one(z + r * stride + label[r]);
    true_logit = load(true_z);
  }

  // Exponentials and statistics of a block; what rows that don't count hold may be anything.
  void measure(const Block<T>& b, float* out) {
    const int rows = b.rows;
    Floats spread[W], sums[W];
    for (int r = rows; r < W; r++) spread[r] = all(-INFINITY);
    peaks(b, spread);
    lanes.peak = reduce_each<Max>(spread);
    store(peak, lanes.peak);

    any_general = job.general;
    for (int r = rows; r < W; r++) spread[r] = sums[r] = Floats{};
    if (!job.general) {
      exponentials(b, peak, out, spread, sums);
      lanes.total = reduce_each<Sum>(spread);
      lanes.sum = lanes.prior = reduce_each<Sum>(sums);
      lanes.count = lanes.mass = lanes.weighted = select(first(rows), all((float)b.width), Floats{});
      lanes.expected = Floats{};
      any_general = any(~(lanes.sum > -INFINITY));
    }
    if (any_general) measure_general(b, out, spread, sums);
    lanes.rest = lanes.total - 1.0f;
    const Ints confident = lanes.total < 1.5f;
    if (any(confident)) {
      below_one(b, out, spread);
      lanes.rest = confident ? reduce_each<Sum>(spread) : lanes.rest;
    }
  }

  PASS void measure_general(const Block<T>& b, float* out, const Floats* totals, const Floats* sums) {
    Spread s[W] = {};
    for (int r = 0; r < b.rows; r++) {
      general[r] = counting[r] && (job.general || !(lanes.sum[r] > -INFINITY));
      if (general[r]) {
        general_exponentials(b, r, peak[r], priors[r], out + r * b.vectors() * W, s[r]);
      } else if (!job.general) {
        const Floats width = Floats{(float)b.width};
        s[r] = {totals[r], sums[r], width, sums[r], width, width, Floats{}};
      }
    }
    Floats Spread::*from[] = {&Spread::total, &Spread::sum,      &Spread::count,   &Spread::prior,
                              &Spread::mass,  &Spread::weighted, &Spread::expected};
    Floats Lanes::*to[] = {&Lanes::total, &Lanes::sum,      &Lanes::count,   &Lanes::prior,
                           &Lanes::mass,  &Lanes::weighted, &Lanes::expected};
    for (int j = 0; j < 7; j++) {
      Floats v[W];
      for (int r = 0; r < W; r++) v[r] = s[r].*from[j];
      lanes.*to[j] = reduce_each<Sum>(v);
    }
  }

  // From statistics to loss and slopes.
  int finish() {
    const Lanes& s = lanes;
    const bool by_class = call.flags & WEIGHT_BY_CLASS, folded = !call.prior && !by_class;
    const Floats one = all(1), zero{}, penalty = all((float)call.lse);
    const Floats c = all((float)call.expected), mean = all((float)call.mean);
    const Floats a = load(alpha), weight = load(on), z_y = true_logit;

    // Anything but finite sums of rows that count: the reference says what is wrong.
    const Ints fine = (s.sum > -INFINITY) & (s.sum <= 0.0f) & (s.count > 0.0f), there = z_y > -INFINITY;
    if (any(counting & ~(fine & there)) && !(call.flags & LENIENT)) return BAD_LOGIT;
    bad = counting & ~fine;
    const Ints masked = fine & (s.count < (float)k);
    const Ints empty = ~(s.mass > 0.0f) & (a != 0.0f);
    if (any(counting & masked) && (any(counting & masked & empty) || call.flags & NO_MASKED)) return UNSUPPORTED;

    const Floats share = one / (1.0f + s.rest), lse = log1p_positive(s.rest, share);
    const Floats by_count = any(s.count != (float)k) ? one / s.count : all(1.0f / (float)k);
    const Floats entropy_z = s.expected * share;  // <p, z - max z>
    // A prior counts as given, but for rows that miss classes: over the others it sums to 1.
    const Floats norm = call.prior ? (masked ? one / s.mass : one) : by_count;
    const Floats mass_u = by_class ? s.weighted * norm : one;
    const Floats on_true = by_class ? weight : one, on_row = by_class ? one : weight;
    const Floats keep = (1.0f - a) * on_true, d_y = there ? z_y - s.peak : all(-INFINITY);
    const Floats d_there = there ? d_y : zero;
    const Floats by_lse = fma(a, mass_u, keep) + penalty;

    Floats value = fma(by_lse, lse, -keep * d_there) - a * norm * s.prior;
    value += mean * s.sum * by_count + c * entropy_z;
    value = bad ? all(NAN) : there ? value : all(INFINITY);
    store(loss, counting ? value * on_row : zero);

    const Floats size = on_row * load(scale) * (float)(1 / job.normalizer);
    const Floats spread = c * (1.0f - entropy_z);
    const Floats flat = size * mean * by_count, to_prior = -size * a * norm;
    const Floats level = folded ? flat + to_prior : flat, mixed = folded ? zero : to_prior;
    const Floats slope = by_lse + spread;
    store(by_exp, size * share * slope);
    store(by_exp_d, size * share * c);
    store(constant, level);
    store(by_prior, mixed);
    store(top_g, size * (float)call.largest);
    // Where the true class is the maximum, 1 - p_y is a sum of small terms: don't subtract from 1.
    const Floats usual = exp_negative(d_y) * share * fma(c, d_there, slope) - keep;
    const Floats at_peak = fma(a, mass_u, penalty) + spread - s.rest * share * slope;
    store(true_g, fma(size, d_y == 0.0f ? at_peak : usual, fma(mixed, load(true_u), level)));
    return DONE;
  }

  // The entries that the passes leave out: the true class, and the first maximum if it has a slope.
  void write_singles(int64_t row, int rows) const {
    T* g = (T*)call.gradient + row * k;
    for (int r = 0; r < rows; r++, g += k) {
      if (bad[r])
        for (int64_t i = 0; i < k; i++) store_one(g + i, NAN);
      else if (all_count || counting[r])
        store_one(g + label[r], true_g[r]);
      else
        memset((void*)g, 0, k * sizeof(T));
    }
  }

  // In a pass before the gradient is written: it may overwrite the logits.
  int64_t first_peak(const T* z, int64_t from, float top) const {
    while (from + W <= k && !any(load(z + from) == top)) from += W;
    while (load_one(z + from) != top) from++;
    return from;
  }

  void write_top(int64_t row, int r, int64_t top) const {
    const Prior p = priors[r];
    const float u = (p.u ? p.u[top] : 1) * (p.w ? p.w[top] : 1);
    const float usual = top == label[r] ? true_g[r] : by_exp[r] + constant[r] + by_prior[r] * u;
    store_one((T*)call.gradient + row * k + top, usual + top_g[r]);
  }

  int short_rows(int64_t row, int rows) {
    if (int status = read_rows(row, rows)) return status;
    const Block<T> b = block((const T*)call.logits + row * call.stride, call.stride, rows, (int)k);
    read_true(b.z, b.stride, rows);
    measure(b, exps);
    if (int status = finish()) return status;
    if (!call.gradient) return DONE;
    T* g = (T*)call.gradient + row * k;
    int64_t top[W];
    for (int r = 0; call.largest != 0 && r < rows; r++)
      top[r] = !counting[r] || bad[r] ? 0 : first_peak(b.z + r * b.stride, 0, peak[r]);
    if (any_general) {
      for (int r = 0; r < rows; r++) {
        const float* e = exps + r * b.vectors() * W;
        if (general[r])
          general_write(b, r, e, g + r * k, peak[r], priors[r], slopes(r));
        else if (counting[r])
          write(block(b.z, 0, 1, (int)k), e, g + r * k, 0, by_exp + r, constant + r, false);
      }
    } else {
      write(b, exps, g, k, by_exp, constant, false);
    }
    write_singles(row, rows);
    for (int r = 0; call.largest != 0 && r < rows; r++)
      if (counting[r] && !bad[r]) write_top(row + r, r, top[r]);
    return DONE;
  }

  // Rows of up to TINY classes, transposed in registers: a class in each vector, a row in each lane.
  int tiny_rows(int64_t row, int rows) {
    if (int status = read_rows(row, rows)) return status;
    const int classes = (int)k;
    const T* z = (const T*)call.logits + row * call.stride;
    Floats v[TINY], e[TINY];
    const bool in_fours = FOURS && rows == W && z + (W - 1) * call.stride + (classes + 3) / 4 * 4 <= end;
    for (int c = 0; in_fours && c < classes; c += 4) four_classes(z + c, call.stride, v + c);
    for (int c = 0; !in_fours && c < classes; c += W) {
      const Last last(classes - c < W ? classes - c : W);
      for (int r = 0; r < W; r++) v[c + r] = load(z + (r < rows ? r : 0) * call.stride + c, last, end);
      transpose(v + c);
    }
    lanes.peak = v[0];
    true_logit = v[0];
    for (int c = 1; c < classes; c++) {
      lanes.peak = larger(v[c], lanes.peak);
      true_logit = label == c ? v[c] : true_logit;
    }
    Floats total{}, rest{}, sum{};
    for (int c = 0; c < classes; c++) {
      const Floats d = v[c] - lanes.peak;
      e[c] = exp_negative(d);
      total += e[c];
      rest += e[c] < 1.0f ? e[c] : Floats{};
      sum += d;
    }
    if (any(counting & ~(sum > -INFINITY))) return short_rows(row, rows);
    lanes.total = total, lanes.rest = total < 1.5f ? rest : total - 1.0f;
    lanes.sum = lanes.prior = sum;
    lanes.count = lanes.mass = lanes.weighted = all((float)classes);
    lanes.expected = Floats{};
    if (int status = finish()) return status;
    if (!call.gradient) return DONE;
    const Floats f = load(by_exp), b = load(constant), at_true = load(true_g);
    for (int c = 0; c < classes; c++) {
      e[c] = label == c ? at_true : fma(e[c], f, b);
    }
    for (int c = 0; !all_count && c < classes; c++) e[c] = counting ? e[c] : Floats{};
    for (int c = 0; c < classes; c += W) transpose(e + c);
    T* g = (T*)call.gradient + row * k;
    const T* stop = g + rows * k;
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < classes; c += W) {
        T* out = g + r * k + c;
        if (!MASKED_STORES && out + W <= stop)
          store(out, e[c + r]);  // the rows that follow write over what is beyond this one
        else
          store(out, e[c + r], Last(classes - c < W ? classes - c : W));
      }
    return DONE;
  }

  Slopes slopes(int r) const { return {by_exp[r], by_exp_d[r], constant[r], by_prior[r]}; }

  // One row in segments: each gets a maximum of its own, and is brought to the common one.
  int long_row(int64_t row) {
    if (int status = read_rows(row, 1)) return status;
    T* g = (T*)call.gradient + row * k;
    if (!counting[0]) {
      if (call.gradient) memset((void*)g, 0, k * sizeof(T));
      store(loss, Floats{});
      return DONE;
    }
    const T* z = (const T*)call.logits + row * call.stride;
    read_true(z, 0, 1);
    const int groups = (int)((k / segment + W - 1) / W) + (k % segment != 0);
    bool row_general = job.general;
    Floats top = all(-INFINITY);
    for (int i = 0; i < groups; i++) {
      set_priors(row, i);
      counting = ~Ints{};
      measure(segment_block(z, i), exps + start(i));
      segments[i] = lanes;
      row_general |= any_general;
      top = larger(top, lanes.peak);
    }
    const float peak_of_row = reduce<Max>(top);
    if (!(peak_of_row > -INFINITY && peak_of_row < INFINITY) && !(call.flags & LENIENT)) return BAD_LOGIT;
    counting = lanes_of(first(1));
    const int64_t at_top = combine(groups, peak_of_row);
    if (int status = finish()) return status;
    if (!call.gradient) return DONE;
    if (bad[0]) {
      write_singles(row, 1);
      return DONE;
    }
    const int64_t first_top = call.largest != 0 ? first_peak(z, at_top, peak_of_row) : 0;
    const Slopes whole = slopes(0);
    const float singles[2] = {true_g[0], top_g[0]};
    for (int i = 0; i < groups; i++) {
      const Block<T> b = segment_block(z, i);
      const float* e = exps + start(i);
      alignas(64) float factor[W];
      store(factor, segments[i].total);
      set_priors(row, i);
      for (int r = 0; r < b.rows; r++) {
        by_exp[r] = whole.by_exp * factor[r], by_exp_d[r] = whole.by_exp_d * factor[r];
        constant[r] = whole.constant, by_prior[r] = whole.by_prior;
        T* out = g + start(i) + r * segment;
        if (row_general) general_write(b, r, e + r * segment, out, peak_of_row, priors[r], slopes(r));
      }
      if (!row_general) write(b, e, g + start(i), segment, by_exp, constant, job.past_caches);
    }
    true_g[0] = singles[0], top_g[0] = singles[1], by_exp[0] = whole.by_exp;
    priors[0] = prior_of(row);
    write_singles(row, 1);
    if (call.largest != 0) write_top(row, 0, first_top);
    return DONE;
  }

  int64_t start(int group) const {
    const int64_t whole = k / segment, first = (int64_t)group * W;
    return (first < whole ? first : whole) * segment;
  }

  Block<T> segment_block(const T* z, int group) const {
    const int64_t from = start(group), whole = (k - from) / segment;
    if (whole == 0) return block(z + from, k - from, 1, (int)(k - from));
    return block(z + from, segment, whole < W ? (int)whole : (int)W, (int)segment);
  }

  void set_priors(int64_t row, int group) {
    for (int r = 0; job.general && r < W; r++) {
      priors[r] = prior_of(row);
      if (priors[r].u) priors[r].u += start(group) + r * segment;
      if (priors[r].w) priors[r].w += start(group) + r * segment;
    }
  }

  // The statistics of a whole row from those of its segments, whose totals become the factors that
  // bring their exponentials to the row's maximum; and where the first segment that has it starts.
  int64_t combine(int groups, float top) {
    double total = 0, rest = -1, sum = 0, count = 0, prior = 0, mass = 0, weighted = 0, expected = 0;
    int64_t at_top = -1;
    for (int i = 0; i < groups; i++) {
      Lanes& s = segments[i];
      const Floats factor = exp_negative(s.peak - top), gap = s.peak > -INFINITY ? s.peak - top : Floats{};
      for (int r = 0; r < W; r++) {
        const bool is_top = s.peak[r] == top;
        if (is_top && at_top < 0) at_top = start(i) + r * segment;
        total += (double)factor[r] * s.total[r];
        rest += is_top ? 1.0 + s.rest[r] : (double)factor[r] * s.total[r];
        sum += s.sum[r] + (double)s.count[r] * gap[r];
        count += s.count[r];
        prior += s.prior[r] + (double)s.weighted[r] * gap[r];
        mass += s.mass[r];
        weighted += s.weighted[r];
        expected += factor[r] * (s.expected[r] + (double)s.total[r] * gap[r]);
      }
      s.total = factor;
    }
    lanes = {all(top),          all((float)total), all((float)rest),     all((float)sum),     all((float)count),
             all((float)prior), all((float)mass),  all((float)weighted), all((float)expected)};
    return at_top;
  }

  int chunk(int64_t index) {
    const int64_t begin = index * job.rows, limit = begin + job.rows < n ? begin + job.rows : n;
    const int step = k > SEGMENT ? 1 : W;
    const bool tiny = k <= TINY && !job.general && call.largest == 0;
    Doubles sum{};
    for (int64_t row = begin; row < limit; row += step) {
      const int rows = limit - row < step ? (int)(limit - row) : step;
      const int status = k > SEGMENT ? long_row(row) : tiny ? tiny_rows(row, rows) : short_rows(row, rows);
      if (status) return status;
      sum += __builtin_convertvector(load(loss), Doubles);
      if (call.reduction == NONE) memcpy(call.loss + row, loss, rows * sizeof(float));
    }
    double all_rows = 0;
    for (int r = 0; r < W; r++) all_rows += sum[r];
    job.sums[index] = all_rows;
    return DONE;
  }

  void run() {
    alignas(64) float small[STACK];
    const int64_t padded = (k + W - 1) / W * W, groups = k / segment / W + 2;
    const int64_t need = k > SEGMENT ? padded * 4 + groups * sizeof(Lanes) : padded * W * 4;
    void* block = 0;
    if (need > (int64_t)sizeof small && posix_memalign(&block, 64, need)) return;  // others do the work
    exps = block ? (float*)block : small;
    segments = (Lanes*)(exps + padded);
    for (;;) {
      const int64_t index = __atomic_fetch_add(&job.next, 1, __ATOMIC_RELAXED);
      if (index >= job.chunks || __atomic_load_n(&job.status, __ATOMIC_RELAXED)) break;
      if (int status = chunk(index)) __atomic_store_n(&job.status, status, __ATOMIC_RELAXED);
    }
#if defined(__x86_64__)
    if (job.past_caches) _mm_sfence();
#endif
    free(block);
  }
};

template <class T>
void work(void* job) {
  Worker<T>(*(Job*)job).run();
}

// Whether a label of a row that counts is out of range, before the logits are overwritten.
bool bad_label(const Call& call) {
  for (int64_t i = 0; i < call.n; i++) {
    const int64_t y = call.label(i);
    const bool counts = !(call.flags & HAS_IGNORE && y == call.ignore) && (!call.counted || call.counted[i]);
    if (counts && (uint64_t)y >= (uint64_t)call.k) return true;
  }
  return false;
}

// The summed weights of the rows that count, 1 if there are none; a wrong label is found later.
double normalizer(const Call& call) {
  if (call.reduction != MEAN) return 1;
  const bool ignores = call.flags & HAS_IGNORE;
  if (!call.weight && !call.counted) {
    int64_t rows = call.n;
    for (int64_t i = 0; ignores && i < call.n; i++) rows -= call.label(i) == call.ignore;
    return rows ? (double)rows : 1;
  }
  double sum = 0;
  for (int64_t i = 0; i < call.n; i++) {
    const int64_t y = call.label(i);
    if ((ignores && y == call.ignore) || (call.counted && !call.counted[i])) continue;
    sum += !call.weight ? 1 : (uint64_t)y < (uint64_t)call.k ? call.weight[y] : 0;
  }
  return sum > 0 ? sum : 1;
}

int run(const Call& call) {
  if (call.gradient == call.logits && bad_label(call)) return BAD_LABEL;
  Job job;
  job.call = &call;
  job.normalizer = normalizer(call);
  if (call.normalizer) *call.normalizer = job.normalizer;
  const bool is_long = call.k > SEGMENT;
  // Long rows that follow each other are fetched ahead; a thread has some of them, all have enough.
  const int64_t step = is_long ? 1 : W, few = 262144 / call.k, fair = call.n / 64;
  const int64_t wanted = !is_long ? 32768 / call.k : few < fair ? few : fair;
  const int64_t least = (call.n + MAX_CHUNKS - 1) / MAX_CHUNKS;
  const int64_t rows = wanted > least ? wanted : least;
  job.rows = (rows > step ? rows + step - 1 : step) / step * step;
  job.chunks = (call.n + job.rows - 1) / job.rows;
  job.next = 0;
  job.status = DONE;
  job.general = call.prior || call.flags & WEIGHT_BY_CLASS || call.expected != 0;
  const int64_t bytes = call.n * call.k * (call.dtype == FLOAT32 ? 4 : 2);
  job.past_caches = call.gradient != call.logits && call.k > SEGMENT && bytes > PAST_CACHES;
  void (*const body)(void*) = call.dtype == FLOAT32 ? work<float> : call.dtype == BFLOAT16 ? work<Brain> : work<Half>;
  const int64_t threads = call.threads < job.chunks ? call.threads : job.chunks;
  if (call.parallel && threads > 1)
    call.parallel(body, &job, (unsigned)threads, 0);
  else
    body(&job);
  if (job.next < job.chunks && job.status == DONE) return NO_MEMORY;
  if (job.status == DONE && call.reduction != NONE) {
    double sum = 0;
    for (int64_t i = 0; i < job.chunks; i++) sum += job.sums[i];
    *call.loss = (float)(sum / job.normalizer);
  }
  return job.status;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int SOFTHOT_ENTRY(const void* call) {
  return run(*(const Call*)call);
}

#if defined(SOFTHOT_XLA)
#include "xla.h"

extern "C" __attribute__((visibility("default"))) void* SOFTHOT_XLA(void* frame) {
  return xla::handle((xla::Frame*)frame);
}
#endif

#if defined(SOFTHOT_VERSION)
extern "C" __attribute__((visibility("default"))) int softhot_version() { return SOFTHOT_VERSION; }

// Whether the running processor has what an instruction set's code was compiled for.
extern "C" __attribute__((visibility("default"))) int softhot_supports(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!strcmp(name, "avx2")) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!strcmp(name, "avx512")) return avx512;
  if (!strcmp(name, "avx512bf16")) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return !strcmp(name, "baseline");
}
#endif
