// Blind rotation and sample extraction in one launch: a block of threads takes TOGETHER ciphertexts through all steps of the key.
//
// The arithmetic is that of native/src/blind_rotate.hpp, with points in natural order: point u is exp(i pi (1 + 4 u) / 512).
// A polynomial of 512 coefficients is 256 complex points, 16 to each of 16 threads, so that a transform is two 16-point transforms in
// registers and one exchange. The accumulator stays in registers from the first step to the last; a step's products run over
// (point, output) pairs, and each word of the key that a thread reads serves all TOGETHER ciphertexts.
//
// Compiled for one parameter set by these macros: K1 polynomials of a GLWE ciphertext, KEYS GGSW ciphertexts of a step, BITS of the small
// key of a step, PRODUCTS (0 or 1: the keys of a pair of bits are those of s, t and s t), BASE_LOG of the gadget, which has one level.
// Without CUDA's own macros it is C++: tests run it with one thread of the machine for each of a block.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ double2 name[]
#endif

constexpr int POINTS = 256, COEFFICIENTS = 512, LANES = 16;
constexpr int EXCHANGE = LANES * (LANES + 1);  // a row of 16 and one unused, so that rows and columns are read without bank conflicts
constexpr int POLYNOMIALS = TOGETHER * K1, THREADS = POLYNOMIALS * LANES;
constexpr int ROOTS = 2 * COEFFICIENTS;

struct Complex {
    double re, im;
};

__device__ __forceinline__ Complex load(const double2* at) {
    const double2 x = *at;
    return {x.x, x.y};
}

__device__ __forceinline__ void store(double2* at, Complex x) {
    double2 y;
    y.x = x.re;
    y.y = x.im;
    *at = y;
}

__device__ __forceinline__ Complex times(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
__device__ __forceinline__ Complex times_conjugate(Complex a, Complex b) { return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im}; }

// Where root r lies: neighbors in the steps that threads take are spread over the banks.
__device__ __forceinline__ int root_slot(int r) { return r ^ ((r >> 2 ^ r >> 5) & 7); }

// x <- the 4-point transform with exp(SIGN 2 pi i / 4).
template <int SIGN>
__device__ __forceinline__ void transform4(Complex& a, Complex& b, Complex& c, Complex& d) {
    const Complex s = {a.re + c.re, a.im + c.im}, t = {a.re - c.re, a.im - c.im};
    const Complex u = {b.re + d.re, b.im + d.im}, v = {b.re - d.re, b.im - d.im};
    a = {s.re + u.re, s.im + u.im};
    c = {s.re - u.re, s.im - u.im};
    b = {t.re - SIGN * v.im, t.im + SIGN * v.re};
    d = {t.re + SIGN * v.im, t.im - SIGN * v.re};
}

// The 16-point transform with exp(SIGN 2 pi i / 16); output u comes to x[bin(u)].
__device__ __forceinline__ constexpr int bin(int u) { return 4 * (u % 4) + u / 4; }

template <int SIGN>
__device__ __forceinline__ void transform16(Complex* x) {
    constexpr double COS[10] = {1.0, 0.92387953251128674, 0.70710678118654752, 0.38268343236508977, 0.0,
                                -0.38268343236508977, -0.70710678118654752, -0.92387953251128674, -1.0, -0.92387953251128674};
    constexpr double SIN[10] = {0.0, 0.38268343236508977, 0.70710678118654752, 0.92387953251128674, 1.0,
                                0.92387953251128674, 0.70710678118654752, 0.38268343236508977, 0.0, -0.38268343236508977};
#pragma unroll
    for (int i = 0; i < 4; ++i) transform4<SIGN>(x[i], x[i + 4], x[i + 8], x[i + 12]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 1; i < 4; ++i)
            if (k > 0) x[4 * k + i] = times(x[4 * k + i], Complex{COS[i * k], SIGN * SIN[i * k]});
        transform4<SIGN>(x[4 * k], x[4 * k + 1], x[4 * k + 2], x[4 * k + 3]);
    }
}

// exp(i pi i / 32), of the coefficient 16 i.
__device__ __forceinline__ Complex twist(int i) {
    constexpr double COS[16] = {1.0, 0.99518472667219693, 0.98078528040323043, 0.95694033573220882, 0.92387953251128674, 0.88192126434835505,
                                0.83146961230254524, 0.77301045336273699, 0.70710678118654752, 0.63439328416364549, 0.55557023301960218,
                                0.47139673682599764, 0.38268343236508977, 0.29028467725446233, 0.19509032201612825, 0.098017140329560604};
    return {COS[i], i ? COS[16 - i] : 0.0};
}

