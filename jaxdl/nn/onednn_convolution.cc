// The three maps of a convolution by oneDNN, as one handler of XLA's foreign function interface.
//
// jaxdl/nn/onednn.py builds and loads this file and calls it; jaxdl/nn/convolution.py explains the
// maps. All operands have a leading axis of N members, each a convolution of its own.
//
// A convolution is cut into parts: some images each, or some channels each where the kernel is larger
// than the images, as every part reads the kernel or the images whole. The parts depend on the shapes
// alone, and sums over parts are made in their order. So the bits of a result do not depend on the
// number of threads.

#include <cstring>

#include "onednn.h"

namespace {

using namespace jaxdl;

constexpr int kForward = 0, kToImages = 1, kToKernel = 2;
// A part has at least so many pixels of the result, for each use of the kernel from the cache, and
// so many operations, for the cost of starting it. The gradient by the kernel adds up one kernel
// for each part.
constexpr int64_t kPixels = 256, kPixelsOfSum = 512, kOperations = 4'000'000;
constexpr int64_t kParts = 64, kPartsOfSum = 8;
constexpr int64_t kSums = 64 << 20;  // bytes of the kernels that are added up
constexpr int64_t kChunk = 1 << 15;  // entries of a kernel that are added up at a time
constexpr int64_t kChannels = 64;    // of a part of some channels
constexpr int64_t kNumbers = 17;     // that Python gives of a geometry

// The numbers that a primitive depends on, the first of them in the order in which Python gives them.
struct Geometry {
  int64_t map, bfloat16;
  int64_t B, H, W, I;  // images
  int64_t k, l, O;     // kernel
  int64_t P, Q;        // size of the result
  int64_t down, right;
  int64_t top, bottom, left, after;  // padding; `after`: on the right
  int64_t of_I, of_O;                // channels of the kernel in memory, of which these are a part

  std::vector<int64_t> key() const {
    return {map,  bfloat16, B,     H,   W,      I,    k,     l,    O,   P,
            Q,    down,     right, top, bottom, left, after, of_I, of_O};
  }
  size_t bytes() const { return bfloat16 ? 2 : 4; }
  size_t image() const { return H * W * I * bytes(); }   // bytes of an image
  size_t result() const { return P * Q * O * bytes(); }  // and of its result
  size_t kernel() const { return k * l * I * O * bytes(); }

  // The channels that parts of some channels divide: of the result, or of the gradient by images.
  int64_t channels() const { return map == kToImages ? I : O; }
  int64_t pixels() const { return B * (map == kToImages ? H * W : P * Q); }  // with those channels

  bool by_channels() const {
    return channels() >= 2 * kChannels && k * l * I * O > B * (H * W * I + P * Q * O);
  }

  int64_t parts() const {
    int64_t pixels = B * P * Q, entries = k * l * I * O, sum = map == kToKernel;
    if (!pixels || !entries) throw std::invalid_argument("a size of 0");
    int64_t most = std::min({B, sum ? kPartsOfSum : kParts, pixels / (sum ? kPixelsOfSum : kPixels),
                             2 * pixels * entries / kOperations});
    if (sum) most = std::min(most, kSums / (4 * entries));
    return std::max<int64_t>(1, most);
  }
};

struct Convolution {
  dnnl::primitive compute, reorder;
  // `kernel` is the caller's, and `packed` the layout that oneDNN wants.
  dnnl::memory::desc images, result, kernel, packed, scratch, reorder_scratch;
  bool packs = false;  // they differ
  std::string implementation;

