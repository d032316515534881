#include "fft_tables.hpp"

#include <cmath>
#include <map>
#include <memory>
#include <mutex>

namespace {

void put(double* out, long double turns) {  // exp(2 pi i turns)
    const long double angle = 2.0L * 3.14159265358979323846264338327950288L * turns;
    out[0] = (double)std::cos(angle);
    out[1] = (double)std::sin(angle);
}

void forward_node(double* heap, size_t m, size_t node, long double turns) {  // turns: the argument of this block's modulus
    if (node >= m) return;
    put(heap + 2 * node, turns / 2);
    forward_node(heap, m, 2 * node, turns / 2);
    forward_node(heap, m, 2 * node + 1, turns / 2 + 0.5L);
}

std::unique_ptr<double[]> build(size_t polynomial_size) {
    const size_t m = polynomial_size / 2;
    std::unique_ptr<double[]> t(new double[FftTables::doubles(polynomial_size)]());
    forward_node(t.get(), m, 1, 0.25L);
    for (size_t h = 1; h < m; h *= 2)
        for (size_t j = 0; j < h; ++j) put(t.get() + 2 * (m + h + j), -(long double)j / (2.0L * h));
    for (size_t j = 0; j < m; ++j) put(t.get() + 2 * (2 * m + j), -(long double)j / (2.0L * polynomial_size));
    for (size_t p = 0; p < 2 * polynomial_size; ++p) put(t.get() + 2 * (3 * m + p), (long double)p / (2.0L * polynomial_size));
    return t;
}

}  // namespace

const double* fft_tables(size_t polynomial_size) {
    static std::mutex mutex;
    static std::map<size_t, std::unique_ptr<double[]>> built;
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<double[]>& t = built[polynomial_size];
    if (!t) t = build(polynomial_size);
    return t.get();
}
