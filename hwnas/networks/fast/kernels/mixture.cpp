// Kernels for a supernet's mixtures on a CPU. Images are channels last; a thread works on one image at a time, so that
// intermediate values stay in its cache. Sums over a batch are computed image by image in a fixed order.
//
// Names: n images, p pixels, c channels; a "row" of a tensor is one pixel's channels; rows may be further apart than
// they are long (slices of wider tensors). S is the type of the arithmetic, T that of the stored values.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>
#include <omp.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;
#endif

struct bf16 {
    uint16_t bits;
};

template <class S> struct Lanes {
    typedef S type __attribute__((vector_size(BYTES)));
    static constexpr int count = BYTES / sizeof(S);
};
template <> struct Lanes<bf16> {}; // no arithmetic in bf16
template <class S> using Vec = typename Lanes<S>::type;
template <class T> struct Arithmetic {
    using type = T;
};
template <> struct Arithmetic<bf16> {
    using type = float;
};
template <class T> using Of = typename Arithmetic<T>::type;

// A whole vector of channels, or one channel at the end.
struct Wide {};
struct Single {};

template <class S> inline Vec<S> nil(Wide) { return Vec<S>{}; }
template <class S> inline S nil(Single) { return 0; }
template <class S> inline Vec<S> get(Wide, const S *p) {
    Vec<S> v;
    std::memcpy(&v, p, BYTES);
    return v;
}
template <class S> inline void put(Wide, S *p, Vec<S> v) { std::memcpy(p, &v, BYTES); }
template <class S> inline S get(Single, const S *p) { return *p; }
template <class S> inline void put(Single, S *p, S v) { *p = v; }

typedef uint16_t Halves __attribute__((vector_size(BYTES / 2)));
typedef uint32_t Words __attribute__((vector_size(BYTES)));

// __builtin_convertvector takes three times as long.
inline Words widened(Halves h) {
#if defined(__AVX512F__)
    return (Words)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined(__AVX2__)
    return (Words)_mm256_cvtepu16_epi32((__m128i)h);
#else
    return __builtin_convertvector(h, Words);
#endif
}
inline Halves narrowed(Words w) { // w below 2^16
#if defined(__AVX512F__)
    return (Halves)_mm512_cvtepi32_epi16((__m512i)w);
#elif defined(__AVX2__)
    return (Halves)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)w), _mm256_extracti128_si256((__m256i)w, 1));
#else
    return __builtin_convertvector(w, Halves);
#endif
}

inline Vec<float> get(Wide, const bf16 *p) {
    Halves h;
    std::memcpy(&h, p, sizeof h);
    Words w = widened(h) << 16;
    Vec<float> v;
    std::memcpy(&v, &w, BYTES);
    return v;
}
inline void put(Wide, bf16 *p, Vec<float> v) { // to nearest, ties to even
    Words w;
    std::memcpy(&w, &v, BYTES);
    w = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
    Halves h = narrowed(w);
    std::memcpy(p, &h, sizeof h);
}
inline float get(Single, const bf16 *p) {
    uint32_t w = uint32_t(p->bits) << 16;
    float v;
    std::memcpy(&v, &w, 4);
    return v;
}
inline void put(Single, bf16 *p, float v) {
    uint32_t w;
    std::memcpy(&w, &v, 4);
    p->bits = uint16_t((w + 0x7fff + ((w >> 16) & 1)) >> 16);
}

// Functions in the innermost loops must be inlined, or they read their sizes from memory for every pixel.
#define INLINE inline __attribute__((always_inline))

template <class S, class F> INLINE void over(long channels, F &&f) {
    constexpr long L = Lanes<S>::count;
    long c = 0;
    for (; c + L <= channels; c += L) f(Wide{}, c);
    for (; c < channels; ++c) f(Single{}, c);
}

// f(0) + f(1) + … in four chains that a processor runs in parallel.
template <class S, class W, class F> INLINE auto sum_of(W w, long count, F &&f) {
    auto a = nil<S>(w), b = a, c = a, d = a;
    long p = 0;
    for (; p + 4 <= count; p += 4) a += f(p), b += f(p + 1), c += f(p + 2), d += f(p + 3);
    for (; p < count; ++p) a += f(p);
    return (a + b) + (c + d);
}

template <class S> long padded(long channels) {
    constexpr long L = Lanes<S>::count;
    return (channels + L - 1) / L * L;
}

// Memory of a thread, reused from call to call: fresh pages cost more than the sums in them.
enum Slot { PARTS, SHARES, IMAGE, MIDDLE, OUT, TAPS, TURNED, SLOPE, INNER, SLOTS };

template <class S> S *scratch(Slot slot, long count) {
    static thread_local struct {
        void *memory;
        long bytes;
    } kept[SLOTS];
    auto &mine = kept[slot];
    long bytes = count * sizeof(S);
    if (mine.bytes < bytes) {
        ::operator delete(mine.memory, std::align_val_t(64));
        mine.memory = ::operator new(bytes, std::align_val_t(64));
        mine.bytes = bytes;
    }
    return static_cast<S *>(mine.memory);
}

template <class S> S *zeros(Slot slot, long count) {
    S *p = scratch<S>(slot, count);
    std::memset(static_cast<void *>(p), 0, count * sizeof(S));
    return p;
}

// ---- Matrix products of a cached image ----------------------------------------------------------------------------

template <class S, int NB, int RP>
inline void product_tile(const S *a, long as, long k, const S *m, long ms, S *out, long os) {
    constexpr long L = Lanes<S>::count;
    Vec<S> acc[RP][NB];
    for (int r = 0; r < RP; ++r)
        for (int b = 0; b < NB; ++b) acc[r][b] = Vec<S>{};
    for (long i = 0; i < k; ++i) {
        Vec<S> row[NB];
        for (int b = 0; b < NB; ++b) row[b] = get(Wide{}, m + i * ms + b * L);
        for (int r = 0; r < RP; ++r)
            for (int b = 0; b < NB; ++b) acc[r][b] += a[r * as + i] * row[b];
    }
    for (int r = 0; r < RP; ++r)
        for (int b = 0; b < NB; ++b) put(Wide{}, out + r * os + b * L, acc[r][b]);
}

