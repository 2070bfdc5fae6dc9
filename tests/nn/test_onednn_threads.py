"""Any threads give the same bits by oneDNN; skipped where its wheel or a compiler lacks."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import convolution, onednn
from jaxdl.nn.recurrent import Recurrent
from tests.nn.convolved import SAME, by_onednn, layer, normal, operands

ROOT = Path(__file__).parents[2]

BITS = """
import os, sys
if sys.argv[2] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from jaxdl.nn import onednn
from tests.nn.test_onednn_threads import digest
onednn.enable(sys.argv[1])
print(digest(), onednn.describe())
"""


def digest():
    """SHA-256 of the gradients of a convolution and of an LSTM."""

    def loss(x, w):
        y = convolution.convolve(x, w, (1, 1), SAME)
        return jnp.sum(jnp.sin(convolution.convolve(y, w, (2, 2), SAME).astype(jnp.float32)))

    sha = hashlib.sha256()
    for dtype in ("float32", "bfloat16"):
        x, w = normal(0, 13, 16, 16, 32, dtype=dtype), normal(1, 3, 3, 32, 32, dtype=dtype)
        by_channels = normal(3, 2, 2, 2, 128, dtype=dtype), normal(4, 3, 3, 128, 256, dtype=dtype)
        lstm = Recurrent("lstm", 16, bidirectional=True, dtype=dtype)
        rows, lengths = normal(2, 53, 7, 8, dtype=dtype), jnp.arange(53) % 8
        variables = lstm.init(jax.random.key(0), rows, lengths, train=False)

        def sequences(variables, lstm=lstm, rows=rows, lengths=lengths):
            y, _ = lstm.apply(variables, rows, lengths, train=False)
            return jnp.sum(jnp.sin(y.astype(jnp.float32)))

        gradients = [
            *jax.jit(jax.grad(loss, (0, 1)))(x, 0.1 * w),
            *jax.jit(jax.grad(layer, (0, 1)))(*by_channels),
            *jax.tree.leaves(jax.jit(jax.grad(sequences))(variables)),
        ]
        for gradient in gradients:
            sha.update(np.asarray(gradient.astype(jnp.float32)).tobytes())
    return sha.hexdigest()


@pytest.mark.usefixtures("engine")
def test_bits_do_not_depend_on_the_number_of_threads(tmp_path):
    def bits(cores, flags):
        folder, variables = onednn._directories[0], os.environ | {"XLA_FLAGS": flags}
        command = [sys.executable, "-c", BITS, folder, cores]
        result = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, encoding="utf-8", check=True
        )
        assert "oneDNN" in result.stdout
        return result.stdout

    many = "--xla_force_host_platform_device_count=7"  # XLA has a thread for each device
    assert len({bits("one", ""), bits("all", ""), bits("all", many)}) == 1


def test_threads_of_the_host_may_call_at_the_same_time(engine):
    (x, w, y), window = operands("parts", "float32")
    wanted, found = by_onednn(engine, x, w, y, window), {}

    def work(n):
        for _ in range(5):
            found[n] = by_onednn(engine, x, w, y, window)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        for one, other in zip(found[n], wanted, strict=True):
            np.testing.assert_array_equal(one, other)
