// An LSTM layer by oneDNN's products, as two handlers of XLA's foreign function interface.
//
// jaxdl/nn/onednn_lstm.py calls them; jaxdl/nn/recurrent.py has the same computation in JAX, and the
// names. Sequences do not depend on each other, so a batch is cut into parts, some examples each,
// and one thread takes a part through all positions: threads wait for each other once, and not at
// each position. The parts depend on the shapes alone, so the bits do not depend on the number of
// threads. The kernel is packed once, not at each position.
//
// Shapes: B examples of T positions; F features; the gates i, f, g, o are side by side, 4 * F.

#include <cmath>
#include <cstring>

#include "onednn.h"

namespace {

using namespace jaxdl;

constexpr int64_t kRows = 16;  // examples of a part, at least: each part reads the whole kernel

// Functions of this kind are compiled for the processors that jaxdl/nn/onednn.py asks for.
#define WIDE __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
#define INLINE inline __attribute__((always_inline)) WIDE

// tanh(a) = a P(a^2) / Q(a^2), fitted to a relative error of 6e-8; from `kLargest` on it rounds to 1.
constexpr float kLargest = 9.011f;

INLINE float hyperbolic_tangent(float a) {
  a = a > kLargest ? kLargest : a;
  a = a < -kLargest ? -kLargest : a;
  float z = a * a;
  float p = __builtin_fmaf(z, 1.82033875e-11f, -1.27600069e-08f);
  p = __builtin_fmaf(z, p, 9.26057266e-06f);
  p = __builtin_fmaf(z, p, 2.92001028e-03f);
  p = __builtin_fmaf(z, p, 1.29185292e-01f);
  p = __builtin_fmaf(z, p, 9.99999941e-01f);
  float q = __builtin_fmaf(z, 2.27996364e-04f, 2.37600914e-02f);
  q = __builtin_fmaf(z, q, 4.62518126e-01f);
  q = __builtin_fmaf(z, q, 1.0f);
  float y = a * p / q;
  y = y > 1.0f ? 1.0f : y;
  return y < -1.0f ? -1.0f : y;
}

INLINE float sigmoid(float a) {
  return __builtin_fmaf(0.5f, hyperbolic_tangent(0.5f * a), 0.5f);
}

// To and from bfloat16, which are the upper halves of float32, rounded to the nearest, even on ties.
INLINE float widen(uint16_t a) {
  uint32_t bits = static_cast<uint32_t>(a) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

INLINE float widen(float a) { return a; }

WIDE void narrow(const float* __restrict from, uint16_t* __restrict to, int64_t count) {
  for (int64_t n = 0; n < count; ++n) {
    uint32_t bits;
    std::memcpy(&bits, from + n, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    to[n] = static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40 : rounded);
  }
}

// The numbers that a product [M, K] @ [K, N] depends on. If `transposed`, the caller's right operand
// is [N, K].
struct Sizes {
  int64_t M, K, N, transposed, bfloat16;

  std::vector<int64_t> key() const { return {M, K, N, transposed, bfloat16}; }
};

// A product with a float32 result.
struct Product {
  dnnl::primitive compute, reorder;
  dnnl::memory::desc left, right, packed, result, scratch, reorder_scratch;

  explicit Product(const Sizes& s) {
    OneThread one;
    Type type = s.bfloat16 ? Type::bf16 : Type::f32;
    left = {{s.M, s.K}, type, Tag::ab};
    right = {{s.K, s.N}, type, s.transposed ? Tag::ba : Tag::ab};
    result = {{s.M, s.N}, Type::f32, Tag::ab};
    dnnl::matmul::primitive_desc d(engine(), left, {{s.K, s.N}, type, Tag::any}, result,
                                   attributes());
    packed = d.weights_desc();
    scratch = d.scratchpad_desc();
    compute = dnnl::matmul(d);
    dnnl::reorder::primitive_desc r(engine(), right, engine(), packed, attributes());
    reorder_scratch = r.scratchpad_desc();
    reorder = dnnl::reorder(r);
  }

  // The right operand in oneDNN's layout.
  const void* pack(const void* kernel, Buffer& buffer) const {
    char* space = buffer.get(packed.get_size());
    execute(reorder, reorder_scratch,
            {{DNNL_ARG_FROM, as(right, kernel)}, {DNNL_ARG_TO, as(packed, space)}});
    return space;
  }

  void operator()(const void* a, const void* b, float* y) const {
    execute(compute, scratch,
            {{DNNL_ARG_SRC, as(left, a)}, {DNNL_ARG_WEIGHTS, as(packed, b)},
             {DNNL_ARG_DST, as(result, y)}});
  }
};

using Products = Cache<Sizes, Product>;

// A batch cut into parts: the first `more` have one example more than the others.
struct Batch {
  int64_t count, rows, more;
  std::shared_ptr<const Product> of_small, of_large;

  Batch(int64_t B, int64_t K, int64_t N, bool transposed, bool bfloat16)
      : count(std::max<int64_t>(1, B / kRows)), rows(B / count), more(B % count) {
    if (!B || !K || !N) throw std::invalid_argument("a size of 0");
    of_small = Products::instance().find({rows, K, N, transposed, bfloat16});
    if (!more) return;
    of_large = Products::instance().find({rows + 1, K, N, transposed, bfloat16});
  }

  int64_t first(int64_t n) const { return n * rows + std::min(n, more); }
  int64_t size(int64_t n) const { return rows + (n < more); }
  const Product& product(int64_t n) const { return n < more ? *of_large : *of_small; }
};

// One example at one position. `gates` are written only if they are kept.
template <bool keeps, class Input>
WIDE void step(int64_t F, const Input* __restrict x, const float* __restrict bias,
               const float* __restrict inner, const float* __restrict c_before,
               float* __restrict gates, float* __restrict c, float* __restrict h) {
  for (int64_t n = 0; n < F; ++n) {
    float i = sigmoid(widen(x[n]) + (inner[n] + bias[n]));
    float f = sigmoid(widen(x[F + n]) + (inner[F + n] + bias[F + n]));
    float g = hyperbolic_tangent(widen(x[2 * F + n]) + (inner[2 * F + n] + bias[2 * F + n]));
    float o = sigmoid(widen(x[3 * F + n]) + (inner[3 * F + n] + bias[3 * F + n]));
    float now = __builtin_fmaf(f, c_before[n], i * g);
    if constexpr (keeps) {
      gates[n] = i;
      gates[F + n] = f;
      gates[2 * F + n] = g;
      gates[3 * F + n] = o;
    }
    c[n] = now;
    h[n] = o * hyperbolic_tangent(now);
  }
}

// Its derivative. `by_h` becomes the gradient by this position's sums alone, `by_c` that by the cell
// before.
WIDE void step_back(int64_t F, const float* __restrict gates, const float* __restrict c_before,
                    const float* __restrict c, const float* __restrict by_h, float* __restrict by_c,
                    float* __restrict by_gates) {
  for (int64_t n = 0; n < F; ++n) {
    float i = gates[n], f = gates[F + n], g = gates[2 * F + n], o = gates[3 * F + n];
    float tanh_c = hyperbolic_tangent(c[n]);
    float by = __builtin_fmaf(by_h[n] * o, 1.0f - tanh_c * tanh_c, by_c[n]);
    by_gates[n] = by * g * (i - i * i);
    by_gates[F + n] = by * c_before[n] * (f - f * f);
    by_gates[2 * F + n] = by * i * (1.0f - g * g);
    by_gates[3 * F + n] = by_h[n] * tanh_c * (o - o * o);
    by_c[n] = by * f;
  }
}

struct Layer {
  int64_t T, B, F;
  bool backwards, bfloat16;

  int64_t position(int64_t n) const { return backwards ? T - 1 - n : n; }  // the n-th in order
};

struct Forward {
  Layer layer;
  const char* x;
  const float *bias, *h0, *c0;
  const bool* valid;
  float *h, *c, *gates;  // at all positions; the gates may be null

  template <bool keeps, class Input>
  void part(const Batch& batch, int64_t n, const void* kernel) const {
    const auto [T, B, F, backwards, bfloat16] = layer;
    int64_t first = batch.first(n), rows = batch.size(n);
    thread_local Buffer space, narrowed;
    auto* inner = reinterpret_cast<float*>(space.get(rows * 4 * F * sizeof(float)));
    auto* half = reinterpret_cast<uint16_t*>(narrowed.get(rows * F * sizeof(uint16_t)));
    const float *h_before = h0 + first * F, *c_before = c0 + first * F;
    for (int64_t s = 0; s < T; ++s) {
      int64_t at = layer.position(s) * B + first;
      if (bfloat16) narrow(h_before, half, rows * F);
      batch.product(n)(bfloat16 ? static_cast<const void*>(half) : h_before, kernel, inner);
      float *h_now = h + at * F, *c_now = c + at * F;
      for (int64_t row = 0; row < rows; ++row) {
        float *to_h = h_now + row * F, *to_c = c_now + row * F;
        const float *from_h = h_before + row * F, *from_c = c_before + row * F;
        float* to_gates = keeps ? gates + (at + row) * 4 * F : nullptr;
        if (valid[at + row]) {
          auto* sums = reinterpret_cast<const Input*>(x) + (at + row) * 4 * F;
          step<keeps>(F, sums, bias, inner + row * 4 * F, from_c, to_gates, to_c, to_h);
          continue;
        }
        std::memcpy(to_h, from_h, F * sizeof(float));
        std::memcpy(to_c, from_c, F * sizeof(float));
        if (keeps) std::memset(to_gates, 0, 4 * F * sizeof(float));
      }
      h_before = h_now;
      c_before = c_now;
    }
  }
};

struct Backward {
  Layer layer;
  const float *gates, *c, *c0, *by_h_all, *by_h_last, *by_c_last;
  const bool* valid;
  float *by_gates, *by_h, *by_c;  // of all positions; of the state before the first

  void part(const Batch& batch, int64_t n, const void* kernel) const {
    const auto [T, B, F, backwards, bfloat16] = layer;
    int64_t first = batch.first(n), rows = batch.size(n);
    thread_local Buffer narrowed, of_product;
    auto* half = reinterpret_cast<uint16_t*>(narrowed.get(rows * 4 * F * sizeof(uint16_t)));
    auto* product = reinterpret_cast<float*>(of_product.get(rows * F * sizeof(float)));
    float *h = by_h + first * F, *c_by = by_c + first * F;
    std::memcpy(h, by_h_last + first * F, rows * F * sizeof(float));
    std::memcpy(c_by, by_c_last + first * F, rows * F * sizeof(float));
    for (int64_t s = T - 1; s >= 0; --s) {
      int64_t at = layer.position(s) * B + first;
      const float* before = s ? c + (layer.position(s - 1) * B + first) * F : c0 + first * F;
      float* to = by_gates + at * 4 * F;
      for (int64_t row = 0; row < rows; ++row) {
        float* h_row = h + row * F;
        const float* more = by_h_all + (at + row) * F;
        for (int64_t f = 0; f < F; ++f) h_row[f] += more[f];
        float* gates_row = to + row * 4 * F;
        if (valid[at + row]) {
          step_back(F, gates + (at + row) * 4 * F, before + row * F, c + (at + row) * F, h_row,
                    c_by + row * F, gates_row);
        } else {
          std::memset(gates_row, 0, 4 * F * sizeof(float));
        }
      }
      if (bfloat16) narrow(to, half, rows * 4 * F);
      batch.product(n)(bfloat16 ? static_cast<const void*>(half) : to, kernel, product);
      for (int64_t row = 0; row < rows; ++row) {
        if (valid[at + row]) std::memcpy(h + row * F, product + row * F, F * sizeof(float));
      }
    }
  }
};

template <class Pass>
void each_part(ffi::ThreadPool& pool, const Batch& batch, const void* kernel, const Pass& pass) {
  thread_local Buffer for_small, for_large;
  const void* small = batch.of_small->pack(kernel, for_small);
  const void* large = small;
  if (batch.more && batch.of_large->packed != batch.of_small->packed) {
    large = batch.of_large->pack(kernel, for_large);
  }
  parallel(pool, batch.count, [&](int64_t n) { pass(n, n < batch.more ? large : small); });
}

ffi::Error wrong() { return ffi::Error::InvalidArgument("LSTM: operands that do not fit"); }

template <class Operand>
bool is(const Operand& a, std::initializer_list<int64_t> shape) {
  auto own = a.dimensions();
  return own.size() == shape.size() && std::equal(own.begin(), own.end(), shape.begin());
}

template <class Call>
ffi::Error guarded(Call call) {
  try {
    call();
  } catch (const std::exception& thrown) {
    return ffi::Error::Internal(std::string("oneDNN: ") + thrown.what());
  }
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::DataType::F32>;
using Flags = ffi::Buffer<ffi::DataType::PRED>;

// The dtype of the products, that of the kernel; 0 if there is no such product.
int known(ffi::DataType type) {
  return type == ffi::DataType::F32 ? 1 : type == ffi::DataType::BF16 ? 2 : 0;
}

ffi::Error forward(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer kernel, F32 bias, F32 h0,
                   F32 c0, Flags valid, ffi::Result<F32> h, ffi::Result<F32> c,
                   ffi::Result<F32> gates, bool backwards) {
  auto sizes = h->dimensions();
  if (sizes.size() != 3) return wrong();
  int64_t T = sizes[0], B = sizes[1], F = sizes[2];
  bool keeps = gates->element_count() > 0;
  int type = known(kernel.element_type());
  if (!type || x.element_type() != kernel.element_type() || !is(x, {T, B, 4 * F}) ||
      !is(kernel, {F, 4 * F}) || !is(bias, {4 * F}) || !is(h0, {B, F}) || !is(c0, {B, F}) ||
      !is(valid, {T, B, 1}) || !is(*c, {T, B, F}) ||
      (keeps && !is(*gates, {T, B, 4 * F}))) {
    return wrong();
  }
  bool bfloat16 = type == 2;
  return guarded([&] {
    Batch batch(B, F, 4 * F, false, bfloat16);
    Forward pass{{T, B, F, backwards, bfloat16},
                 static_cast<const char*>(x.untyped_data()),
                 bias.typed_data(), h0.typed_data(), c0.typed_data(), valid.typed_data(),
                 h->typed_data(), c->typed_data(), keeps ? gates->typed_data() : nullptr};
    each_part(pool, batch, kernel.untyped_data(), [&](int64_t n, const void* packed) {
      if (bfloat16) {
        keeps ? pass.part<true, uint16_t>(batch, n, packed) : pass.part<false, uint16_t>(batch, n, packed);
      } else {
        keeps ? pass.part<true, float>(batch, n, packed) : pass.part<false, float>(batch, n, packed);
      }
    });
  });
}

ffi::Error backward(ffi::ThreadPool pool, F32 gates, F32 c, F32 c0, Flags valid,
                    ffi::AnyBuffer kernel, F32 by_h_all, F32 by_h_last, F32 by_c_last,
                    ffi::Result<F32> by_gates, ffi::Result<F32> by_h, ffi::Result<F32> by_c,
                    bool backwards) {
  auto sizes = c.dimensions();
  if (sizes.size() != 3) return wrong();
  int64_t T = sizes[0], B = sizes[1], F = sizes[2];
  int type = known(kernel.element_type());
  if (!type || !is(gates, {T, B, 4 * F}) || !is(c0, {B, F}) || !is(valid, {T, B, 1}) ||
      !is(kernel, {F, 4 * F}) || !is(by_h_all, {T, B, F}) || !is(by_h_last, {B, F}) ||
      !is(by_c_last, {B, F}) || !is(*by_gates, {T, B, 4 * F}) || !is(*by_h, {B, F}) ||
      !is(*by_c, {B, F})) {
    return wrong();
  }
  bool bfloat16 = type == 2;
  return guarded([&] {
    Batch batch(B, 4 * F, F, true, bfloat16);
    Backward pass{{T, B, F, backwards, bfloat16}, gates.typed_data(), c.typed_data(),
                  c0.typed_data(), by_h_all.typed_data(), by_h_last.typed_data(),
                  by_c_last.typed_data(), valid.typed_data(), by_gates->typed_data(),
                  by_h->typed_data(), by_c->typed_data()};
    each_part(pool, batch, kernel.untyped_data(),
              [&](int64_t n, const void* packed) { pass.part(batch, n, packed); });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxdlLstm, forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<Flags>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Attr<bool>("backwards"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxdlLstmBackward, backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<Flags>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Attr<bool>("backwards"));
