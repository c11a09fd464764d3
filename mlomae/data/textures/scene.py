"""Draws the embedded images: textured clutter, flat distractors, and objects of soft random outline on top.

All numbers come from one key per image (`mlomae.common.random_keys`), in float64, so that rounding to uint8 gives the
same pixels whatever the vector instructions of the processor; images are drawn a block at a time.

The textures, which are the classes, are scalar fields over the plane with values in [-1, 1]. Each is a function of
coordinates u, v and of a few uniform draws d (phases, centres), so no two objects of a class look the same and no
colour is involved. All are closed under the left-right flip: augmentation must not change a class.

Shape suffixes: n images of the block (of a texture: objects), K objects of an image, C channels, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common import random_keys
from mlomae.common.registry import check_bounds, check_range

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

DRAWS = 16
"""Uniform draws a texture may use."""

_TURN = 2 * np.pi
_PLACES = 8  # candidate centres for an object; the one farthest from the earlier objects is taken
_WAVES = 6
_DISTRACTORS = 3


def _sin(turns: Array) -> Array:
    return np.sin(_TURN * turns)


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
    field: Callable[[Array, Array, Array], Array]
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
    Texture("spokes", lambda u, v, d: _sin(7 * np.arctan2(v + d[1] - 0.5, u + d[2] - 0.5) / _TURN + d[0]), 4.5),
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


@dataclass(frozen=True)
class Scene:
    """How hard the images are. Lengths are in pixels for textures and in shares of the side for objects.

    Attributes:
        size: side of the image in pixels.
        objects: least and most objects in an image.
        radius: least and most object radius, share of the side, for a single object (smaller for several).
        contrast: least and most amplitude of an object's texture; 1 is the whole range of a colour channel.
        clutter: amplitude of the background's waves, same unit.
        noise: standard deviation of the pixel noise, same unit.
        jitter: relative change of a texture's period, and change of its angle in radians.
        scale: multiplies every period, of the textures and of the clutter.
        colour: saturation, 0 is grey. Colours are random and independent of the class, but short runs learn them.
    """

    size: int = 32
    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.3, 0.45)
    contrast: tuple[float, float] = (0.25, 0.5)
    clutter: float = 0.06
    noise: float = 0.02
    jitter: float = 0.08
    scale: float = 1.0
    colour: float = 0.1

    def __post_init__(self) -> None:
        """Raise ConfigError for a value out of range."""
        check_range("textures", "[8, inf)", size=self.size)
        check_bounds("textures", "[1, 16]", objects=self.objects)
        check_bounds("textures", "(0, 0.5]", radius=self.radius)
        check_bounds("textures", "(0, 1]", contrast=self.contrast)
        check_range("textures", "[0, inf)", clutter=self.clutter, noise=self.noise)
        check_range("textures", "[0, 0.9]", jitter=self.jitter)
        check_range("textures", "(0, inf)", scale=self.scale)
        check_range("textures", "[0, 1]", colour=self.colour)


def _draw(keys: torch.Tensor, n: int, salt: int) -> Array:
    return random_keys.uniform(keys, n, salt).double().numpy()


def _span(draws: Array, low: float, high: float) -> Array:
    return low + (high - low) * draws


def _cover(x: Array, y: Array, radius: Array, draws: Array) -> Array:
    """Coverage in [0, 1], (n, H, W), of a random blob, ellipse or polygon around the origin; ``draws`` is (n, 11)."""
    d = draws.T[:, :, None, None]
    stretch, turn = np.exp(_span(d[0], -0.3, 0.3)), _TURN * d[1]
    u = (x * np.cos(turn) + y * np.sin(turn)) * stretch
    v = (y * np.cos(turn) - x * np.sin(turn)) / stretch
    theta = np.arctan2(v, u)
    profile = np.ones_like(theta)  # an ellipse, unless replaced
    rows = draws[:, 10] < 1 / 3  # blobs
    for j in range(3):
        wave = np.cos((j + 2) * theta[rows] + _TURN * d[5 + j, rows])
        profile[rows] += _span(d[2 + j, rows], 0, 0.3 / (j + 1)) * wave
    rows = draws[:, 10] > 2 / 3  # polygons
    side = _TURN / np.floor(_span(d[8, rows], 3, 7))  # the angle of one of 3 to 6 sides
    profile[rows] = 1.1 * np.cos(side / 2) / np.cos(np.mod(theta[rows] + _TURN * d[9, rows], side) - side / 2)
    return np.clip(radius * profile - np.hypot(u, v) + 0.5, 0, 1)  # an edge about one pixel wide


def _background(x: Array, y: Array, keys: torch.Tensor, scene: Scene) -> Array:
    """Waves of random direction, length and colour over a base colour, under flat distractors: (n, C, H, W)."""
    image = np.empty((len(keys), 3, scene.size, scene.size))
    image[:] = _span(_draw(keys, 3, 10), 0.2, 0.8)[:, :, None, None]
    waves = _draw(keys, 7 * _WAVES, 11).reshape(-1, _WAVES, 7)
    for j in range(_WAVES):
        d = waves[:, j].T[:, :, None, None]
        angle, period = np.pi * d[0], 3 * scene.scale * np.exp(_span(d[1], 0, 2))
        wave = np.sin(_TURN * ((x * np.cos(angle) + y * np.sin(angle)) / period + d[2]))
        colour = scene.clutter * _span(d[3], 0.4, 1.6) * (2 * d[4:7] - 1)
        image += np.moveaxis(colour, 0, 1) * wave[:, None]
    shapes = _draw(keys, 17 * _DISTRACTORS, 12).reshape(-1, _DISTRACTORS, 17)
    for j in range(_DISTRACTORS):
        d = shapes[:, j]
        centre, radius = d[:, :2] * scene.size, _span(d[:, 2, None, None], 0.08, 0.25) * scene.size
        cover = _cover(x - centre[:, 0, None, None], y - centre[:, 1, None, None], radius, d[:, 3:14])[:, None]
        # Half transparent, so that the clutter shows through: a flat area must not identify a distractor.
        image += 0.6 * cover * (_span(d[:, 14:17, None, None], 0.1, 0.9) - image)
    return image


def _place(draws: Array, radius: Array, size: int) -> Array:
    """Centres (n, K, 2) in pixels, each the one of its candidates that is farthest from the earlier objects.

    The image may cut an object off. If objects were kept whole, their centres would stay away from the border, and a
    mask that only knows positions would find objects with AUROC 0.72; this way it reaches 0.55.
    """
    n, objects = radius.shape
    edge = (0.2 * radius)[:, :, None, None]
    places = edge + draws.reshape(n, objects, _PLACES, 2) * (size - 2 * edge)
    centre = np.empty((n, objects, 2))
    for k in range(objects):
        gaps = np.full((n, _PLACES), np.inf)
        for j in range(k):
            gaps = np.minimum(gaps, np.hypot(*(places[:, k] - centre[:, j, None]).transpose(2, 0, 1)))
        centre[:, k] = places[np.arange(n), k, np.argmax(gaps, axis=1)]
    return centre


def draw_block(keys: torch.Tensor, labels: NDArray[np.int64], scene: Scene) -> tuple[Pixels, Pixels]:
    """Draw one image per key.

    Args:
        keys: (n,) int64.
        labels: (n, K) class of each object, K = ``scene.objects[1]``; the later ones lie in front.

    Returns:
        images (n, 3, H, W) uint8, and instances (n, H, W) uint8: 0 background, k + 1 where object k is the front-most.
    """
    n, most = labels.shape
    axis = np.arange(scene.size, dtype=np.float64) + 0.5
    x, y = axis[None, None, :], axis[None, :, None]
    image = _background(x, y, keys, scene)
    instances = np.zeros((n, scene.size, scene.size), dtype=np.uint8)
    least = scene.objects[0]
    count = least + np.floor(_draw(keys, 1, 13)[:, 0] * (most - least + 1)).astype(np.int64)
    # With k objects each radius shrinks by k ** -0.4: together they cover a little more than one alone.
    radius = _span(_draw(keys, most, 14), *scene.radius) * scene.size * count[:, None] ** -0.4
    centre = _place(_draw(keys, most * _PLACES * 2, 15), radius, scene.size)
    for k in range(most):
        for label in np.unique(labels[:, k]):
            here = np.flatnonzero((count > k) & (labels[:, k] == label))
            d = _draw(keys[here], DRAWS + 3 + 11 + 7, 20 + k)
            dx, dy = x - centre[here, k, 0, None, None], y - centre[here, k, 1, None, None]
            cover = _cover(dx, dy, radius[here, k, None, None], d[:, :11])
            field = evaluate(TEXTURES[label], dx, dy, d[:, 18:], scene.scale, scene.jitter)
            middle, direction = _span(d[:, 11:14], 0.25, 0.75), 2 * d[:, 14:17] - 1
            # Around grey, by the share of colour: channels drawn separately could cancel and leave the texture
            # invisible. The sign is random, so that the mean colour does not depend on the class.
            direction = np.where(direction[:, :1] < 0, -1, 1) * (1 - scene.colour) + scene.colour * direction
            direction *= (_span(d[:, 17], *scene.contrast) / np.abs(direction).max(axis=1))[:, None]
            colour = middle[:, :, None, None] + direction[:, :, None, None] * field[:, None]
            image[here] += cover[:, None] * (colour - image[here])
            front = instances[here]
            front[cover >= 0.5] = k + 1
            instances[here] = front
    grey = image.mean(axis=1, keepdims=True)
    image = grey + scene.colour * (image - grey)
    if scene.noise:
        pixels = _draw(keys, scene.size**2, 16).reshape(n, 1, scene.size, scene.size)
        image += scene.noise * np.sqrt(12) * (pixels - 0.5)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), instances
