"""Short labels next to points that lie close together, without overlaps, with a thin line to points far away.

Many points of equal x form a strip, whose labels are stacked in order on both sides of it; others take the nearest
free place. Lengths are in points. The result is deterministic: ties are broken by order.

Shape legend: N points, C places that a label could take, T labels placed already.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Affine2D, ScaledTranslation
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from benchmarks.analysis.figures.style import GREY, text_width

Place = tuple[float, float, float]  # x and y in data, and how many points the marker is moved to the right
Floats = NDArray[np.float64]
RADII = (8.0, 11.0, 15.0, 20.0, 26.0, 33.0, 41.0, 50.0, 60.0, 72.0, 86.0)  # from marker to middle of the label
TURNS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
RING = np.outer(RADII, np.exp(1j * TURNS)).ravel().view(float).reshape(-1, 2)  # from the marker, nearest first
MARKER = 3.5  # half a marker
TALL = 7.5  # height of a digit with what must stay free around it
NEAR, SHORT = 11.5, 5.0  # a label further away gets a line, which ends short of it
APART = 6.0  # distance between markers of equal x
STRIP, BESIDE = 8, 11.5  # points that make a strip; distance of their labels from the outermost marker


def side_by_side(ax: Axes, places: list[tuple[float, float]]) -> list[float]:
    """How far each marker moves to the right, so that none of equal x overlap. The layout must be final."""
    points = _points(ax, [(*place, 0.0) for place in places])
    moved = np.zeros(len(places))
    done: list[int] = []
    for i in sorted(range(len(places)), key=lambda i: (-places[i][1], i)):  # the highest, which is on the front, stays
        near = [j for j in done if places[j][0] == places[i][0] and abs(points[j] - points[i])[1] < APART]
        steps = (0, 1, -1, *range(2, len(near) + 1))  # rarely to the left, where the axis is
        moved[i] = APART * next(k for k in steps if all(abs(moved[n] - APART * k) >= APART for n in near))
        done.append(i)
    return [float(m) for m in moved]


def label_points(ax: Axes, places: list[Place], texts: list[str]) -> None:
    """Write ``texts`` next to ``places``, off each other and the markers where there is room; for a final layout."""
    points_N2 = _points(ax, places)
    box = ax.get_window_extent()
    frame = np.array([box.x0 + 2, box.y0 + 2, box.x1, box.y1]) * 72 / ax.figure.dpi
    halves_N2 = np.array([(text_width(text) / 2 + 1, TALL / 2) for text in texts])
    middles = _strips(points_N2, places, frame)
    taken_T4 = np.array([np.concatenate([m - halves_N2[i], m + halves_N2[i]]) for i, m in middles.items()])
    taken_T4 = taken_T4.reshape(-1, 4)
    lines = np.array([_along(points_N2[i], m) for i, m in middles.items()]).reshape(-1, 12, 2)
    crowd = [float(np.sum(np.hypot(*(points_N2 - p).T) < 25)) for p in points_N2]
    for i in sorted(set(range(len(places))) - set(middles), key=lambda i: (-crowd[i], i)):  # the most crowded first
        choices_C2, half = points_N2[i] + RING, halves_N2[i]
        m = choices_C2[int(np.argmin(_costs(choices_C2, half, i, points_N2, taken_T4, lines, frame)))]
        middles[i] = m
        taken_T4 = np.vstack([taken_T4, np.concatenate([m - half, m + half])])
        if np.hypot(*(m - points_N2[i])) > NEAR:
            lines = np.concatenate([lines, _along(points_N2[i], m)[None]])
    outline = [withStroke(linewidth=1.5, foreground="white")]
    for i, m in middles.items():
        x, y, right = places[i]
        points = Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans + ScaledTranslation(x, y, ax.transData)  # type: ignore[arg-type]
        start, way = np.array([right, 0.0]), m - points_N2[i]  # of the line: from the marker to the label
        options: dict[str, Any] = {"transform": points, "in_layout": False}
        dx, dy = way + start
        ax.text(dx, dy, texts[i], ha="center", va="center_baseline", zorder=5, path_effects=outline, **options)
        if (length := float(np.hypot(*way))) > NEAR + 1:
            ends = start + np.outer([MARKER / length, 1 - SHORT / length], way)
            ax.add_artist(Line2D(*ends.T, color=GREY, linewidth=0.4, zorder=2, **options))


def _points(ax: Axes, places: list[Place]) -> Floats:
    """Where markers are, in points from the corner of the figure."""
    middles = ax.transData.transform(np.array([(x, y) for x, y, _ in places], dtype=float)) * 72 / ax.figure.dpi
    return np.asarray(middles + [(moved, 0.0) for *_, moved in places])


def _along(start: Floats, end: Floats) -> Floats:
    return np.asarray(start + np.linspace(0, 1, 12)[:, None] * (end - start))


def _strips(points_N2: Floats, places: list[Place], frame: Floats) -> dict[int, Floats]:
    """Index -> middle of its label, for points of strips: ordered by height, as near to their points as they fit."""
    moved = np.array([right for *_, right in places])
    found: dict[int, Floats] = {}
    for i in range(len(places)):
        strip = [j for j, place in enumerate(places) if place[0] == places[i][0]]
        if i in found or len(strip) < STRIP:
            continue
        strip.sort(key=lambda j: (points_N2[j, 1], j))
        sides: dict[int, list[int]] = {-1: [], 1: []}
        for j in strip:
            side = int(np.sign(moved[j])) or (-1 if len(sides[-1]) < len(sides[1]) else 1)
            sides[side].append(j)
        for side, members in sides.items():
            if members:
                x = points_N2[i, 0] - moved[i] + side * (max(side * moved[strip]) + BESIDE)
                steps = TALL * np.arange(len(members))
                low, high = frame[1] + TALL / 2, frame[3] - TALL / 2 - steps[-1]
                heights = isotonic_regression(points_N2[members, 1] - steps, y_min=low, y_max=max(low, high)) + steps
                found |= {j: np.array([x, y]) for j, y in zip(members, heights, strict=True)}
    return found


def _costs(
    choices_C2: Floats, half: Floats, own: int, points_N2: Floats, taken_T4: Floats, lines: Floats, frame: Floats
) -> Floats:
    """The cost of a label at each of the choices: outside the frame, on other labels, on markers or nearer to another
    than to its own, crossed by lines, with a line across markers, far away."""
    low, high = choices_C2 - half, choices_C2 + half
    way = choices_C2 - points_N2[own]
    distance = np.hypot(*way.T)
    others = np.delete(points_N2, own, axis=0)
    away = np.hypot(*(choices_C2[:, None] - others).transpose(2, 0, 1)).min(axis=1, initial=np.inf)
    costs = distance + np.where(away < distance, np.where(distance > NEAR, 15.0, 150.0), 0.0)
    costs += 1e4 * np.any((low < frame[:2]) | (high > frame[2:]), axis=1)
    on_labels = np.all((low[:, None] < taken_T4[:, 2:]) & (high[:, None] > taken_T4[:, :2]), axis=2)
    on_markers = np.all(np.abs(points_N2 - choices_C2[:, None]) < half + MARKER, axis=2)
    costs += 1e3 * on_labels.sum(axis=1) + 200 * on_markers.sum(axis=1)
    inside = np.all((lines > low[:, None, None]) & (lines < high[:, None, None]), axis=3)
    costs += 40 * inside.any(axis=2).sum(axis=1)
    share = np.clip(((others - points_N2[own]) @ way.T / distance**2).T, 0, 1)  # of the way, where others are nearest
    aside = np.hypot(*(points_N2[own] + share[..., None] * way[:, None] - others).transpose(2, 0, 1))
    return np.asarray(costs + np.where(distance > NEAR, 25 * (aside < MARKER).sum(axis=1), 0))
