"""Convolutions on a CPU by oneDNN, where its library and a C++ compiler are installed.

oneDNN generates machine code for each shape of a convolution, as PyTorch does on a CPU. Its library
comes with the extra `jaxdl[onednn]`. Handlers in C++ call it from inside XLA's programs;
`jaxdl.native` builds them when the first is needed. Without the extra or a compiler, and in
programs for export, convolutions take the forms of `jaxdl.nn.conv_kernels`. `jaxdl.nn.onednn_lstm`
calls the handlers of LSTM layers.

The bits of a result depend on oneDNN's version and on the processor's instruction set, which
`describe` has for the records of a run. The sizes of its caches, by which oneDNN cuts its loops,
may count as well. The number of threads does not.
"""

import ctypes
import os
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import compilation_cache, native
from jaxdl.nn.conv_window import Window

LIBRARY, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"  # packages
SOURCES = ("onednn_convolution.cc", "onednn_lstm.cc", "onednn.h")
# Names of the handlers in XLA's programs.
CONVOLUTION, LSTM, LSTM_BACKWARD = "jaxdl_convolution", "jaxdl_lstm", "jaxdl_lstm_backward"
FUNCTIONS = {  # of the built library
    CONVOLUTION: "JaxdlConvolution",
    LSTM: "JaxdlLstm",
    LSTM_BACKWARD: "JaxdlLstmBackward",
}
MAPS = ("forward", "to_images", "to_kernel")  # in the order of onednn_convolution.cc
AVX512, WITH_BFLOAT16 = 0x27, 0xE7  # instruction sets, bits of `dnnl_cpu_isa_t`

# The cache directory that `enable` was called with, if any, and what came of loading from it. They
# belong to the process, as JAX's own cache does and the handlers that are registered in XLA.
_directories: list[str] = []
_loaded: "dict[str, Engine | native.NativeError]" = {}
_lock = threading.Lock()


class Engine(NamedTuple):
    """The loaded library.

    Attributes:
      handle: the handler.
      version: oneDNN's version.
      isa: the instruction set that it uses, as in `dnnl_cpu_isa_t`.
    """

    handle: ctypes.CDLL
    version: str
    isa: int

    @property
    def has_bfloat16(self) -> bool:
        """True if the processor has products of bfloat16."""
        return self.isa & WITH_BFLOAT16 == WITH_BFLOAT16


def enable(directory: str) -> None:
    """Allows convolutions to use oneDNN from now on, in programs that are not lowered yet.

    Args:
      directory: cache directory, in which the built handler is kept; empty: use the other forms.
    """
    _directories[:] = [directory] if directory else []


def describe() -> str:
    """Names the library of convolutions and LSTMs on a CPU, its version and instruction set."""
    loaded = current()
    if isinstance(loaded, Engine):
        return f"oneDNN {loaded.version}, instruction set {loaded.isa:#x}"
    return "XLA"


def reason() -> str:
    """Returns why oneDNN is not used although `enable` was called; empty if it is used."""
    loaded = current()
    return str(loaded) if isinstance(loaded, native.NativeError) else ""


def engine_for(name: str, a: Any, b: Any, result: Any, window: Window) -> Engine | None:
    """The library, if it is loaded and the faster one for a map; else None.

    Args:
      name: the map.
      a: first operand, or its shape and dtype, with a leading axis of members.
      b: second operand, likewise.
      result: result, likewise.
      window: geometry.
    """
    loaded = current()
    if not isinstance(loaded, Engine) or a.dtype not in (jnp.float32, jnp.bfloat16):
        return None
    x, w = {"forward": (a, b), "to_images": (result, b), "to_kernel": (a, result)}[name]
    sizes = x.shape[1], *w.shape[3:]
    is_empty = 0 in (*a.shape, *b.shape, *result.shape)
    lacks = a.dtype == jnp.bfloat16 and not loaded.has_bfloat16
    # In bfloat16 oneDNN 3.2 adds up memory from outside of the arrays there.
    is_wrong = name == "to_kernel" and window.has_idle_pixels()
    if is_empty or lacks or is_wrong or not prefers(name, a.dtype, sizes, window):
        return None
    return loaded if implementation(loaded, name, a.dtype, sizes, window) else None


def prefers(name: str, dtype: Any, sizes: tuple[int, int, int], window: Window) -> bool:
    """The table: whether oneDNN is faster than the forms of `jaxdl.nn.conv_kernels`.

    `experiments.benchmarks.convolutions` measures both.

    Args:
      name: the map.
      dtype: float32 or bfloat16.
      sizes: (B, I, O), the number of images and of channels in and out.
      window: geometry.
    """
    (B, inputs, outputs), (rows, columns) = sizes, window.out()
    is_float32, is_product = dtype == jnp.float32, window.kernel == (1, 1)
    if min(min(pads) for pads in window.padding) < 0:
        return False
    if name == "to_kernel":  # with strides, a sum over few pixels is best as one product
        is_small = inputs * outputs * window.kernel[0] * window.kernel[1] <= 2**18
        return is_small or B * rows * columns >= 2048 or window.strides == (1, 1)
    if is_product:  # in float32 level with XLA's products, which go with other operations
        return not is_float32 and (name == "forward" or window.strides == (1, 1))
    return name == "forward" or inputs > 4 or not is_float32