// out [rows, n] = a [rows, k] times m [k, n]; n is a multiple of the lanes.
template <class S> void product(const S *a, long as, long rows, long k, const S *m, long ms, long n, S *out, long os) {
    constexpr long L = Lanes<S>::count;
    for (long c = 0; c < n;) {
        long r = 0;
        if (c + 2 * L <= n) {
            for (; r + 8 <= rows; r += 8) product_tile<S, 2, 8>(a + r * as, as, k, m + c, ms, out + r * os + c, os);
            for (; r < rows; ++r) product_tile<S, 2, 1>(a + r * as, as, k, m + c, ms, out + r * os + c, os);
            c += 2 * L;
        } else {
            for (; r + 8 <= rows; r += 8) product_tile<S, 1, 8>(a + r * as, as, k, m + c, ms, out + r * os + c, os);
            for (; r < rows; ++r) product_tile<S, 1, 1>(a + r * as, as, k, m + c, ms, out + r * os + c, os);
            c += L;
        }
    }
}

template <class S, int RC, int NB>
inline void outer_tile(const S *a, long as, const S *b, long bs, long rows, S *out, long os) {
    constexpr long L = Lanes<S>::count;
    Vec<S> acc[RC][NB];
    for (int i = 0; i < RC; ++i)
        for (int j = 0; j < NB; ++j) acc[i][j] = Vec<S>{};
    for (long r = 0; r < rows; ++r) {
        Vec<S> row[NB];
        for (int j = 0; j < NB; ++j) row[j] = get(Wide{}, b + r * bs + j * L);
        for (int i = 0; i < RC; ++i)
            for (int j = 0; j < NB; ++j) acc[i][j] += a[r * as + i] * row[j];
    }
    for (int i = 0; i < RC; ++i)
        for (int j = 0; j < NB; ++j) {
            S *p = out + i * os + j * L;
            put(Wide{}, p, get(Wide{}, p) + acc[i][j]);
        }
}

// out [ka, kb] += a [rows, ka] transposed times b [rows, kb]; kb is a multiple of the lanes.
template <class S>
void outer_product(const S *a, long as, long ka, const S *b, long bs, long kb, long rows, S *out, long os) {
    constexpr long L = Lanes<S>::count;
    for (long c = 0; c < kb;) {
        bool two = c + 2 * L <= kb;
        long i = 0;
        for (; i + 8 <= ka; i += 8) {
            if (two) outer_tile<S, 8, 2>(a + i, as, b + c, bs, rows, out + i * os + c, os);
            else outer_tile<S, 8, 1>(a + i, as, b + c, bs, rows, out + i * os + c, os);
        }
        for (; i < ka; ++i) {
            if (two) outer_tile<S, 1, 2>(a + i, as, b + c, bs, rows, out + i * os + c, os);
            else outer_tile<S, 1, 1>(a + i, as, b + c, bs, rows, out + i * os + c, os);
        }
        c += two ? 2 * L : L;
    }
}

// ---- Depthwise convolution of a cached, padded image ----------------------------------------------------------------

template <class S, int K, int R>
inline void depthwise_tile(const S *in, long line, long cp, long stride, long dilation, const S *w, S *out) {
    Vec<S> acc[R];
    for (int r = 0; r < R; ++r) acc[r] = Vec<S>{};
    for (int i = 0; i < K; ++i)
        for (int j = 0; j < K; ++j) {
            Vec<S> tap = get(Wide{}, w + (i * K + j) * cp);
            const S *p = in + i * dilation * line + j * dilation * cp;
            for (int r = 0; r < R; ++r) acc[r] += tap * get(Wide{}, p + r * stride * cp);
        }
    for (int r = 0; r < R; ++r) put(Wide{}, out + r * cp, acc[r]);
}

// out [oh, ow, cp] from a padded image of ``line`` numbers a line; w [K * K, cp].
template <class S, int K>
void depthwise(const S *in, long line, long cp, long oh, long ow, long stride, long dilation, const S *w, S *out) {
    constexpr long L = Lanes<S>::count;
    for (long y = 0; y < oh; ++y)
        for (long c = 0; c < cp; c += L) {
            const S *p = in + y * stride * line + c;
            S *q = out + y * ow * cp + c;
            long x = 0;
            for (; x + 8 <= ow; x += 8)
                depthwise_tile<S, K, 8>(p + x * stride * cp, line, cp, stride, dilation, w + c, q + x * cp);
            for (; x < ow; ++x)
                depthwise_tile<S, K, 1>(p + x * stride * cp, line, cp, stride, dilation, w + c, q + x * cp);
        }
}

// w [K * K, cp] += the gradient of the taps; ``g`` [oh lines of gline numbers].
template <class S, int K>
void depthwise_taps(const S *in, long line, long cp, const S *g, long gline, long oh, long ow, long stride,
                    long dilation, S *w) {
    constexpr long L = Lanes<S>::count;
    for (long c = 0; c < cp; c += L) {
        Vec<S> acc[K * K];
        for (int t = 0; t < K * K; ++t) acc[t] = Vec<S>{};
        for (long y = 0; y < oh; ++y)
            for (long x = 0; x < ow; ++x) {
                Vec<S> v = get(Wide{}, g + y * gline + x * cp + c);
                const S *p = in + y * stride * line + x * stride * cp + c;
                for (int i = 0; i < K; ++i)
                    for (int j = 0; j < K; ++j)
                        acc[i * K + j] += v * get(Wide{}, p + i * dilation * line + j * dilation * cp);
            }
        for (int t = 0; t < K * K; ++t) put(Wide{}, w + t * cp + c, get(Wide{}, w + t * cp + c) + acc[t]);
    }
}

