// The kernel of blind_rotate.cu as C++: a thread of this machine for each of a block, barriers for __syncthreads and __syncwarp.
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

struct double2 {
    double x, y;
};
struct Index {
    int x;
};
static thread_local Index threadIdx, blockIdx;
static thread_local double2* block_memory;
static pthread_barrier_t block_barrier;
static std::vector<pthread_barrier_t> warp_barriers;
static void __syncthreads() { pthread_barrier_wait(&block_barrier); }
static void __syncwarp() { pthread_barrier_wait(&warp_barriers[threadIdx.x / 32]); }
using std::floor;
using std::min;
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define DYNAMIC_SHARED(name) double2* name = block_memory
#include KERNEL

extern "C" void run(const int* switched, const double* tables, const int* table_index, const double2* key, const double2* roots,
                    unsigned int* out, int count, int steps, int shared_bytes) {
    pthread_barrier_init(&block_barrier, nullptr, THREADS);
    warp_barriers.resize((THREADS + 31) / 32);
    for (size_t w = 0; w < warp_barriers.size(); ++w) pthread_barrier_init(&warp_barriers[w], nullptr, std::min(32, THREADS - 32 * (int)w));
    for (int block = 0; block * TOGETHER < count; ++block) {
        std::vector<double2> memory((shared_bytes + 15) / 16, double2{NAN, NAN});
        std::vector<std::thread> threads;
        for (int t = 0; t < THREADS; ++t)
            threads.emplace_back([&, t] {
                threadIdx = {t};
                blockIdx = {block};
                block_memory = memory.data();
                blind_rotate(switched, tables, table_index, key, roots, out, count, steps);
            });
        for (auto& thread : threads) thread.join();
    }
}