def current() -> Engine | native.NativeError | None:
    """The library, or why it cannot be loaded; None if `enable` was not called."""
    with _lock:  # programs may be lowered in several threads, and XLA takes a handler once
        engine = next((one for one in _loaded.values() if isinstance(one, Engine)), None)
        if not _directories or engine:
            return engine if _directories else None
        (directory,) = _directories
        if directory not in _loaded:
            try:
                _loaded[directory] = load(directory)
            except native.NativeError as error:
                _loaded[directory] = error
        return _loaded[directory]


def load(directory: str) -> Engine:
    """Loads oneDNN and the handler, and registers the handler in XLA, which takes only one.

    Args:
      directory: cache directory, for the built handler.

    Raises:
      native.NativeError: a part is missing or fails.
    """
    library, header = _file(LIBRARY, "libdnnl.so.3"), _file(HEADERS, "oneapi/dnnl/dnnl.hpp")
    source = native.Source(
        [Path(__file__).parent / name for name in SOURCES],
        (Path(jax.ffi.include_dir()), header.parents[2]),
        (library,),
        [f"{name} {metadata.version(name)}" for name in ("jaxlib", LIBRARY, HEADERS)],
        ["jaxdl_version", "jaxdl_implementation", *FUNCTIONS.values()],
    )
    try:
        cache = compilation_cache.open_cache(directory)
        ctypes.CDLL(str(library))  # the handler finds it by its name
    except OSError as error:
        where = error.filename or directory
        raise native.NativeError(f"{where}: {error.strerror or error}") from error
    handle = native.load(source, cache)
    numbers = (ctypes.c_int64 * 4)()
    handle.jaxdl_version(numbers)
    if numbers[3] & AVX512 != AVX512:
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
        hidden = f", or ONEDNN_MAX_CPU_ISA={limit} hides it" if limit else ""
        raise native.NativeError(f"this processor lacks AVX-512{hidden}")
    for name, function in FUNCTIONS.items():
        capsule = jax.ffi.pycapsule(getattr(handle, function))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return Engine(handle, ".".join(map(str, numbers[:3])), numbers[3])


def _file(package: str, name: str) -> Path:
    """Path of the first file of a package whose path ends with `name`.

    Raises:
      native.NativeError: there is none.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if str(file).endswith(f"/{name}"):
            return Path(str(file.locate())).resolve()
    raise native.NativeError("oneDNN is not installed: pip install 'jaxdl[onednn]'")


def convolve(
    engine: Engine, name: str, a: jax.Array, b: jax.Array, shape: tuple[int, ...], window: Window
) -> jax.Array:
    """One of the maps of a convolution, by oneDNN.

    Args:
      engine: the library.
      name: the map.
      a: first operand, with a leading axis of members.
      b: second operand, likewise.
      shape: shape of the result, likewise.
      window: geometry.
    """
    call = jax.ffi.ffi_call(CONVOLUTION, jax.ShapeDtypeStruct(shape, a.dtype))
    return call(
        a,
        b,
        map=np.int64(MAPS.index(name)),
        strides=np.array(window.strides, np.int64),
        pads=np.array(window.padding, np.int64).ravel(),
    )


def implementation(
    engine: Engine, name: str, dtype: Any, sizes: tuple[int, int, int], window: Window
) -> str:
    """Name of oneDNN's implementation of a map, such as `jit:avx512_core`.

    Args:
      engine: the library.
      name: the map.
      dtype: float32 or bfloat16.
      sizes: (B, I, O), the number of images and of channels in and out.
      window: geometry.

    Returns:
      The name; empty if oneDNN has none for this processor other than its reference, which is slow.
    """
    B, inputs, outputs = sizes
    numbers = [
        *(MAPS.index(name), dtype == jnp.bfloat16),
        *(B, *window.image, inputs),
        *(*window.kernel, outputs),
        *window.out(),
        *window.strides,
        *window.padding[0],
        *window.padding[1],
    ]
    text = ctypes.create_string_buffer(200)
    array = (ctypes.c_int64 * len(numbers))(*map(int, numbers))
    engine.handle.jaxdl_implementation(array, text, ctypes.c_int64(len(text)))
    found = text.value.decode("utf-8", "replace")
    return "" if found.startswith(("error", "ref")) else found