// in (padded, zeros before) += the gradient of the input, for strides above 1.
template <class S, int K>
void depthwise_scatter(S *in, long line, long cp, const S *g, long gline, long oh, long ow, long stride, long dilation,
                       const S *w) {
    constexpr long L = Lanes<S>::count;
    for (long y = 0; y < oh; ++y)
        for (long x = 0; x < ow; ++x)
            for (long c = 0; c < cp; c += L) {
                Vec<S> v = get(Wide{}, g + y * gline + x * cp + c);
                S *p = in + y * stride * line + x * stride * cp + c;
                for (int i = 0; i < K; ++i)
                    for (int j = 0; j < K; ++j) {
                        S *q = p + i * dilation * line + j * dilation * cp;
                        put(Wide{}, q, get(Wide{}, q) + v * get(Wide{}, w + (i * K + j) * cp + c));
                    }
            }
}

// ---- Batch statistics -----------------------------------------------------------------------------------------------

struct Norm { // a batch norm without learnable parameters, on a batch; running statistics may be absent
    void *mean, *rstd, *running_mean, *running_var;
    double eps, momentum;
};

// ``parts`` [n, 2, C]: the mean of each image, and the sum of squares about it.
template <class S> void finish(const S *parts, long n, long pixels, long channels, const Norm &norm) {
    S *mean = static_cast<S *>(norm.mean), *rstd = static_cast<S *>(norm.rstd);
    S *running_mean = static_cast<S *>(norm.running_mean), *running_var = static_cast<S *>(norm.running_var);
    for (long c = 0; c < channels; ++c) {
        double sum = 0, squares = 0;
        for (long i = 0; i < n; ++i) sum += parts[i * 2 * channels + c];
        double m = sum / n, count = double(n) * pixels;
        for (long i = 0; i < n; ++i) {
            double d = parts[i * 2 * channels + c] - m;
            squares += parts[(i * 2 + 1) * channels + c] + pixels * d * d;
        }
        mean[c] = S(m);
        rstd[c] = S(1 / std::sqrt(squares / count + norm.eps));
        if (running_mean) {
            running_mean[c] += S(norm.momentum * (m - running_mean[c]));
            running_var[c] += S(norm.momentum * (squares / (count - 1) - running_var[c]));
        }
    }
}

// One pass: sums and squares are about the mean of eight pixels, close enough to the image's own against rounding.
template <class T, class S> void image_statistics(const T *z, long zs, long pixels, long channels, S *part) {
    over<S>(channels, [=](auto w, long c) {
        constexpr int CHAINS = 4; // that a processor runs in parallel
        auto origin = nil<S>(w), sum = origin, squares = origin;
        const long apart = (pixels + 7) / 8, seen = (pixels + apart - 1) / apart;
        for (long p = 0; p < seen; ++p) origin += get(w, z + p * apart * zs + c) / S(seen);
        decltype(sum) sums[CHAINS] = {}, products[CHAINS] = {};
        long p = 0;
        for (; p + CHAINS <= pixels; p += CHAINS)
            for (int k = 0; k < CHAINS; ++k) {
                auto d = get(w, z + (p + k) * zs + c) - origin;
                sums[k] += d, products[k] += d * d;
            }
        for (; p < pixels; ++p) {
            auto d = get(w, z + p * zs + c) - origin;
            sum += d, squares += d * d;
        }
        for (int k = 0; k < CHAINS; ++k) sum += sums[k], squares += products[k];
        put(w, part + c, origin + sum / S(pixels));
        put(w, part + channels + c, squares - sum * sum / S(pixels));
    });
}

template <class T>
void statistics(const T *z, long zs, long n, long pixels, long channels, const Norm *norm, int threads) {
    using S = Of<T>;
    S *parts = scratch<S>(PARTS, n * 2 * channels);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < n; ++i) image_statistics(z + i * pixels * zs, zs, pixels, channels, parts + i * 2 * channels);
    finish(parts, n, pixels, channels, *norm);
}

// ---- Sums over terms ------------------------------------------------------------------------------------------------

constexpr int TOGETHER = 6; // terms that are read together

template <int K, class F> INLINE void last_group(long first, long left, F &&f) {
    if constexpr (K > 0) {
        if (left == K) f(first, std::integral_constant<int, K>{});
        else last_group<K - 1>(first, left, f);
    }
}

// f(first, how many) for groups of ``count`` terms; how many is known to the compiler.
template <class F> INLINE void in_groups(long count, F &&f) {
    long k = 0;
    for (; k + TOGETHER <= count; k += TOGETHER) f(k, std::integral_constant<int, TOGETHER>{});
    last_group<TOGETHER - 1>(k, count - k, f);
}

template <class T, class S> struct Summand { // an image and the weights of its channels
    const T *z;
    long step;
    const S *weight;
};

// total [pixels, C] = start(p, c) + the sum of the terms; start may read the old value of total.
template <class T, class S, class F>
void add_up(const std::vector<Summand<T, S>> &terms, long pixels, long channels, S *total, F &&start) {
    if (terms.empty())
        over<S>(channels, [&](auto w, long c) {
            for (long p = 0; p < pixels; ++p) put(w, total + p * channels + c, start(w, p, c));
        });
    in_groups(terms.size(), [&](long first, auto number) {
        constexpr int K = number.value;
        over<S>(channels, [&](auto w, long c) {
            decltype(nil<S>(w)) weight[K];
            const T *from[K];
            long step[K];
            for (int k = 0; k < K; ++k) {
                weight[k] = get(w, terms[first + k].weight + c);
                from[k] = terms[first + k].z + c;
                step[k] = terms[first + k].step;
            }
            for (long p = 0; p < pixels; ++p) {
                S *q = total + p * channels + c;
                auto sum = first ? get(w, q) : start(w, p, c);
                for (int k = 0; k < K; ++k) sum += weight[k] * get(w, from[k] + p * step[k]);
                put(w, q, sum);
            }
        });
    });
}

