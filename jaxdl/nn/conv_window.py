"""Geometry of a two-dimensional convolution: sizes, strides and padding.

`Window` is the static parameter of the three convolution primitives of `jaxdl.nn.convolution`. It
computes the size of the output, and the geometry of the convolution that is the gradient with
respect to the images. `jaxdl.nn.convolution` explains how convolutions work here.
"""

from typing import NamedTuple

Pads = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


class Window(NamedTuple):
    """Geometry of a convolution: everything about it except its operands.

    Attributes:
      strides: steps between two positions of the kernel, in pixels, down and right.
      padding: pixels of zeros before and after each axis; a negative number crops.
      image: H, W of the images.
      kernel: k, l of the kernel.

    >>> Window(strides=(2, 2), padding=((1, 1), (1, 1)), image=(8, 8), kernel=(3, 3)).out()
    (4, 4)
    """

    strides: tuple[int, int]
    padding: Pads
    image: tuple[int, int]
    kernel: tuple[int, int]

    def out(self) -> tuple[int, ...]:
        """Size H', W' of the output; an axis where the kernel does not fit has size 0."""
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + sum(pad) - k) // s + 1) for n, k, s, pad in sizes)

    def mirrored(self) -> "Window":
        """Window of the gradient with respect to the images.

        The gradient is a convolution of stride 1 with the flipped kernel. Its input is the output's
        gradient with `stride - 1` zeros between neighbouring pixels, which undoes the strides.
        """
        spread = tuple((n - 1) * s + 1 for n, s in zip(self.out(), self.strides, strict=True))
        before = [k - 1 - pad[0] for k, pad in zip(self.kernel, self.padding, strict=True)]
        # The padding after each axis is the one that makes the output as large as the image.
        pads = tuple(
            (low, image - size - low + k - 1)
            for image, size, low, k in zip(self.image, spread, before, self.kernel, strict=True)
        )
        return Window((1, 1), pads, spread, self.kernel)  # type: ignore[arg-type]

    def has_idle_pixels(self) -> bool:
        """Checks whether a row or a column of the kernel meets only padding."""
        sides = zip(self.kernel, self.image, self.out(), self.strides, self.padding, strict=True)
        return any(
            not any(0 <= p * stride + n - before < image for p in range(out))
            for kernel, image, out, stride, (before, _) in sides
            for n in range(kernel)
        )