// The nearest multiple of 1 / unit, for |x| far below 2^51 / unit.
__device__ __forceinline__ double round_to(double x, double magic) { return (x + magic) - magic; }

// Thread `lane` of 16 has z_(lane + 16 i) in z[i]; all points come to `to`, point u in place u. twiddles[16 u + t] = exp(i pi t (4 u + 1) / 512).
__device__ __forceinline__ void forward(Complex* z, const double2* twiddles, int lane, double2* to) {
#pragma unroll
    for (int i = 1; i < LANES; ++i) z[i] = times(z[i], twist(i));
    transform16<1>(z);
    __syncwarp();
#pragma unroll
    for (int u = 0; u < LANES; ++u) store(to + u * (LANES + 1) + lane, times(z[bin(u)], load(twiddles + u * LANES + lane)));
    __syncwarp();
#pragma unroll
    for (int t = 0; t < LANES; ++t) z[t] = load(to + lane * (LANES + 1) + t);
    transform16<1>(z);
    __syncwarp();
#pragma unroll
    for (int u = 0; u < LANES; ++u) store(to + lane + LANES * u, z[bin(u)]);
}

// The way back: thread `lane` gets 256 z_(lane + 16 i) in z[bin(i)]. `from` is overwritten.
__device__ __forceinline__ void inverse(Complex* z, const double2* twiddles, int lane, double2* from) {
#pragma unroll
    for (int u = 0; u < LANES; ++u) z[u] = load(from + lane + LANES * u);
    transform16<-1>(z);
    __syncwarp();
#pragma unroll
    for (int t = 0; t < LANES; ++t) store(from + t * (LANES + 1) + lane, times_conjugate(z[bin(t)], load(twiddles + lane * LANES + t)));
    __syncwarp();
#pragma unroll
    for (int u = 0; u < LANES; ++u) z[u] = load(from + lane * (LANES + 1) + u);
    transform16<-1>(z);
#pragma unroll
    for (int i = 1; i < LANES; ++i) z[bin(i)] = times_conjugate(z[bin(i)], twist(i));
}

__device__ __forceinline__ Complex root(const double2* roots, int exponent) { return load(roots + root_slot(exponent & (ROOTS - 1))); }

// X^a - 1 at one point for each key of a step; or X^a - 1, X^b - 1, X^(a + b) - 1.
__device__ __forceinline__ void step_factors(const double2* roots, const int* exponents, int point, Complex* f) {
#pragma unroll
    for (int b = 0; b < BITS; ++b) f[b] = root(roots, exponents[b] * (1 + 4 * point));
    if (PRODUCTS) f[KEYS - 1] = times(f[0], f[1]);
#pragma unroll
    for (int c = 0; c < KEYS; ++c) f[c].re -= 1.0;
}

__device__ __forceinline__ unsigned int to_word(double torus) { return (unsigned int)(long long)floor(torus * 4294967296.0 + 0.5); }