// The memory for sums: the output if it has the type of the arithmetic, else memory of the thread.
template <class T, class S> S *place_of_sums(T *stored, S *own) {
    if constexpr (std::is_same_v<T, S>) return stored;
    else return own;
}

template <class T, class S> void store(const S *sums, long count, T *out) {
    if constexpr (!std::is_same_v<T, S>)
        over<S>(count, [&](auto w, long c) { put(w, out + c, get(w, sums + c)); });
}

// ---- Average pooling of a cached image, 3x3 with a border of 1 that does not count ----------------------------------

template <class S> struct Averaging {
    long height, width, channels;
    const S *nothing; // a line of zeros
    S *share;         // [pixels]: one over the number of pixels in a mean

    Averaging(long height, long width, long channels)
        : height(height), width(width), channels(channels), nothing(zeros<S>(MIDDLE, width * channels)),
          share(scratch<S>(SHARES, height * width)) {
        auto seen = [](long at, long size) { return std::min(at + 2, size) - std::max(at - 1, 0L); };
        for (long y = 0; y < height; ++y)
            for (long x = 0; x < width; ++x) share[y * width + x] = S(1) / S(seen(y, height) * seen(x, width));
    }

    // use(p, the sum over the pixels about p) for all pixels, of one or a vector of channels.
    template <class W, class F> INLINE void sums(W w, const S *image, F &&use) const {
        const long height = this->height, width = this->width, step = channels, line = width * step;
        for (long y = 0; y < height; ++y) {
            const S *here = image + y * line, *above = y ? here - line : nothing;
            const S *below = y + 1 < height ? here + line : nothing;
            auto column = [=](long x) {
                return get(w, above + x * step) + get(w, here + x * step) + get(w, below + x * step);
            };
            auto left = nil<S>(w), middle = column(0);
            for (long x = 0; x + 1 < width; ++x) {
                auto right = column(x + 1);
                use(y * width + x, left + middle + right);
                left = middle, middle = right;
            }
            use(y * width + width - 1, left + middle);
        }
    }
};

// ---- The weighted sum -----------------------------------------------------------------------------------------------

// y = sum over k of factor[k][n] * (scale[k] * z[k] + shift[k]), for pooled terms scale[k] * mean(z[k]);
// missing factors are ones. The mean of a sum is the sum of the means, so all are pooled at once.
template <class T, class S>
void weighted_sum(long terms, const T *const *z, const long *zs, const S *const *factor, const long *pooled,
                  const S *scale, const S *shift, long n, long height, long width, long channels, T *y, int threads) {
    long pixels = height * width;
    bool pools = std::any_of(pooled, pooled + terms, [](long is) { return is; });
#pragma omp parallel num_threads(threads)
    {
        S *sums = scratch<S>(OUT, pixels * channels), *own = scratch<S>(TURNED, terms * channels);
        S *base = scratch<S>(TAPS, channels), *inner = scratch<S>(IMAGE, pools ? pixels * channels : 0);
        Averaging<S> mean(height, width, channels);
        std::vector<Summand<T, S>> straight, averaged;
#pragma omp for schedule(static)
        for (long i = 0; i < n; ++i) {
            straight.clear(), averaged.clear();
            std::fill(base, base + channels, S(0));
            for (long k = 0; k < terms; ++k) {
                S f = factor[k] ? factor[k][i] : S(1);
                for (long c = 0; c < channels; ++c) {
                    base[c] += f * shift[k * channels + c];
                    own[k * channels + c] = f * scale[k * channels + c];
                }
                (pooled[k] ? averaged : straight).push_back({z[k] + i * pixels * zs[k], zs[k], own + k * channels});
            }
            T *out = y + i * pixels * channels;
            S *total = place_of_sums(out, sums);
            add_up(straight, pixels, channels, total, [&](auto w, long, long c) { return get(w, base + c); });
            if (pools) {
                add_up(averaged, pixels, channels, inner, [](auto w, long, long) { return nil<S>(w); });
                over<S>(channels, [&](auto w, long c) {
                    mean.sums(w, inner + c, [&](long p, auto sum) {
                        long at = p * channels + c;
                        put(w, out + at, get(w, total + at) + mean.share[p] * sum);
                    });
                });
            } else {
                store(total, pixels * channels, out);
            }
        }
    }
}

// slope [k, 2, C]: the sums of factor * g, and of factor * g * (z[k] - mean[k]).
template <class T, class S>
void slopes(long terms, const T *const *z, const long *zs, const S *const *factor, const S *mean, const T *g, long gs,
            long n, long pixels, long channels, S *slope, int threads) {
    long size = (terms + 1) * channels;
    S *parts = scratch<S>(PARTS, n * size);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < n; ++i) {
        const T *own = g + i * pixels * gs;
        S *part = parts + i * size;
        over<S>(channels, [&](auto w, long c) {
            put(w, part + terms * channels + c,
                sum_of<S>(w, pixels, [&](long p) { return get(w, own + p * gs + c); }));
        });
        in_groups(terms, [&](long first, auto number) { // the gradient is read once for a group
            constexpr int K = number.value;
            over<S>(channels, [&](auto w, long c) {
                decltype(nil<S>(w)) sum[K], m[K];
                const T *from[K];
                long step[K];
                for (int k = 0; k < K; ++k) {
                    sum[k] = nil<S>(w);
                    m[k] = get(w, mean + (first + k) * channels + c);
                    from[k] = z[first + k] + i * pixels * zs[first + k] + c;
                    step[k] = zs[first + k];
                }
                for (long p = 0; p < pixels; ++p) {
                    auto slope = get(w, own + p * gs + c);
                    for (int k = 0; k < K; ++k) sum[k] += slope * (get(w, from[k] + p * step[k]) - m[k]);
                }
                for (int k = 0; k < K; ++k) put(w, part + (first + k) * channels + c, sum[k]);
            });
        });
    }
    for (long k = 0; k < terms; ++k)
        for (long c = 0; c < channels; ++c) {
            double first = 0, second = 0;
            for (long i = 0; i < n; ++i) {
                double f = factor[k] ? factor[k][i] : 1;
                first += f * parts[i * size + terms * channels + c];
                second += f * parts[i * size + k * channels + c];
            }
            slope[2 * k * channels + c] = S(first);
            slope[(2 * k + 1) * channels + c] = S(second);
        }
}

