"""Operations of a step, and the first one in which two programs differ."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.tools.diff_operation import FirstOperation
from jaxdl.tools.differences import differing_operations, unmatched_operations
from jaxdl.train import operations


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.float16, np.float64])
def test_any_flipped_bit_gives_another_digest(dtype):
    array = (np.random.default_rng(0).random(20) * 200).astype(dtype)
    digests = {operations.digest(array)}
    for bit in range(array.nbytes * 8):
        flipped = array.copy()
        flipped.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        digests.add(operations.digest(flipped))
    assert len(digests) == 1 + array.nbytes * 8


def test_operations_inside_calls_have_their_layers_and_phases():
    def loss(weights, x):
        with jax.named_scope("first"):
            return jax.nn.relu(x @ weights).sum()

    def step(weights, x):
        x = x * 2
        return weights - jax.grad(loss)(weights, x)

    arguments = jnp.ones((3, 2)), jnp.ones((4, 3))
    listed = operations.operations(step, (), *arguments)
    phases = [one.phase for one in listed]
    assert phases[0] == "before the gradient"
    assert phases[-1] == "after the gradient"
    products = [one for one in listed if one.primitive == "dot_general"]
    assert [(one.layer, one.phase) for one in products] == [
        ("first", "forward"),
        ("first", "backward"),
    ]
    number = listed.index(products[0])
    np.testing.assert_array_equal(
        operations.result(step, (), number, *arguments), 6 * np.ones((4, 2))
    )
    assert str(products[0]) == "first (dot_general, forward) float32[4,2]"


def test_the_differences_of_lists_of_unequal_length():
    def operation(digest, primitive="add"):
        return operations.Operation("layer", primitive, "forward", "float32[]", digest)

    a = [operation("1"), operation("2"), operation("3")]
    b = [operation("1"), operation("9", "mul"), operation("2"), operation("4")]
    assert differing_operations(a, b) == ([2], [1, 3])
    assert differing_operations(a, a) == ([], [])
    assert differing_operations(a, [*a[:2], operation("5")]) == ([2], [2])
    assert unmatched_operations(a[:1], b[:2]) == ([], [1])


def test_layers_called_by_methods_have_the_paths_of_their_weights():
    class Block(nn.Module):
        def setup(self):
            self.narrow = nn.Dense(2)

        def _branch(self, x):
            return self.narrow(x)

        def __call__(self, x):
            return self._branch(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Block(name="block")(x)

        def encode(self, x):
            return self(x)

    net, x = Net(), jnp.ones((3, 2))
    weights = net.init(jax.random.key(0), x)
    for method in (None, Net.encode):
        gradient = jax.grad(lambda w, m=method: net.apply(w, x, method=m).sum())
        listed = operations.operations(gradient, (), weights)
        assert {one.layer for one in listed if one.primitive == "dot_general"} == {
            "Net/block/narrow"
        }


def test_programs_that_only_xla_computes_otherwise_differ_in_an_operation(tmp_path, capsys):
    def operation(layer, primitive):
        return operations.Operation(layer, primitive, "forward", "float32[]", "1")

    class Listed(NamedTuple):
        name: str
        listed: list[operations.Operation]

        def send(self, do, **arguments):
            assert do == "operations"

        def answer(self):
            return self.listed

    shared = [operation("Net/Dense_0", "add"), operation("Net/Dense_1", "add")]
    more = [shared[0], operation("Net/BatchNorm_0", "mul"), shared[1]]
    FirstOperation([Listed("A", shared), Listed("B", more)], tmp_path, initial=False).show()
    line = "operations: one by one all give the same bits; they differ as XLA compiles them"
    assert capsys.readouterr().out.splitlines() == [
        f"{line} together",
        "first operation of A alone: none",
        "first operation of B alone: none, with equal results Net/BatchNorm_0 (mul, forward) "
        "float32[]",
    ]
    FirstOperation([Listed("A", shared), Listed("B", shared)], tmp_path, initial=False).show()
    assert capsys.readouterr().out == f"{line} together\n"


@pytest.mark.parametrize("kind", ["scan", "reverse", "while", "cond"])
def test_loops_are_looked_into(kind):
    """The iterations of each kind of loop give its results, and their operations are listed."""

    def function(x):
        def body(carry, row):
            return carry * row + 1, carry

        if kind == "while":
            return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x[0]))
        if kind == "cond":
            return jax.lax.cond(x[0] > 0, lambda x: x * 3, lambda x: x, x)
        return jax.lax.scan(body, 1.0, x, reverse=kind == "reverse")

    x = jnp.float32([2, 3, 5])
    listed = operations.operations(function, (), x)
    number = next(n for n, one in enumerate(listed) if one.primitive in operations.LOOPS)
    digests = operations.iterations(function, (), number, x)
    assert len(digests) == (1 if kind == "cond" else 3)
    last = listed[number].digests.split()
    assert digests[-1].split()[0 if kind != "while" else 1] in last
    inside = operations.operations(function, [(number, len(digests) - 1)], x)
    assert "mul" in [one.primitive for one in inside]
    product = next(n for n, one in enumerate(inside) if one.primitive == "mul")
    value = operations.result(function, [(number, len(digests) - 1)], product, x)
    expected = {"scan": 50, "reverse": 38, "while": 16, "cond": [6, 9, 15]}[kind]
    np.testing.assert_array_equal(value, expected)
