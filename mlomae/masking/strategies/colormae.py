"""ColorMAE: random noise filtered in frequency decides which patches are removed.

Source: ColorMAE (Hinojosa, Liu and Ghanem, ECCV 2024, arXiv 2407.13036, section 3). White noise W is blurred by
Gaussian kernels G of standard deviation σ: red G*W (low frequencies: blobs), blue W - G*W (high: evenly spread dots),
green G₁*W - G₂*W with σ₁ < σ₂ (a band between: blobs of one size, evenly spread), purple W - green (all but that band).

Shape legend: B batch, N noise maps, S side of a map in patches, gh gw patch grid.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mlomae.common import random_keys
from mlomae.common.registry import Positive, check_interval
from mlomae.masking.base import MaskState, UnweightedMasking, register

MAPS, SIDE = 64, 64


def response(colour: str, side: int, sigma: float, narrow: float, wide: float) -> Tensor:
    """The filter's factor for each frequency, (S, S // 2 + 1), as `torch.fft.rfft2` orders them."""
    squared = torch.fft.fftfreq(side).square()[:, None] + torch.fft.rfftfreq(side).square()

    def blur(deviation: float) -> Tensor:
        return torch.exp(-2 * (math.pi * deviation) ** 2 * squared)

    if colour == "red":
        return blur(sigma)
    if colour == "blue":
        return 1 - blur(sigma)
    band = blur(narrow) - blur(wide)
    return band if colour == "green" else 1 - band


def noise_maps(response_SF: Tensor, side: int, count: int = MAPS) -> Tensor:
    """``count`` filtered maps of uniform white noise, (N, S, S), periodic; the same in every call."""
    keys = random_keys.fold(random_keys.root_key("colormae"), torch.arange(count))
    white = random_keys.uniform(keys, side * side).reshape(count, side, side) - 0.5
    return torch.fft.irfft2(torch.fft.rfft2(white) * response_SF, s=(side, side))


@register("colormae")
@dataclass(eq=False, repr=False)
class ColorMAEMasking(UnweightedMasking):
    """Each image gets a window of one noise map; the patches with the largest values stay visible.

    - ``colour``: "green" (the paper's best), "blue", "red" or "purple".
    - ``sigma``: σ in patches, for red and blue; ``narrow``, ``wide``: σ₁ and σ₂, for green and purple.

    The map, the place of the window and its mirroring are drawn for each image. The maps are white noise filtered once
    and the same for every seed, as in the paper, whose maps are a file. Budget: the ranking is cut at exactly
    ⌊(1 - ratio) L⌋ visible patches, as in the paper.

    Changed: the filter is applied in the frequency domain on periodic maps, so that a window may lie anywhere, and the
    window is drawn per image instead of per batch. Dividing by the map's maximum does not change the order and is left
    out. The values of σ are ours: blobs are a few patches wide, on small grids too.

    Raises ConfigError for an unknown colour and for σ that are not positive or not in order.
    """

    colour: Literal["green", "blue", "red", "purple"] = "green"
    sigma: Positive = 1.0
    narrow: Positive = 0.5
    wide: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.wide, f"({self.narrow}, inf)", "option 'wide' of masking strategy 'colormae'")
        self.side = max(SIDE, *self.grid)
        maps = noise_maps(response(self.colour, self.side, self.sigma, self.narrow, self.wide), self.side)
        self.maps_NSS = nn.Buffer(maps, persistent=False)

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        pick, top, left, flip_rows, flip_columns = state.uniform(5).unbind(1)
        rows = self._window(top, flip_rows, self.grid[0])
        columns = self._window(left, flip_columns, self.grid[1])
        number = (pick * MAPS).long()
        return -self.maps_NSS[number[:, None, None], rows[:, :, None], columns[:, None]].flatten(1)

    def _window(self, start_B: Tensor, flip_B: Tensor, n: int) -> Tensor:
        """(B, n) indices of successive rows (or columns) of a map, backwards for half the images."""
        at = torch.arange(n, device=start_B.device)
        return ((start_B * self.side).long()[:, None] + torch.where(flip_B[:, None] < 0.5, at, n - 1 - at)) % self.side