// The gradient before a norm, from that behind it: a * factor[n] * g + b * z + c, each of a, b, c [C].
template <class T, class S> struct Gradient {
    const T *g, *z;
    long gs, zs;
    const S *factor, *a, *b, *c;

    // use(p, its gradient) for all pixels of an image, of one or a vector of channels.
    template <class W, class F> INLINE void each(W w, long image, long pixels, long channel, F &&use) const {
        auto mine = get(w, a + channel) * (factor ? factor[image] : S(1));
        auto second = get(w, b + channel), third = get(w, c + channel);
        const long gstep = gs, zstep = zs;
        const T *slope = g + image * pixels * gstep + channel, *value = z + image * pixels * zstep + channel;
        for (long p = 0; p < pixels; ++p)
            use(p, mine * get(w, slope + p * gstep) + (second * get(w, value + p * zstep) + third));
    }
};

template <class T, class S>
void image_gradient(Gradient<T, S> from, long image, long pixels, long channels, T *out, bool add) {
    over<S>(channels, [=](auto w, long c) {
        T *start = out + c;
        if (add)
            from.each(w, image, pixels, c, [=](long p, auto value) {
                put(w, start + p * channels, get(w, start + p * channels) + value);
            });
        else from.each(w, image, pixels, c, [=](long p, auto value) { put(w, start + p * channels, value); });
    });
}

// out[k] = the gradient of term k, or += it; image by image, so that the common input stays in the cache.
template <class T, class S>
void gradients(long terms, const Gradient<T, S> *from, T *const *out, const long *add, long n, long pixels,
               long channels, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < n; ++i)
        for (long k = 0; k < terms; ++k)
            image_gradient(from[k], i, pixels, channels, out[k] + i * pixels * channels, add[k]);
}

// A tensor that is summed itself, or its means, or both, without a norm; the weights and factors of the two.
template <class T, class S> struct Plain {
    const T *x;
    T *gx;
    long xs, add, is[2];
    double weight[2];
    const S *factor[2];
};

// gx [pixels, C] = (or +=) weight[0] * g + weight[1] * back; part [2, C] = the sums of g * x and of back * x.
template <bool A, bool B, class T, class S>
void image_plain(const T *x, long xs, const T *g, long gs, const S *back, const S *weight, long pixels, long channels,
                 T *gx, bool add, S *part) {
    over<S>(channels, [=](auto w, long c) {
        auto first = nil<S>(w), second = first, a = first + weight[0], b = first + weight[1];
        for (long p = 0; p < pixels; ++p) {
            auto value = get(w, x + p * xs + c), total = nil<S>(w);
            T *q = gx + p * channels + c;
            if (add) total = get(w, q);
            if (A) {
                auto slope = get(w, g + p * gs + c);
                first += slope * value;
                total += a * slope;
            }
            if (B) {
                auto slope = get(w, back + p * channels + c);
                second += slope * value;
                total += b * slope;
            }
            put(w, q, total);
        }
        put(w, part + c, first);
        put(w, part + channels + c, second);
    });
}

// gx = (or +=) the gradients of x; dot [k, 2] = the sums of factor * g * x, and of factor * g * mean(x).
template <class T, class S>
void plain_gradients(long terms, const Plain<T, S> *from, const T *g, long gs, long n, long height, long width,
                     long channels, S *dot, int threads) {
    long pixels = height * width, size = 2 * terms * channels;
    bool pools = std::any_of(from, from + terms, [](const auto &term) { return term.is[1]; });
    S *parts = scratch<S>(PARTS, n * size);
#pragma omp parallel num_threads(threads)
    {
        long room = pools ? pixels * channels : 0;
        S *shared = scratch<S>(IMAGE, room), *back = scratch<S>(OUT, room);
        Averaging<S> mean(height, width, channels);
#pragma omp for schedule(static)
        for (long i = 0; i < n; ++i) {
            const T *own = g + i * pixels * gs;
            if (pools)
                over<S>(channels, [&](auto w, long c) {
                    for (long p = 0; p < pixels; ++p)
                        put(w, shared + p * channels + c, mean.share[p] * get(w, own + p * gs + c));
                    mean.sums(w, shared + c, [&](long p, auto sum) { put(w, back + p * channels + c, sum); });
                });
            for (long k = 0; k < terms; ++k) {
                const Plain<T, S> &term = from[k];
                const T *x = term.x + i * pixels * term.xs;
                T *gx = term.gx + i * pixels * channels;
                S *part = parts + i * size + 2 * k * channels, weight[2];
                for (int j = 0; j < 2; ++j) weight[j] = S(term.weight[j]) * (term.factor[j] ? term.factor[j][i] : S(1));
                auto both = [&](auto straight, auto averaged) {
                    constexpr bool A = straight.value, B = averaged.value;
                    image_plain<A, B>(x, term.xs, own, gs, back, weight, pixels, channels, gx, term.add, part);
                };
                if (!term.is[1]) both(std::true_type{}, std::false_type{});
                else if (term.is[0]) both(std::true_type{}, std::true_type{});
                else both(std::false_type{}, std::true_type{});
            }
        }
    }
    for (long k = 0; k < 2 * terms; ++k) {
        const S *factor = from[k / 2].factor[k % 2];
        double total = 0;
        for (long i = 0; i < n; ++i) {
            const S *part = parts + i * size + k * channels;
            for (long c = 0; c < channels; ++c) total += (factor ? factor[i] : 1) * double(part[c]);
        }
        dot[k] = S(total);
    }
}