  explicit Convolution(const Geometry& g) {
    OneThread one;
    Type type = g.bfloat16 ? Type::bf16 : Type::f32;
    images = {{g.B, g.I, g.H, g.W}, type, Tag::nhwc};
    result = {{g.B, g.O, g.P, g.Q}, type, Tag::nhwc};
    Dims kernel_shape{g.O, g.I, g.k, g.l};
    if (g.I == g.of_I && g.O == g.of_O) {
      kernel = {kernel_shape, type, Tag::hwio};
    } else {
      kernel = {kernel_shape, type, Dims{1, g.of_O, g.l * g.of_I * g.of_O, g.of_I * g.of_O}};
    }
    dnnl::memory::desc any(kernel_shape, type, Tag::any);
    Dims strides{g.down, g.right}, before{g.top, g.left}, after{g.bottom, g.after};
    auto direct = dnnl::algorithm::convolution_direct;
    dnnl::convolution_forward::primitive_desc forward(engine(), dnnl::prop_kind::forward_training,
                                                      direct, images, any, result, strides, before,
                                                      after, attributes());
    auto keep = [&](const auto& description, auto layout, auto primitive) {
      packed = layout;
      scratch = description.scratchpad_desc();
      implementation = description.impl_info_str();
      compute = primitive;
    };
    if (g.map == kForward) {
      keep(forward, forward.weights_desc(), dnnl::convolution_forward(forward));
    } else if (g.map == kToImages) {
      dnnl::convolution_backward_data::primitive_desc d(engine(), direct, images, any, result,
                                                        strides, before, after, forward, attributes());
      keep(d, d.weights_desc(), dnnl::convolution_backward_data(d));
    } else {  // sums are in float32
      dnnl::memory::desc sums(kernel_shape, Type::f32, Tag::any);
      dnnl::convolution_backward_weights::primitive_desc d(
          engine(), direct, images, sums, result, strides, before, after, forward, attributes());
      keep(d, d.diff_weights_desc(), dnnl::convolution_backward_weights(d));
    }
    packs = packed != kernel;
    if (packs) {
      const auto& from = g.map == kToKernel ? packed : kernel;
      const auto& to = g.map == kToKernel ? kernel : packed;
      dnnl::reorder::primitive_desc d(engine(), from, engine(), to, attributes());
      reorder_scratch = d.scratchpad_desc();
      reorder = dnnl::reorder(d);
    }
  }
};

using Convolutions = Cache<Geometry, Convolution>;

thread_local Buffer packing, sums, some;  // `some`: channels of images or of results

void reorder(const Convolution& c, const dnnl::memory& from, const dnnl::memory& to) {
  execute(c.reorder, c.reorder_scratch, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

// One part. `images` and `result` are its first, and `kernel` is packed.
void compute(const Geometry& g, const Convolution& c, const void* images, const void* kernel,
             const void* result) {
  bool by_images = g.map == kToImages, by_kernel = g.map == kToKernel;
  execute(c.compute, c.scratch,
          {{by_images ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, as(c.images, images)},
           {by_kernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, as(c.packed, kernel)},
           {g.map == kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, as(c.result, result)}});
}

// A member cut into parts: the first `more` have one image more than the others.
struct Parts {
  int64_t count, images, more;
  Geometry small, large;
  std::shared_ptr<const Convolution> of_small, of_large;

  explicit Parts(const Geometry& g) : count(g.parts()), images(g.B / count), more(g.B % count) {
    small = large = g;
    small.B = images;
    large.B = images + 1;
    of_small = Convolutions::instance().find(small);
    if (!more) return;
    of_large = Convolutions::instance().find(large);
    // The kernel, or the sum of kernels, is in one layout for all parts.
    if (of_large->packed != of_small->packed) throw std::runtime_error("two layouts of the kernel");
  }

  void compute(int64_t n, const char* x, const char* kernel, const char* y) const {
    bool is_large = n < more;
    int64_t first = n * images + std::min(n, more);
    const Geometry& g = is_large ? large : small;
    ::compute(g, is_large ? *of_large : *of_small, x + first * g.image(), kernel,
              y + first * g.result());
  }
};

// A member cut into parts of `kChannels` channels; the last has the remaining ones as well.
struct ChannelParts {
  Geometry whole, regular, last;
  int64_t count;
  std::shared_ptr<const Convolution> of_regular, of_last;

  explicit ChannelParts(const Geometry& g)
      : whole(g), regular(g), last(g), count(g.channels() / kChannels) {
    bool images = g.map == kToImages;
    (images ? regular.I : regular.O) = kChannels;
    (images ? last.I : last.O) -= (count - 1) * kChannels;
    of_regular = Convolutions::instance().find(regular);
    of_last = Convolutions::instance().find(last);
  }

  void compute(int64_t n, char* x, char* w, char* y) const {
    bool images = whole.map == kToImages, by_kernel = whole.map == kToKernel;
    const Geometry& g = n + 1 < count ? regular : last;
    const Convolution& c = n + 1 < count ? *of_regular : *of_last;
    size_t first = n * kChannels * g.bytes();
    w += images ? first * whole.O : first;
    char* kernel = c.packs ? packing.get(c.packed.get_size()) : w;
    if (c.packs && !by_kernel) reorder(c, as(c.kernel, w), as(c.packed, kernel));
    size_t row = whole.channels() * g.bytes(), part = g.channels() * g.bytes();
    char* all = (images ? x : y) + first;
    char* own = some.get(g.pixels() * part);
    if (by_kernel) {
      for (int64_t p = 0; p < g.pixels(); ++p) std::memcpy(own + p * part, all + p * row, part);
    }
    ::compute(g, c, images ? own : x, kernel, images ? y : own);
    if (!by_kernel) {
      for (int64_t p = 0; p < g.pixels(); ++p) std::memcpy(all + p * row, own + p * part, part);
    } else if (c.packs) {
      reorder(c, as(c.packed, kernel), as(c.kernel, w));
    }
  }
};

// One member, by forward or to_images.
void map_images(ffi::ThreadPool& pool, const Parts& parts, const char* x, const char* w, const char* y) {
  const Convolution& c = *parts.of_small;
  const char* kernel = w;
  if (c.packs) {
    kernel = packing.get(c.packed.get_size());
    reorder(c, as(c.kernel, w), as(c.packed, kernel));
  }
  parallel(pool, parts.count, [&](int64_t n) { parts.compute(n, x, kernel, y); });
}

// One member, by to_kernel: a sum over parts in float32, in the layout of oneDNN.
void map_kernel(ffi::ThreadPool& pool, const Parts& parts, const char* x, const char* w, const char* y) {
  const Convolution& c = *parts.of_small;
  if (!c.packs && parts.count == 1) return parts.compute(0, x, w, y);
  size_t bytes = c.packed.get_size();
  char* all = sums.get(bytes * parts.count);
  parallel(pool, parts.count, [&](int64_t n) { parts.compute(n, x, all + n * bytes, y); });
  auto* total = reinterpret_cast<float*>(all);
  int64_t entries = bytes / sizeof(float);
  auto add = [&](int64_t chunk) {
    int64_t end = std::min(entries, (chunk + 1) * kChunk);
    for (int64_t part = 1; part < parts.count; ++part) {
      const float* addend = total + part * entries;
      for (int64_t n = chunk * kChunk; n < end; ++n) total[n] += addend[n];
    }
  };
  if (parts.count > 1) parallel(pool, (entries + kChunk - 1) / kChunk, add);
  if (c.packs) {
    reorder(c, as(c.packed, all), as(c.kernel, w));
  } else {
    std::memcpy(const_cast<char*>(w), all, bytes);
  }
}

void map(ffi::ThreadPool& pool, const Geometry& g, int64_t members, const char* x, const char* w,
         const char* y) {
  if (g.by_channels()) {
    ChannelParts parts(g);
    return parallel(pool, members * parts.count, [&](int64_t n) {
      int64_t m = n / parts.count;
      auto at = [&](const char* data, size_t bytes) { return const_cast<char*>(data) + m * bytes; };
      parts.compute(n % parts.count, at(x, g.B * g.image()), at(w, g.kernel()),
                    at(y, g.B * g.result()));
    });
  }
  Parts parts(g);
  auto member = [&](int64_t n) {
    auto* one = g.map == kToKernel ? map_kernel : map_images;
    one(pool, parts, x + n * g.B * g.image(), w + n * g.kernel(), y + n * g.B * g.result());
  };
  if (parts.count == 1 && members > 1) {
    parallel(pool, members, member);
  } else {
    for (int64_t n = 0; n < members; ++n) member(n);
  }
}

ffi::Error run(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b,
               ffi::Result<ffi::AnyBuffer> result, int64_t kind, ffi::Span<const int64_t> strides,
               ffi::Span<const int64_t> pads) {
  auto first = a.dimensions(), second = b.dimensions(), third = result->dimensions();
  bool shaped = first.size() == 5 && second.size() == 5 && third.size() == 5 && strides.size() == 2 &&
                pads.size() == 4 && kind >= kForward && kind <= kToKernel;
  auto type = a.element_type();
  bool typed = (type == ffi::DataType::F32 || type == ffi::DataType::BF16) &&
               b.element_type() == type && result->element_type() == type;
  if (!shaped || !typed) return ffi::Error::InvalidArgument("convolution: not operands of oneDNN's");
  auto x = kind == kToImages ? third : first;
  auto w = kind == kToKernel ? third : second;
  auto y = kind == kForward ? third : kind == kToImages ? first : second;
  if (x[0] != w[0] || x[0] != y[0] || x[1] != y[1] || w[3] != x[4] || y[4] != w[4]) {
    return ffi::Error::InvalidArgument("convolution: shapes that do not fit each other");
  }
  Geometry g{kind, type == ffi::DataType::BF16, x[1], x[2], x[3], x[4], w[1], w[2], w[4], y[2], y[3],
             strides[0], strides[1], pads[0], pads[1], pads[2], pads[3], w[3], w[4]};
  auto* in_a = static_cast<const char*>(a.untyped_data());
  auto* in_b = static_cast<const char*>(b.untyped_data());
  auto* out = static_cast<const char*>(result->untyped_data());
  try {
    map(pool, g, x[0], kind == kToImages ? out : in_a, kind == kToKernel ? out : in_b,
        kind == kForward ? out : kind == kToImages ? in_a : in_b);
  } catch (const std::exception& thrown) {
    return ffi::Error::Internal(std::string("oneDNN: ") + thrown.what());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxdlConvolution, run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("map")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("pads"));

// Writes the name of the implementation that oneDNN has for the parts of a geometry, or a text that
// begins with "error: "; at most `size` bytes.
extern "C" void jaxdl_implementation(const int64_t* numbers, char* text, int64_t size) {
  std::string name;
  try {
    Geometry g{};
    std::memcpy(&g, numbers, kNumbers * sizeof(int64_t));
    g.of_I = g.I;
    g.of_O = g.O;
    name = g.by_channels() ? ChannelParts(g).of_last->implementation
                           : Parts(g).of_small->implementation;
  } catch (const std::exception& thrown) {
    name = std::string("error: ") + thrown.what();
  }
  std::strncpy(text, name.c_str(), size - 1);
  text[size - 1] = 0;
}

// Writes oneDNN's version as three numbers, and the instruction set that it uses.
extern "C" void jaxdl_version(int64_t* numbers) {
  const dnnl_version_t* version = dnnl_version();
  numbers[0] = version->major;
  numbers[1] = version->minor;
  numbers[2] = version->patch;
  numbers[3] = static_cast<int64_t>(dnnl::get_effective_cpu_isa());
}