// switched: [count][steps * BITS + 1] in 0 .. 1023; tables: [..][512] turns; table_index: [count];
// key: [steps][KEYS][K1 rows][K1 outputs][256], scaled so that digits are fractions and no 1/256 is left;
// roots: [1024], exp(i pi r / 512); out: [count][(K1 - 1) 512 + 1]. One block of THREADS for TOGETHER ciphertexts; its shared memory holds
// the roots, the twiddles, digits and sums of POLYNOMIALS each, and the exponents of a step.
extern "C" __global__ void __launch_bounds__(THREADS) blind_rotate(const int* switched, const double* tables, const int* table_index,
                                                                   const double2* key, const double2* roots, unsigned int* out, int count,
                                                                   int steps) {
    DYNAMIC_SHARED(shared);
    double2 *shared_roots = shared, *twiddles = shared + ROOTS, *digits = twiddles + POINTS, *sums = digits + POLYNOMIALS * EXCHANGE;
    int* exponents = reinterpret_cast<int*>(sums + POLYNOMIALS * EXCHANGE);  // [TOGETHER][BITS]
    const int thread = threadIdx.x, lane = thread % LANES, polynomial = thread / LANES, p = polynomial % K1;
    const int first = blockIdx.x * TOGETHER, words = steps * BITS + 1;
    const int mine = min(first + polynomial / K1, count - 1);  // the last block repeats the last ciphertext

    for (int r = thread; r < ROOTS; r += THREADS) shared_roots[root_slot(r)] = roots[r];
    for (int i = thread; i < POINTS; i += THREADS) twiddles[i] = roots[i % LANES * (4 * (i / LANES) + 1) & (ROOTS - 1)];

    Complex acc[LANES];  // coefficients lane + 16 i, and those 256 above
    {
        const double* table = tables + (long long)table_index[mine] * COEFFICIENTS;
        const int b = switched[(long long)mine * words + words - 1];
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            double half[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int at = lane + LANES * i + POINTS * h + b & (ROOTS - 1);
                const double value = table[at & (COEFFICIENTS - 1)];
                half[h] = p < K1 - 1 ? 0.0 : at < COEFFICIENTS ? value : -value;
            }
            acc[i] = {half[0], half[1]};
        }
    }
    __syncthreads();

    const double digit_magic = 6755399441055744.0 / (1 << BASE_LOG), whole_magic = 6755399441055744.0;  // 1.5 * 2^52
    for (int step = 0; step < steps; ++step) {
        {
            Complex z[LANES];
#pragma unroll
            for (int i = 0; i < LANES; ++i) z[i] = {round_to(acc[i].re, digit_magic), round_to(acc[i].im, digit_magic)};
            forward(z, twiddles, lane, digits + polynomial * EXCHANGE);
        }
        if (thread < TOGETHER * BITS) {
            const int row = min(first + thread / BITS, count - 1);
            exponents[thread] = switched[(long long)row * words + step * BITS + thread % BITS];
        }
        __syncthreads();
        for (int item = thread; item < POINTS * K1; item += THREADS) {
            const int point = item % POINTS, q = item / POINTS;
            const double2* from = key + ((long long)step * KEYS * K1 * K1 + q) * POINTS + point;
            Complex w[KEYS][K1];
#pragma unroll
            for (int c = 0; c < KEYS; ++c)
#pragma unroll
                for (int r = 0; r < K1; ++r) w[c][r] = load(from + (c * K1 + r) * K1 * POINTS);
#pragma unroll
            for (int g = 0; g < TOGETHER; ++g) {
                Complex f[KEYS], products[KEYS];
                step_factors(shared_roots, exponents + g * BITS, point, f);
#pragma unroll
                for (int c = 0; c < KEYS; ++c) products[c] = {0.0, 0.0};
#pragma unroll
                for (int r = 0; r < K1; ++r) {
                    const Complex d = load(digits + (g * K1 + r) * EXCHANGE + point);
#pragma unroll
                    for (int c = 0; c < KEYS; ++c) {
                        products[c].re += d.re * w[c][r].re - d.im * w[c][r].im;
                        products[c].im += d.re * w[c][r].im + d.im * w[c][r].re;
                    }
                }
                Complex sum = {0.0, 0.0};
#pragma unroll
                for (int c = 0; c < KEYS; ++c) {
                    sum.re += products[c].re * f[c].re - products[c].im * f[c].im;
                    sum.im += products[c].re * f[c].im + products[c].im * f[c].re;
                }
                store(sums + (g * K1 + q) * EXCHANGE + point, sum);
            }
        }
        __syncthreads();
        {
            Complex z[LANES];
            inverse(z, twiddles, lane, sums + polynomial * EXCHANGE);
#pragma unroll
            for (int i = 0; i < LANES; ++i) {
                const double re = acc[i].re + z[bin(i)].re, im = acc[i].im + z[bin(i)].im;
                acc[i] = {re - round_to(re, whole_magic), im - round_to(im, whole_magic)};
            }
        }
    }

    if (first + polynomial / K1 >= count) return;
    unsigned int* row = out + (long long)mine * ((K1 - 1) * COEFFICIENTS + 1);
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
        const double half[2] = {acc[i].re, acc[i].im};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int j = lane + LANES * i + POINTS * h;
            if (p < K1 - 1) row[p * COEFFICIENTS + (COEFFICIENTS - j) % COEFFICIENTS] = to_word(j ? -half[h] : half[h]);
            else if (j == 0) row[p * COEFFICIENTS] = to_word(half[h]);
        }
    }
}