// gx = the sum of the gradients of x and of its ReLU, ``terms`` in all, the latter last.
template <class T, class S>
void gather(long terms, const T *const *g, const long *gs, long rectified, const T *x, long xs, long n, long pixels,
            long channels, T *gx, int threads) {
#pragma omp parallel num_threads(threads)
    {
        S *sums = scratch<S>(OUT, pixels * channels), *ones = scratch<S>(TAPS, channels);
        std::fill(ones, ones + channels, S(1));
        std::vector<Summand<T, S>> straight, behind;
#pragma omp for schedule(static)
        for (long i = 0; i < n; ++i) {
            straight.clear(), behind.clear();
            for (long k = 0; k < terms; ++k)
                (k < terms - rectified ? straight : behind).push_back({g[k] + i * pixels * gs[k], gs[k], ones});
            T *out = gx + i * pixels * channels;
            const T *image = x + i * pixels * xs;
            S *total = place_of_sums(out, sums);
            if (rectified) add_up(behind, pixels, channels, total, [](auto w, long, long) { return nil<S>(w); });
            add_up(straight, pixels, channels, total, [&](auto w, long p, long c) {
                auto zero = nil<S>(w);
                if (!rectified) return zero;
                return get(w, image + p * xs + c) > zero ? get(w, total + p * channels + c) : zero;
            });
            store(total, pixels * channels, out);
        }
    }
}

// ---- ReLU, depthwise, pointwise -------------------------------------------------------------------------------------

struct Block { // kernel 0: no depthwise convolution
    long n, height, width, channels, kernel, stride, dilation, out_height, out_width, out_channels;
    long pad() const { return dilation * (kernel / 2); }
    long pixels() const { return out_height * out_width; }
    long taps() const { return kernel * kernel; }
};

// relu of an image, or of (x - mean) * rstd, in the middle of ``out``, whose border and spare channels stay as they are.
template <class S>
void fill(const S *x, long xs, const Block &b, const S *mean, const S *rstd, S *out, long line, long cp) {
    S *start = out + b.pad() * (line + cp);
    over<S>(b.channels, [&](auto w, long c) {
        auto zero = nil<S>(w), m = zero, r = zero + S(1);
        if (mean) m = get(w, mean + c), r = get(w, rstd + c);
        for (long y = 0; y < b.height; ++y)
            for (long p = 0; p < b.width; ++p) {
                auto v = (get(w, x + (y * b.width + p) * xs + c) - m) * r;
                put(w, start + y * line + p * cp + c, v < zero ? zero : v);
            }
    });
}

template <class S> S *taps_of(const S *dw, const Block &b, long cp, bool flipped, S *w) {
    for (long t = 0; t < b.taps(); ++t)
        for (long c = 0; c < b.channels; ++c) w[(flipped ? b.taps() - 1 - t : t) * cp + c] = dw[c * b.taps() + t];
    return w;
}

template <class S>
void block_forward(const S *x, long xs, const S *mean, const S *rstd, const S *dw, const S *pw, const Block *block,
                   S *z, const Norm *norm, int threads) {
    const Block &b = *block;
    long cp = padded<S>(b.channels), op = padded<S>(b.out_channels), pixels = b.pixels();
    long line = (b.width + 2 * b.pad()) * cp, size = (b.height + 2 * b.pad()) * line;
    auto convolve = b.kernel == 3 ? depthwise<S, 3> : depthwise<S, 5>;
    S *parts = scratch<S>(PARTS, b.n * 2 * b.out_channels);
#pragma omp parallel num_threads(threads)
    {
        S *image = zeros<S>(IMAGE, size), *out = scratch<S>(OUT, pixels * op);
        S *middle = b.kernel ? scratch<S>(MIDDLE, pixels * cp) : image;
        S *w = taps_of(dw, b, cp, false, zeros<S>(TAPS, b.taps() * cp));
        S *turned = zeros<S>(TURNED, b.channels * op); // [C, Co]
        for (long o = 0; o < b.out_channels; ++o)
            for (long c = 0; c < b.channels; ++c) turned[c * op + o] = pw[o * b.channels + c];
#pragma omp for schedule(static)
        for (long i = 0; i < b.n; ++i) {
            fill(x + i * b.height * b.width * xs, xs, b, mean, rstd, image, line, cp);
            if (b.kernel) convolve(image, line, cp, b.out_height, b.out_width, b.stride, b.dilation, w, middle);
            product(middle, cp, pixels, b.channels, turned, op, op, out, op);
            image_statistics(out, op, pixels, b.out_channels, parts + i * 2 * b.out_channels);
            S *mine = z + i * pixels * b.out_channels;
            for (long p = 0; p < pixels; ++p)
                std::memcpy(mine + p * b.out_channels, out + p * op, b.out_channels * sizeof(S));
        }
    }
    finish(parts, b.n, pixels, b.out_channels, *norm);
}

