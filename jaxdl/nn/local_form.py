"""Functions with another form in programs that stay in this process.

The function is a primitive, whose form is chosen when a program is lowered. It is mapped by `vmap`,
differentiated and transposed through its default form, which is in JAX's own primitives. So the
other form is for the function itself, as it is called.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jaxdl.nn import lowering

Form = Callable[..., list[jax.Array]]  # (*operands, **parameters) -> results
PRIMITIVES: set[Primitive] = set()  # all that were made here


def primitive(name: str, default: Form, here: Form) -> Primitive:
    """Makes a function a primitive with two forms.

    Args:
      name: name of the primitive.
      default: the function, in JAX's own primitives; its parameters can be hashed.
      here: the other form, for a CPU of this machine.

    Returns:
      The primitive, with rules for evaluation, `jit`, `vmap` and derivatives.
    """
    made = Primitive(name)
    made.multiple_results = True
    lowering.register(made, default, default, here)

    @made.def_abstract_eval
    def abstract(*operands: ShapedArray, **parameters: Any) -> list[ShapedArray]:
        lowering.check_axes(operands)
        results = jax.eval_shape(functools.partial(default, **parameters), *operands)
        return [ShapedArray(a.shape, a.dtype) for a in results]

    @functools.cache
    def compiled(**parameters: Any) -> Form:
        return jax.jit(functools.partial(made.bind, **parameters))

    made.def_impl(lambda *operands, **parameters: compiled(**parameters)(*operands))

    def jvp(primals: Any, tangents: Any, **parameters: Any) -> tuple[Any, Any]:
        moved = [n for n, t in enumerate(tangents) if type(t) is not ad.Zero]
        rest = _with(default, primals, moved, parameters)
        return jax.jvp(rest, [primals[n] for n in moved], [tangents[n] for n in moved])

    def transpose(gradient: Any, *operands: Any, **parameters: Any) -> list[Any]:
        linear = [n for n, a in enumerate(operands) if ad.is_undefined_primal(a)]
        avals = [operands[n].aval for n in linear]
        rest = _with(default, operands, linear, parameters)
        of_linear = jax.linear_transpose(rest, *avals)([*map(ad.instantiate_zeros, gradient)])
        by = dict(zip(linear, of_linear, strict=True))
        return [by.get(n) for n in range(len(operands))]

    def batch(operands: Any, dims: Any, **parameters: Any) -> tuple[Any, Any]:
        results = jax.vmap(functools.partial(default, **parameters), tuple(dims))(*operands)
        return results, [0] * len(results)

    PRIMITIVES.add(made)
    ad.primitive_jvps[made] = jvp
    ad.primitive_transposes[made] = transpose
    batching.primitive_batchers[made] = batch
    return made


def _with(form: Form, operands: Any, places: list[int], parameters: dict[str, Any]) -> Form:
    """The function of the operands at some places, with the others as they are."""

    def rest(*values: jax.Array) -> list[jax.Array]:
        replaced = dict(zip(places, values, strict=True))
        return form(*(replaced.get(n, a) for n, a in enumerate(operands)), **parameters)

    return rest
