"""The textures that are the classes of the embedded data set: scalar fields over the plane, values in [-1, 1].

Each is a function of coordinates u, v and of a few uniform draws d (phases, centres), so no two objects of a class look
the same and no colour is involved. All are closed under the left-right flip: augmentation must not change a class.

Shape suffixes: n objects, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 16
"""Uniform draws a texture may use."""

Array = NDArray[np.float64]
Field = Callable[[Array, Array, Array], Array]


def _sin(turns: Array) -> Array:
    return np.sin(2 * np.pi * turns)


def _cos(turns: Array) -> Array:
    return _sin(turns + 0.25)


def _harden(values: Array, steepness: float) -> Array:
    """Push values towards -1 and 1, as flat areas with soft edges."""
    return np.tanh(steepness * values)


def _stripes(u: Array, v: Array, d: Array) -> Array:
    return _sin(u + d[0])


def _noise(u: Array, v: Array, d: Array) -> Array:
    """Band-limited noise: waves of one length and seven directions."""
    angles = [np.pi * (j + d[2 * j]) / 7 for j in range(7)]
    waves = [_sin(u * np.cos(a) + v * np.sin(a) + d[2 * j + 1]) for j, a in enumerate(angles)]
    return _harden(np.sum(waves, axis=0), 0.9)


def _bricks(u: Array, v: Array, d: Array) -> Array:
    row = np.floor(v + d[1])
    return _harden(np.maximum(_cos(u / 2 + d[0] + row / 2), _cos(v + d[1])) - 0.65, 4)


@dataclass(frozen=True)
class Texture:
    """A class: its field, the period in pixels (at scale 1), the angle in radians, and whether the angle's sign is
    random."""

    name: str
    field: Field
    period: float
    angle: float = 0.0
    mirrored: bool = False


TEXTURES: tuple[Texture, ...] = (
    Texture("horizontal", _stripes, 4.5, np.pi / 2),
    Texture("vertical", _stripes, 4.5),
    Texture("diagonal", _stripes, 4.5, np.pi / 4, mirrored=True),
    Texture("checkers", lambda u, v, d: _harden(_sin(u / 1.6 + d[0]) * _sin(v / 1.6 + d[1]), 3), 4.0),
    Texture("dots", lambda u, v, d: _harden(_cos(u + d[0]) + _cos(v + d[1]) - 0.5, 2.5), 4.5),
    Texture("rings", lambda u, v, d: _sin(np.hypot(u + d[1] - 0.5, v + d[2] - 0.5) + d[0]), 4.5),
    Texture("speckle", _noise, 4.5),
    Texture("waves", lambda u, v, d: _sin(u + 0.45 * _sin(v / 2 + d[1]) + d[0]), 4.5),
    Texture("grid", lambda u, v, d: _harden(np.maximum(_cos(u / 1.4 + d[0]), _cos(v / 1.4 + d[1])) - 0.65, 4), 4.5),
    Texture("spokes", lambda u, v, d: _sin(7 * np.arctan2(v + d[1] - 0.5, u + d[2] - 0.5) / (2 * np.pi) + d[0]), 4.5),
    Texture("bricks", _bricks, 4.5),
    Texture("cloud", _noise, 10.0),
)


def evaluate(texture: Texture, x: Array, y: Array, draws: Array, scale: float, jitter: float) -> Array:
    """The field of each object: (n, H, W) float64 in [-1, 1].

    Args:
        x, y: pixels from the object's centre, broadcastable to (n, H, W).
        draws: (n, DRAWS + 3) uniform in (0, 1).
        scale: multiplies the period. jitter: largest relative change of the period, and of the angle in radians.
    """
    angle_draw, period_draw, sign_draw = (draws[:, i, None, None] for i in range(3))
    angle = texture.angle + jitter * (2 * angle_draw - 1)
    if texture.mirrored:
        angle = np.where(sign_draw < 0.5, angle, -angle)
    period = texture.period * scale * (1 + jitter * (2 * period_draw - 1))
    cos, sin = np.cos(angle) / period, np.sin(angle) / period
    return texture.field(x * cos + y * sin, y * cos - x * sin, draws[:, 3:].T[:, :, None, None])
