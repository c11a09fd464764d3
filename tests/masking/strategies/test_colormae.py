"""ColorMAE: the noise and the masks drawn from it have the spectrum that their colour says.

Shape legend: B images, N noise maps, S side of a map, R radii.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState
from mlomae.masking.strategies.colormae import MAPS, SIDE, ColorMAEMasking, noise_maps, response

COLOURS = ("green", "blue", "red", "purple")

GRID = (16, 16)


def create(grid: tuple[int, int] = GRID, **options: object) -> ColorMAEMasking:
    strategy = masking.create("colormae", embed_dim=8, grid=grid, **options)
    assert isinstance(strategy, ColorMAEMasking)
    return strategy


def draw(batch: int, grid: tuple[int, int] = GRID, name: str = "colormae", **options: object) -> Tensor:
    """Masks (batch, gh, gw)."""
    strategy = masking.create(name, embed_dim=8, grid=grid, **options)
    state = MaskState(random_keys.fold(random_keys.root_key(0, "colour"), torch.arange(batch)))
    return strategy(torch.zeros(0), torch.zeros(0), 0.75, 0, state).mask.view(batch, *grid)


def radial_power(maps_NSS: Tensor, radii: int) -> Tensor:
    """Mean power in ``radii`` rings of equal width up to 0.5 cycles per patch, (R,), the mean of the map left out."""
    side = maps_NSS.shape[-1]
    power = torch.fft.fft2(maps_NSS - maps_NSS.mean(dim=(1, 2), keepdim=True)).abs().square().mean(dim=0)
    frequency = torch.fft.fftfreq(side)
    radius = torch.hypot(frequency[:, None], frequency)
    ring = (radius * 2 * radii).long()
    return torch.stack([power[(ring == r) & (radius > 0)].mean() for r in range(radii)])


def check_spectrum(power: Tensor, colour: str, factor: float) -> None:
    """Red falls, blue rises, green has its peak and purple its dip in between, by ``factor`` at least."""
    change, ends = power.diff(), power[[0, -1]]
    if colour == "red":
        assert (change < 0).all()
        assert power[0] > factor * power[-1]
    elif colour == "blue":
        assert (change > 0).all()
        assert power[-1] > factor * power[0]
    elif colour == "green":
        assert 0 < power.argmax() < len(power) - 1
        assert power.max() > factor * ends.max()
    else:
        assert 0 < power.argmin() < len(power) - 1
        assert ends.min() > factor * power.min()


@pytest.mark.parametrize("colour", COLOURS)
def test_the_maps_have_the_spectrum_of_their_colour(colour: str) -> None:
    check_spectrum(radial_power(create(colour=colour).maps_NSS, 8), colour, 2.0)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_masks_have_it_too(colour: str) -> None:
    """Relative to random masks; the window has few rings, and keeping a quarter of it flattens its spectrum."""
    random = radial_power(draw(2_000, name="random"), 4)
    check_spectrum(radial_power(draw(2_000, colour=colour), 4) / random, colour, 1.5)


def test_unfiltered_noise_is_white() -> None:
    power = radial_power(noise_maps(torch.ones(SIDE, SIDE // 2 + 1), SIDE), 8)
    torch.testing.assert_close(power, power.mean().expand(8), rtol=0.05, atol=0)


@pytest.mark.parametrize("sigma", [1.5, 2.0])
def test_the_filter_is_a_convolution_with_a_gaussian_kernel(sigma: float) -> None:
    """Circular, in space, with the kernel's values summed over its periods; narrower kernels are not band-limited."""
    at = torch.arange(-10, 11).double()
    kernel = torch.exp(-at.square() / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    white = noise_maps(torch.ones(SIDE, SIDE // 2 + 1), SIDE, 2).double()
    padded = F.pad(white[:, None], (10, 10, 10, 10), mode="circular")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]
    found = noise_maps(response("red", SIDE, sigma, 0.5, 2.0), SIDE, 2)
    torch.testing.assert_close(found.double(), blurred, atol=2e-4, rtol=0)


def test_red_and_blue_and_green_and_purple_add_up_to_white() -> None:
    filters = {colour: response(colour, SIDE, 1.0, 0.5, 2.0) for colour in COLOURS}
    assert torch.allclose(filters["red"] + filters["blue"], torch.ones(()))
    assert torch.allclose(filters["green"] + filters["purple"], torch.ones(()))
    assert [float(filters[colour][0, 0]) for colour in ("red", "blue", "green", "purple")] == [1, 0, 0, 1]


def test_visible_are_the_largest_values_of_a_window_of_a_map() -> None:
    strategy, key = create((5, 7)), random_keys.fold(3, torch.arange(40))
    state = MaskState(key)
    ranking = strategy.ranking(torch.zeros(0), 0.75, state).view(40, 5, 7)
    visible = strategy(torch.zeros(0), torch.zeros(0), 0.75, 0, state).mask.view(40, 5, 7) == 0
    orientations = set()
    for u, rank, kept in zip(state.uniform(5).tolist(), ranking, visible, strict=True):
        number, top, left = int(u[0] * MAPS), int(u[1] * SIDE), int(u[2] * SIDE)
        window = strategy.maps_NSS[number].roll((-top, -left), (0, 1))[:5, :7]
        flips = [dim for dim, flip in enumerate(u[3:]) if flip >= 0.5]
        orientations.add(tuple(flips))
        assert torch.equal(-rank, window.flip(flips))
        assert (-rank[kept]).min() > (-rank[~kept]).max()
    assert len(orientations) == 4


def test_the_maps_are_no_part_of_a_checkpoint_and_always_the_same() -> None:
    first = create()
    torch.manual_seed(1)
    assert torch.equal(create().maps_NSS, first.maps_NSS)
    assert not first.state_dict()


def test_grids_larger_than_a_map_get_larger_maps() -> None:
    assert draw(2, (70, 66)).shape == (2, 70, 66)


def test_unknown_colour_is_a_one_line_error() -> None:
    with pytest.raises(ConfigError, match=r"'colour' .* one of green, blue, red, purple; got 'pink'"):
        create(colour="pink")


@pytest.mark.parametrize(
    "options", [{"sigma": 0.0}, {"sigma": math.inf}, {"narrow": 2.0}, {"narrow": 0.0}, {"wide": math.nan}], ids=str
)
def test_widths_out_of_order_are_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be (positive|inside|a number)") as error:
        create(**options)
    assert "\n" not in str(error.value)
