"""Names of points in a column beside a panel, in the order of their heights, each with a line to its point.

However close the points lie, no name lies on another. Lengths are in points. Shape legend: N points.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D
from sklearn.isotonic import isotonic_regression

TALL = 9.0  # height of a line of text with what must stay free around it
MARKER, GAP = 3.5, 12.0  # half a marker; between the panel and the names


def names_beside(ax: Axes, places: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]) -> None:
    """Write ``texts`` to the right of ``ax``, as near to the heights of ``places`` (x and y in data) as they fit; for a
    final layout."""
    scale = ax.figure.dpi / 72
    points_N2 = ax.transData.transform(np.array(places, dtype=float)) / scale
    box = ax.get_window_extent()
    low, right, high = box.y0 / scale, box.x1 / scale, box.y1 / scale
    order_N = np.lexsort((points_N2[:, 0], points_N2[:, 1]))
    steps_N = TALL * np.arange(len(order_N))
    top = max(low, high - steps_N[-1])
    heights_N = isotonic_regression(points_N2[order_N, 1] - steps_N, y_min=low, y_max=top) + steps_N
    in_points: dict[str, Any] = {"transform": Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans}  # at any resolution
    for i, height in zip(order_N.tolist(), heights_N.tolist(), strict=True):
        x, y = points_N2[i]
        ax.text(right + GAP, height, texts[i], va="center_baseline", in_layout=False, **in_points)
        xs, ys = (x + MARKER, right, right + GAP - 2), (y, height, height)
        ax.add_artist(Line2D(xs, ys, color=colours[i], linewidth=0.6, alpha=0.6, zorder=1, clip_on=False, **in_points))
