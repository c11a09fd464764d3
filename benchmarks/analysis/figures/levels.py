"""The three levels (the paper's figure 1), drawn by code: what flows down, and which gradient flows back.

Lengths are inches. Equations are those of docs/concepts.md:

    v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) ∂L_III/∂ω,    g_φ = −(∂²L_I/∂φ∂θ) v
"""

import itertools
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn
from benchmarks.analysis.figures.style import BLACK, BLUE, GREEN, PAD, VERMILLION, WIDTH, sheet

THETA, OMEGA, PHI, GRADIENT = BLUE, GREEN, VERMILLION, VERMILLION
BAND, GAP = 1.24, 0.58  # heights of a level and of the room between two
BOX = (1.12, 0.52)  # width, height
DATA, MASK, ENCODER, HEAD, LOSS = 0.75, 2.25, 3.8, 5.2, 5.98  # middles of the columns; LOSS: where the formulas begin
FORMULA = 11.5  # points; its indices have 70 % of that
ARROW: dict[str, Any] = dict(arrowstyle="-|>", mutation_scale=9, linewidth=1.3, shrinkA=0, shrinkB=0, zorder=3)
PALE = {THETA: "#d6e6f2", OMEGA: "#d5eee6", PHI: "#f9e2d3"}  # filled: moves at this level


@dataclass(frozen=True)
class Box:
    """A network, with its middle; arrows begin and end at its sides."""

    x: float
    y: float

    def side(self, dx: float, dy: float) -> tuple[float, float]:
        """The point (dx, dy), in half widths and heights from the middle."""
        return self.x + dx * BOX[0] / 2, self.y + dy * BOX[1] / 2


def draw(evidence: Evidence) -> list[Drawn]:
    """The figure `levels`, made from no record."""
    caption = (
        r"m: mask, 1 where a patch is removed; $\sigma$: scores; rec: reconstruction error of a patch; *: after the "
        "steps of its level. The losses of levels II and III are the feedback's, cross-entropy in the paper. Images of "
        "levels I and II are of one part of the training set, those of level III of the other. φ reaches the loss of "
        "level III through θ directly, and through ω: the second term of v, which two levels (BLO-MAE) leave out."
    )
    down = Line2D([], [], color=BLACK, linewidth=1.3)
    back = Line2D([], [], color=GRADIENT, linewidth=1.3, linestyle="--")
    height = 3 * BAND + 2 * GAP
    figure, (bottom, top) = sheet(
        height,
        title="Three levels: one outer iteration",
        caption=caption,
        legend=[(down, "data and solutions, down"), (back, "gradients, back up")],
    )
    total = figure.get_figheight()
    ax = figure.add_axes((0, bottom / total, 1, (top - bottom) / total))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    names = ("I", "Pretraining (lower)"), ("II", "Feedback head (middle)"), ("III", "Masking (upper)")
    moves = ("K = 2 steps on θ", "one step on ω", "one step on φ")
    middles = [height - BAND / 2 - i * (BAND + GAP) for i in range(3)]
    for y, (number, name), text in zip(middles, names, moves, strict=True):
        low = y - BAND / 2
        ax.add_patch(Rectangle((PAD, low), WIDTH - 2 * PAD, BAND, facecolor="#f4f4f4", edgecolor="none", zorder=0))
        heading = f"{number}  {name}"
        ax.text(PAD + 0.08, low + BAND - 0.06, heading, ha="left", va="top", fontsize=10, fontweight="bold")
        ax.text(PAD + 0.08, low + 0.07, text, ha="left", va="bottom", fontsize=9)
    _levels(ax, middles)
    return [Drawn("levels", figure, [])]


