// What the handlers of oneDNN share: its engine, kept primitives and memory, and work on XLA's threads.
//
// oneDNN would use threads of OpenMP, which spin beside XLA's own threads and wait for each other in
// the midst of an operation: on a machine with other work that costs a multiple of the time. So each
// call of oneDNN has one thread here. An operation is cut into parts, which XLA's threads compute.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

// Of libgomp, which libdnnl is linked to; omp.h is not in every compiler.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads(void);

namespace ffi = xla::ffi;

namespace jaxdl {

using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

constexpr size_t kPrimitives = 512;  // kept; the least recently used are dropped
constexpr size_t kAlignment = 64;

// Restores the number of OpenMP's threads, which is that of the calling thread alone.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

inline const dnnl::engine& engine() {
  static const dnnl::engine* made = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *made;
}

// Attributes of a primitive: a scratchpad of the caller's, because the library's own belongs to the
// thread that makes the primitive; and float32 as float32, whatever the environment says.
inline dnnl::primitive_attr attributes() {
  dnnl::primitive_attr made;
  made.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  made.set_fpmath_mode(dnnl::fpmath_mode::strict);
  return made;
}

// The values of the numbers that were used last, for all threads. A `Value` is made from a `Numbers`,
// which has a `key`.
template <class Numbers, class Value>
class Cache {
 public:
  std::shared_ptr<const Value> find(const Numbers& g) {
    auto key = g.key();
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = index_.find(key);
    if (found != index_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return found->second->second;
    }
    auto made = std::make_shared<const Value>(g);
    recent_.emplace_front(key, made);
    index_[key] = recent_.begin();
    if (recent_.size() > kPrimitives) {
      index_.erase(recent_.back().first);
      recent_.pop_back();
    }
    return made;
  }

  static Cache& instance() {  // never destroyed: threads may use it while the process exits
    static Cache* cache = new Cache();
    return *cache;
  }

 private:
  using Entry = std::pair<std::vector<int64_t>, std::shared_ptr<const Value>>;
  std::mutex mutex_;
  std::list<Entry> recent_;
  std::map<std::vector<int64_t>, typename std::list<Entry>::iterator> index_;
};

// Memory that grows and is kept from call to call.
class Buffer {
 public:
  char* get(size_t bytes) {
    if (bytes > bytes_) {
      bytes_ = 0;
      memory_.reset();
      memory_.reset(new char[bytes + kAlignment]);
      bytes_ = bytes;
    }
    auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return reinterpret_cast<char*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }

 private:
  std::unique_ptr<char[]> memory_;
  size_t bytes_ = 0;
};

inline dnnl::memory as(const dnnl::memory::desc& description, const void* data) {
  return dnnl::memory(description, engine(), const_cast<void*>(data));
}

// Runs a primitive on the calling thread; `space` is its scratchpad.
inline void execute(const dnnl::primitive& primitive, const dnnl::memory::desc& space,
                    std::unordered_map<int, dnnl::memory> operands) {
  thread_local dnnl::stream stream(engine());
  thread_local Buffer scratch;
  if (size_t bytes = space.get_size()) {
    operands[DNNL_ARG_SCRATCHPAD] = as(space, scratch.get(bytes));
  }
  OneThread one;
  primitive.execute(stream, operands);
  stream.wait();
}

// Work on numbers 0, 1, ... that several threads take one by one.
struct Work {
  std::function<void(int64_t)> function;
  int64_t total;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable all_done;
  int64_t done = 0;
  std::string error;

  void help() {
    for (int64_t n; (n = next.fetch_add(1)) < total;) {
      std::string failure;
      try {
        function(n);
      } catch (const std::exception& thrown) {  // dnnl::error is one, and so is std::bad_alloc
        failure = thrown.what();
        if (failure.empty()) failure = "unknown error";
      }
      std::lock_guard<std::mutex> lock(mutex);
      if (error.empty()) error = failure;
      if (++done == total) all_done.notify_all();
    }
  }
};

// Calls the function for each of the numbers below `total`, by this thread and those of the pool.
// This thread takes numbers until none is left, and waits only for those that others are at: so it
// cannot wait for a thread that waits as well.
inline void parallel(ffi::ThreadPool& pool, int64_t total, std::function<void(int64_t)> function) {
  auto work = std::make_shared<Work>();
  work->function = std::move(function);
  work->total = total;
  int64_t helpers = std::min(total, pool.num_threads()) - 1;
  for (int64_t n = 0; n < helpers; ++n) pool.Schedule([work] { work->help(); });
  work->help();
  std::unique_lock<std::mutex> lock(work->mutex);
  work->all_done.wait(lock, [&] { return work->done == work->total; });
  if (!work->error.empty()) throw std::runtime_error(work->error);
}

}  // namespace jaxdl