// gx (+)= the gradient of x, or of (x - mean) * rstd, whose slope [2, C] (of the norm before, see ``slopes``) is then
// computed too; gdw, gpw = those of the weights, unless missing. Intermediate values are computed again.
template <class S>
void block_backward(const Gradient<S, S> *from, const S *x, long xs, const S *mean, const S *rstd, const S *dw,
                    const S *pw, const Block *block, S *gx, long add, S *slope, S *gdw, S *gpw, int threads) {
    const Block &b = *block;
    long cp = padded<S>(b.channels), op = padded<S>(b.out_channels), pixels = b.pixels(), pad = b.pad();
    long line = (b.width + 2 * pad) * cp, size = (b.height + 2 * pad) * line;
    auto convolve = b.kernel == 3 ? depthwise<S, 3> : depthwise<S, 5>;
    auto learn = b.kernel == 3 ? depthwise_taps<S, 3> : depthwise_taps<S, 5>;
    auto scatter = b.kernel == 3 ? depthwise_scatter<S, 3> : depthwise_scatter<S, 5>;
    bool gather = b.kernel && b.stride == 1; // the gradient as a convolution, else scattered
    long own = b.taps() * cp + b.out_channels * cp;
    S *parts = scratch<S>(PARTS, b.n * 2 * b.channels), *shares = zeros<S>(SHARES, threads * own);
#pragma omp parallel num_threads(threads)
    {
        S *image = zeros<S>(IMAGE, size), *slope_out = zeros<S>(OUT, pixels * op);
        S *middle = b.kernel ? scratch<S>(MIDDLE, pixels * cp) : image;
        S *w = zeros<S>(TAPS, 2 * b.taps() * cp), *flipped = w + b.taps() * cp;
        taps_of(dw, b, cp, false, w);
        taps_of(dw, b, cp, true, flipped);
        S *straight = zeros<S>(TURNED, b.out_channels * cp); // [Co, C]
        for (long o = 0; o < b.out_channels; ++o)
            std::memcpy(straight + o * cp, pw + o * b.channels, b.channels * sizeof(S));
        // The gradient between the two convolutions, with the border that gathering needs.
        long gline = gather ? line : b.out_width * cp;
        S *between = zeros<S>(INNER, gather ? size : pixels * cp), *inside = between + (gather ? pad * (line + cp) : 0);
        S *back = scratch<S>(SLOPE, std::max(size, pixels * cp)); // the gradient of the rectified image
        S *my_taps = shares + omp_get_thread_num() * own, *my_weights = my_taps + b.taps() * cp;
#pragma omp for schedule(static)
        for (long i = 0; i < b.n; ++i) {
            const S *start = x + i * b.height * b.width * xs;
            fill(start, xs, b, mean, rstd, image, line, cp);
            over<S>(b.out_channels, [&](auto v, long c) {
                from->each(v, i, pixels, c, [&](long p, auto value) { put(v, slope_out + p * op + c, value); });
            });
            if (gpw) {
                if (b.kernel) convolve(image, line, cp, b.out_height, b.out_width, b.stride, b.dilation, w, middle);
                outer_product(slope_out, op, b.out_channels, middle, cp, cp, pixels, my_weights, cp);
            }
            for (long y = 0; y < b.out_height; ++y)
                product(slope_out + y * b.out_width * op, op, b.out_width, b.out_channels, straight, cp, cp,
                        inside + y * gline, cp);
            if (gdw && b.kernel)
                learn(image, line, cp, inside, gline, b.out_height, b.out_width, b.stride, b.dilation, my_taps);
            const S *result = back;
            long rline = b.width * cp;
            if (gather) {
                convolve(between, line, cp, b.height, b.width, 1, b.dilation, flipped, back);
            } else if (b.kernel) {
                std::memset(static_cast<void *>(back), 0, size * sizeof(S));
                scatter(back, line, cp, inside, gline, b.out_height, b.out_width, b.stride, b.dilation, w);
                result = back + pad * (line + cp);
                rline = line;
            } else {
                result = inside;
            }
            S *out = gx + i * b.height * b.width * b.channels;
            over<S>(b.channels, [&](auto v, long c) {
                auto zero = nil<S>(v), first = zero, second = zero, m = zero;
                if (slope) m = get(v, mean + c);
                for (long y = 0; y < b.height; ++y)
                    for (long p = 0; p < b.width; ++p) {
                        auto on = get(v, image + (y + pad) * line + (p + pad) * cp + c) > zero;
                        auto value = on ? get(v, result + y * rline + p * cp + c) : zero;
                        long pixel = y * b.width + p;
                        if (slope) {
                            first += value;
                            second += value * (get(v, start + pixel * xs + c) - m);
                        }
                        S *q = out + pixel * b.channels + c;
                        put(v, q, add ? get(v, q) + value : value);
                    }
                put(v, parts + i * 2 * b.channels + c, first);
                put(v, parts + (i * 2 + 1) * b.channels + c, second);
            });
        }
    }
    if (slope)
        for (long c = 0; c < 2 * b.channels; ++c) {
            double sum = 0;
            for (long i = 0; i < b.n; ++i) sum += parts[i * 2 * b.channels + c];
            slope[c] = S(sum);
        }
    for (long c = 0; gdw && c < b.channels; ++c)
        for (long t = 0; t < b.taps(); ++t) {
            gdw[c * b.taps() + t] = 0;
            for (int k = 0; k < threads; ++k) gdw[c * b.taps() + t] += shares[k * own + t * cp + c];
        }
    for (long o = 0; gpw && o < b.out_channels; ++o)
        for (long c = 0; c < b.channels; ++c) {
            gpw[o * b.channels + c] = 0;
            for (int k = 0; k < threads; ++k) gpw[o * b.channels + c] += shares[k * own + (b.taps() + o) * cp + c];
        }
}

// ---- Pooling, 3x3 with a border of 1 --------------------------------------------------------------------------------

struct Window { // the pixels of an image that a pixel of the output reads
    long top, bottom, left, right;
    Window(long y, long x, long stride, long height, long width)
        : top(std::max(y * stride - 1, 0L)), bottom(std::min(y * stride + 2, height)),
          left(std::max(x * stride - 1, 0L)), right(std::min(x * stride + 2, width)) {}
    long size() const { return (bottom - top) * (right - left); }
};

template <class T>
void pool_forward(long most, const T *x, long xs, long n, long height, long width, long channels, long stride,
                  long out_height, long out_width, T *y, int threads) {
    using S = Of<T>;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < n; ++i) {
        const T *image = x + i * height * width * xs;
        for (long oy = 0; oy < out_height; ++oy)
            for (long ox = 0; ox < out_width; ++ox) {
                Window v(oy, ox, stride, height, width);
                T *out = y + ((i * out_height + oy) * out_width + ox) * channels;
                over<S>(channels, [&](auto w, long c) {
                    auto total = most ? get(w, image + (v.top * width + v.left) * xs + c) : nil<S>(w);
                    for (long iy = v.top; iy < v.bottom; ++iy)
                        for (long ix = v.left; ix < v.right; ++ix) {
                            auto value = get(w, image + (iy * width + ix) * xs + c);
                            if (most) total = (value > total) | (value != value) ? value : total;
                            else total += value;
                        }
                    put(w, out + c, most ? total : total / S(v.size()));
                });
            }
    }
}