def _levels(ax: Axes, middles: list[float]) -> None:
    """Networks, data and losses of the levels, and what flows within each."""
    first, second, third = middles
    low = 0.1  # boxes stand a little below the middle, under the name of the level
    mask = _box(ax, MASK, first - low, "masking\nnetwork φ", PHI, moves=False)
    encoders = [
        _box(ax, ENCODER, y - low, f"encoder\n{sign}", THETA, moves=i == 0)
        for i, (y, sign) in enumerate(zip(middles, ("θ", "θ*, fixed", "θ*, fixed"), strict=True))
    ]
    decoder = _box(ax, HEAD, first - low, "decoder\nθ", THETA, moves=True)
    heads = [
        _box(ax, HEAD, second - low, "head\nω", OMEGA, moves=True),
        _box(ax, HEAD, third - low, "head\nω*, fixed", OMEGA, moves=False),
    ]
    for y, symbols, text in (
        (first, "$x$", "images"),
        (second, r"$x_\mathrm{tr}$, $y_\mathrm{tr}$", "labelled images"),
        (third, r"$x_\mathrm{val}$, $y_\mathrm{val}$", "others, labelled"),
    ):
        ax.text(DATA, y - low + 0.02, symbols, ha="center", va="bottom", fontsize=FORMULA)
        ax.text(DATA, y - low - 0.02, text, ha="center", va="top", fontsize=9)
    start = DATA + 0.5
    _arrow(ax, (start, mask.y), mask.side(-1, 0))
    _arrow(ax, mask.side(1, 0.3), encoders[0].side(-1, 0.3))
    ax.text((MASK + ENCODER) / 2, mask.y + 0.12, "visible", ha="center", va="bottom")
    _arrow(ax, encoders[0].side(1, 0), decoder.side(-1, 0))
    _arrow(ax, decoder.side(1, 0), (LOSS - 0.02, decoder.y))
    for encoder, head, y in zip(encoders[1:], heads, (second, third), strict=True):
        _arrow(ax, (start, y - low), encoder.side(-1, 0))
        _arrow(ax, encoder.side(1, 0.35), head.side(-1, 0.35))
        _arrow(ax, head.side(1, 0), (LOSS - 0.02, head.y))
    over = mask.y + BOX[1] / 2 + 0.16
    ax.plot([mask.x, mask.x, LOSS + 0.5], [mask.side(0, 1)[1], over, over], color=BLACK, linewidth=1.3)
    _arrow(ax, (LOSS + 0.5, over + 0.005), (LOSS + 0.5, decoder.y + 0.24))
    ax.text((ENCODER + HEAD) / 2, over + 0.02, r"scores $\sigma$, mask m", ha="center", va="bottom")
    for y, formula in (
        (decoder.y, r"$L_\mathrm{I}=\dfrac{\sum m\,\sigma\,\mathrm{rec}}{\sum m}$"),
        (heads[0].y, r"$L_\mathrm{II}(\omega;\theta^*)$"),
        (heads[1].y, r"$L_\mathrm{III}(\theta^*,\omega^*)$"),
    ):
        ax.text(LOSS + 0.02, y, formula, ha="left", va="center", fontsize=FORMULA)
    _flows(ax, mask, encoders, heads)


def _flows(ax: Axes, mask: Box, encoders: list[Box], heads: list[Box]) -> None:
    """What passes between the levels: solutions down, gradients up."""
    for above, below in itertools.pairwise(encoders):
        _arrow(ax, above.side(-0.35, -1), below.side(-0.35, 1))
        _arrow(ax, below.side(0.35, 1), above.side(0.35, -1), back=True)
    _arrow(ax, heads[0].side(-0.35, -1), heads[1].side(-0.35, 1))
    _arrow(ax, heads[1].side(0.35, 1), heads[0].side(0.35, -1), back=True)
    _arrow(ax, heads[0].side(-1, -0.4), encoders[1].side(1, -0.4), back=True)
    between = [(one.y + other.y) / 2 for one, other in itertools.pairwise(encoders)]
    left, right = -0.35 * BOX[0] / 2 - 0.07, 0.35 * BOX[0] / 2 + 0.07
    for y in between:
        ax.text(ENCODER + left, y, "θ*(φ)", ha="right", va="center", fontsize=9)
    ax.text(HEAD + left, between[1], "ω*(θ*)", ha="right", va="center", fontsize=9)
    direct, head = (rf"\dfrac{{\partial L_\mathrm{{III}}}}{{\partial\{name}}}" for name in ("theta", "omega"))
    v = rf"$v={direct}-\dfrac{{\partial^2L_\mathrm{{II}}}}{{\partial\theta\,\partial\omega}}\,{head}$"
    for x, y, formula in (
        (ENCODER + right, between[0], v),
        (ENCODER + right, between[1], f"${direct}$"),
        (HEAD + right, between[1], f"${head}$"),
    ):
        ax.text(x, y, formula, ha="left", va="center", fontsize=FORMULA, color=GRADIENT)
    _arrow(ax, encoders[0].side(-1, -0.4), mask.side(1, -0.4), back=True)
    gradient = r"$g_\varphi=-\,\dfrac{\partial^2L_\mathrm{I}}{\partial\varphi\,\partial\theta}\,v$"
    ax.text(mask.x + 0.3, between[0], gradient, ha="center", va="center", fontsize=FORMULA, color=GRADIENT)


def _box(ax: Axes, x: float, y: float, text: str, colour: str, *, moves: bool) -> Box:
    box = Box(x, y)
    style, face = "round,pad=0,rounding_size=0.06", PALE[colour] if moves else "white"
    look: dict[str, Any] = {"facecolor": face, "edgecolor": colour, "linewidth": 2.0 if moves else 1.0}
    ax.add_patch(FancyBboxPatch(box.side(-1, -1), *BOX, style, **look))
    ax.text(x, y, text, ha="center", va="center", fontsize=9)
    return box


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], back: bool = False) -> None:
    """Data and solutions go down in black, gradients ``back`` up in dashes."""
    colour, line = (GRADIENT, (0, (4, 2))) if back else (BLACK, "-")
    ax.add_patch(FancyArrowPatch(start, end, color=colour, linestyle=line, **ARROW))
