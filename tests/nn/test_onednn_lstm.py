"""LSTM layers by oneDNN, against NumPy; skipped where its wheel or a compiler lacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from jaxdl.nn import onednn_lstm, recurrence

TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def operands(sizes, dtype="float32"):
    """All operands of a layer; some positions are padding, and some examples are nothing else."""
    T, B, F = sizes
    projected, kernel = normal(0, T, B, 4 * F, dtype=dtype), normal(1, F, 4 * F, dtype=dtype)
    lengths = np.random.default_rng(2).integers(0, T + 1, B)
    valid = jnp.asarray(np.arange(T)[:, None, None] < lengths[:, None])
    state = normal(3, B, F), normal(4, B, F)
    return projected, kernel / F**0.5, normal(5, 4 * F), state, valid


def by_loops(backwards, projected, kernel, bias, state, valid, by_h, by_last):
    """Outputs, and gradients of the sum of outputs times `by_h`, `by_last`, in float64."""
    projected, kernel, bias, *state, by_h = (
        np.asarray(a, np.float64) for a in (projected, kernel, bias, *state, by_h)
    )
    (h, c), (T, B, F), valid = state, by_h.shape, np.asarray(valid)
    order = range(T)[::-1] if backwards else range(T)
    outputs, tape = np.zeros((T, B, F)), []
    for t in order:
        i, f, g, o = np.split(projected[t] + h @ kernel + bias, 4, axis=1)
        i, f, g, o = expit(i), expit(f), np.tanh(g), expit(o)
        new = f * c + i * g
        tape.append((t, h, c, i, f, g, o, new))
        h = np.where(valid[t], o * np.tanh(new), h)
        c = np.where(valid[t], new, c)
        outputs[t] = h
    dh, dc = (np.asarray(a, np.float64) for a in by_last)
    d_projected, d_kernel = np.zeros_like(projected), np.zeros_like(kernel)
    for t, h_before, c_before, i, f, g, o, new in reversed(tape):
        dh = dh + by_h[t]
        dc_new = dc + dh * o / np.cosh(new) ** 2
        sums = (dc_new * g * i * (1 - i), dc_new * c_before * f * (1 - f))
        sums += (dc_new * i * (1 - g**2), dh * np.tanh(new) * o * (1 - o))
        d = np.where(valid[t], np.concatenate(sums, axis=1), 0)
        d_projected[t], d_kernel = d, d_kernel + h_before.T @ d
        dh = np.where(valid[t], d @ kernel.T, dh)
        dc = np.where(valid[t], dc_new * f, dc)
    gradients = d_projected, d_kernel, d_projected.sum((0, 1)), (dh, dc)
    return (outputs, (h, c)), gradients


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 53, 24), (12, 32, 64)])
def test_equals_loops_in_float64(engine, sizes, backwards, dtype):
    if dtype == "bfloat16" and not engine.has_bfloat16:
        pytest.skip("no bfloat16 in this processor")
    *given, valid = operands(sizes, dtype)
    by_h, by_last = normal(6, *sizes), (normal(7, *sizes[1:]), normal(8, *sizes[1:]))
    assert onednn_lstm.is_available(given[1], valid)

    @jax.jit
    def both(*given):
        results, back = jax.vjp(lambda *a: recurrence.run("lstm", backwards, *a, valid), *given)
        return results, back((by_h, by_last))

    assert "jaxdl_lstm_backward" in both.lower(*given).as_text()
    expected = by_loops(backwards, *given, valid, by_h, by_last)
    for ours, exact in zip(jax.tree.leaves(both(*given)), jax.tree.leaves(expected), strict=True):
        error = np.abs(np.asarray(ours, np.float64) - exact).max()
        assert error <= TOLERANCE[dtype] * max(1, np.abs(exact).max())


@pytest.mark.usefixtures("engine")
def test_the_gates_are_not_kept_without_a_gradient():
    projected, kernel, bias, (h, c), valid = operands((5, 4, 8))
    call = jax.jit(onednn_lstm.forward, static_argnames=("backwards", "keep"))
    kept = call(projected, kernel, bias, valid, h, c, backwards=False, keep=True)
    alone = call(projected, kernel, bias, valid, h, c, backwards=False, keep=False)
    assert kept[2].shape == (5, 4, 32)
    assert alone[2].shape == (0,)
    for a, b in zip(kept[:2], alone[:2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("engine")
def test_values_that_are_not_finite_stay_so():
    projected, kernel, bias, state, valid = operands((3, 2, 8))
    valid = jnp.ones_like(valid)
    large = projected.at[0, 0].set(jnp.inf).at[0, 1, 3].set(jnp.nan)
    run = jax.jit(recurrence.run, static_argnums=(0, 1))
    h, _ = run("lstm", False, large, kernel, bias, state, valid)
    np.testing.assert_allclose(h[0, 0], np.tanh(np.asarray(state[1][0]) + 1), rtol=1e-5)
    assert np.isnan(h[0, 1, 3])
    assert np.isnan(h[1, 1]).all()
    assert np.isfinite(h[:, 0]).all()


@pytest.mark.usefixtures("engine")
def test_operands_that_do_not_fit_are_refused():
    projected, kernel, bias, (h, c), valid = operands((5, 4, 8))
    for wrong in ({"kernel": kernel[:4]}, {"bias": bias[1:]}, {"h": h[1:]}, {"valid": valid[1:]}):
        given = {"projected": projected, "kernel": kernel, "bias": bias, "valid": valid}
        given |= {"h": h, "c": c} | wrong
        with pytest.raises(jax.errors.JaxRuntimeError, match="LSTM: operands that do not fit"):
            onednn_lstm.forward(**given, backwards=False, keep=True)
    empty = jnp.zeros((5, 0, 1), bool)
    assert not onednn_lstm.is_available(kernel, empty)
    h, _ = recurrence.run("lstm", False, projected[:, :0], kernel, bias, (h[:0], c[:0]), empty)
    assert h.shape == (5, 0, 8)
