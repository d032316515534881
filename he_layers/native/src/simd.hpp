// One vector type per instruction set; every ISA compiles the same sources into its own namespace.
//
// A lane is one ciphertext: the hot loops process LANES ciphertexts side by side, so they need no shuffles.
// Nothing here may use a std:: template: the linker could pick the AVX-512 copy of it for every path.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(CS_AVX512)
#define CS_ISA isa_avx512
#define CS_LANES 8
#elif defined(CS_AVX2)
#define CS_ISA isa_avx2
#define CS_LANES 4
#else
#define CS_ISA isa_portable
#define CS_LANES 2
#endif

#define CS_INLINE static inline __attribute__((always_inline))

namespace CS_ISA {

constexpr int LANES = CS_LANES;
typedef double vd __attribute__((vector_size(LANES * 8)));

// Hot loops assign its parts one by one: GCC copies the whole through memory by halves, and the next load waits for both stores.
struct complex_vd {
    vd re, im;
};

CS_INLINE complex_vd times(const complex_vd& x, const complex_vd& y) {
    return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}

CS_INLINE complex_vd broadcast(const double* w) { return {w[0] - vd{}, w[1] - vd{}}; }

// Where registers are scarce, GCC reads an operand from memory again at each use; loads are then what a transform waits for.
CS_INLINE vd keep_in_register(vd x) {
#if defined(CS_AVX2)
    asm("" : "+x"(x));
#endif
    return x;
}

// Rounds to the nearest multiple of 2^-fraction_bits, given magic = 1.5 * 2^(52 - fraction_bits); |x| < 2^(50 - fraction_bits).
CS_INLINE vd round_with(vd x, double magic) { return (x + magic) - magic; }

}  // namespace CS_ISA