// Of equal values the first gets the gradient of a maximum.
template <class T>
void pool_backward(long most, const T *x, long xs, const T *g, long gs, long n, long height, long width, long channels,
                   long stride, long out_height, long out_width, T *gx, int threads) {
    using S = Of<T>;
#pragma omp parallel num_threads(threads)
    {
        long size = height * width * channels;
        S *sum = scratch<S>(IMAGE, size);
#pragma omp for schedule(static)
        for (long i = 0; i < n; ++i) {
            const T *image = x + i * height * width * xs;
            std::memset(static_cast<void *>(sum), 0, size * sizeof(S));
            for (long oy = 0; oy < out_height; ++oy)
                for (long ox = 0; ox < out_width; ++ox) {
                    Window v(oy, ox, stride, height, width);
                    const T *own = g + ((i * out_height + oy) * out_width + ox) * gs;
                    over<S>(channels, [&](auto w, long c) {
                        auto slope = get(w, own + c), zero = nil<S>(w);
                        if (!most) slope = slope / S(v.size());
                        auto best = get(w, image + (v.top * width + v.left) * xs + c);
                        for (long iy = v.top; most && iy < v.bottom; ++iy)
                            for (long ix = v.left; ix < v.right; ++ix) {
                                auto value = get(w, image + (iy * width + ix) * xs + c);
                                best = value > best ? value : best;
                            }
                        for (long iy = v.top; iy < v.bottom; ++iy)
                            for (long ix = v.left; ix < v.right; ++ix) {
                                S *q = sum + (iy * width + ix) * channels + c;
                                auto part = slope;
                                if (most) {
                                    auto here = get(w, image + (iy * width + ix) * xs + c) == best;
                                    part = here ? slope : zero;
                                    slope = here ? zero : slope;
                                }
                                put(w, q, get(w, q) + part);
                            }
                    });
                }
            T *out = gx + i * size;
            over<S>(size, [&](auto w, long c) { put(w, out + c, get(w, sum + c)); });
        }
    }
}

} // namespace

#define ALL(T, S, NAME)                                                                                                \
    extern "C" void statistics_##NAME(const T *z, long zs, long n, long pixels, long channels, const Norm *norm,       \
                                      int threads) {                                                                   \
        statistics(z, zs, n, pixels, channels, norm, threads);                                                         \
    }                                                                                                                  \
    extern "C" void weighted_sum_##NAME(long terms, const T *const *z, const long *zs, const S *const *factor,         \
                                        const long *pooled, const S *scale, const S *shift, long n, long height,       \
                                        long width, long channels, T *y, int threads) {                                \
        weighted_sum(terms, z, zs, factor, pooled, scale, shift, n, height, width, channels, y, threads);              \
    }                                                                                                                  \
    extern "C" void slopes_##NAME(long terms, const T *const *z, const long *zs, const S *const *factor,               \
                                  const S *mean, const T *g, long gs, long n, long pixels, long channels, S *slope,    \
                                  int threads) {                                                                       \
        slopes(terms, z, zs, factor, mean, g, gs, n, pixels, channels, slope, threads);                                \
    }                                                                                                                  \
    extern "C" void gradients_##NAME(long terms, const Gradient<T, S> *from, T *const *out, const long *add, long n,   \
                                     long pixels, long channels, int threads) {                                        \
        gradients(terms, from, out, add, n, pixels, channels, threads);                                                \
    }                                                                                                                  \
    extern "C" void plain_gradients_##NAME(long terms, const Plain<T, S> *from, const T *g, long gs, long n,           \
                                           long height, long width, long channels, S *dot, int threads) {              \
        plain_gradients(terms, from, g, gs, n, height, width, channels, dot, threads);                                 \
    }                                                                                                                  \
    extern "C" void gather_##NAME(long terms, const T *const *g, const long *gs, long rectified, const T *x, long xs,  \
                                  long n, long pixels, long channels, T *gx, int threads) {                            \
        gather<T, S>(terms, g, gs, rectified, x, xs, n, pixels, channels, gx, threads);                                \
    }                                                                                                                  \
    extern "C" void pool_forward_##NAME(long most, const T *x, long xs, long n, long height, long width,               \
                                        long channels, long stride, long out_height, long out_width, T *y,             \
                                        int threads) {                                                                 \
        pool_forward(most, x, xs, n, height, width, channels, stride, out_height, out_width, y, threads);              \
    }                                                                                                                  \
    extern "C" void pool_backward_##NAME(long most, const T *x, long xs, const T *g, long gs, long n, long height,     \
                                         long width, long channels, long stride, long out_height, long out_width,      \
                                         T *gx, int threads) {                                                         \
        pool_backward(most, x, xs, g, gs, n, height, width, channels, stride, out_height, out_width, gx, threads);     \
    }

#define BLOCKS(S, NAME)                                                                                                \
    extern "C" void block_forward_##NAME(const S *x, long xs, const S *mean, const S *rstd, const S *dw, const S *pw,  \
                                         const Block *block, S *z, const Norm *norm, int threads) {                    \
        block_forward(x, xs, mean, rstd, dw, pw, block, z, norm, threads);                                             \
    }                                                                                                                  \
    extern "C" void block_backward_##NAME(const Gradient<S, S> *from, const S *x, long xs, const S *mean,              \
                                          const S *rstd, const S *dw, const S *pw, const Block *block, S *gx,          \
                                          long add, S *slope, S *gdw, S *gpw, int threads) {                           \
        block_backward(from, x, xs, mean, rstd, dw, pw, block, gx, add, slope, gdw, gpw, threads);                     \
    }

ALL(float, float, float32)
ALL(double, double, float64)
ALL(bf16, float, bfloat16)
BLOCKS(float, float32)
BLOCKS(double, float64)
