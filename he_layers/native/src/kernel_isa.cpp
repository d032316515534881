// Compiled three times, with the flags of one instruction set each (CMakeLists.txt).
#include "blind_rotate.hpp"
#include "chacha20.hpp"
#include "exact_product.hpp"
#include "key_switch.hpp"
#include "linear.hpp"
#include "ring_switch.hpp"

namespace CS_ISA {

const KernelTable& table() {
    static constexpr const char* names[] = {"", "", "portable", "", "avx2", "", "", "", "avx512"};
    static const KernelTable t = {names[LANES],
                                  LANES,
                                  blind_rotate_scratch,
                                  blind_rotate,
                                  bootstrap_floor,
                                  key_switch_digit_bytes,
                                  key_switch_scratch,
                                  key_switch_digits,
                                  key_switch_tile,
                                  linear,
                                  merge_scratch,
                                  merge,
                                  rows_to_fourier,
                                  add_binary_product,
                                  chacha20_blocks,
                                  negacyclic_product};
    return t;
}

}  // namespace CS_ISA
