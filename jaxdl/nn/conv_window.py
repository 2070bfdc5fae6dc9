"""Geometry of a two-dimensional convolution: sizes, strides and padding."""

from typing import NamedTuple

Pads = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """Geometry of a convolution: all of it but its operands."""

    strides: tuple[int, int]
    padding: Pads  # pixels of zeros before and after, negative ones are cut off
    image: tuple[int, int]  # H, W
    kernel: tuple[int, int]  # k, l

    def out(self) -> tuple[int, ...]:
        """H', W'."""
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + sum(pad) - k) // s + 1) for n, k, s, pad in sizes)

    def mirrored(self) -> "Window":
        """Window of the gradient with respect to images, over outputs spread by the strides."""
        spread = tuple((n - 1) * s + 1 for n, s in zip(self.out(), self.strides, strict=True))
        before = [k - 1 - pad[0] for k, pad in zip(self.kernel, self.padding, strict=True)]
        pads = tuple(
            (p, n - m - p + k - 1)
            for n, m, p, k in zip(self.image, spread, before, self.kernel, strict=True)
        )
        return Window((1, 1), pads, spread, self.kernel)  # type: ignore[arg-type]
