"""What all processes evaluated, on every one of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric

T = TypeVar("T")


def gather(parts: list[T]) -> list[T]:
    """The parts of all ranks, the first one's first, as they are: MMEngine's ``collect_results`` would cut a padded
    list at its end, wherever the copies are, and leaves a folder behind."""
    return [part for parts_of_rank in all_gather_object(parts) for part in parts_of_rank]


class GatheringMetric(BaseMetric):
    """A metric that every rank has, and what it was computed from, the same for any number of processes."""

    default_prefix = ""  # None makes MMEngine warn

    @abstractmethod
    def compute_metrics(self, results: list[Any], size: int | None = None) -> dict[str, float]:
        """Metrics of the images that all processes have seen, in any order; DataError if not exactly ``size`` were."""

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics of the ``size`` images of the test set, on every rank; DataError if not exactly these were seen."""
        results = gather(self.results)
        self.results.clear()
        metrics = self.compute_metrics(results, size)
        return {f"{self.prefix}/{key}" if self.prefix else key: value for key, value in metrics.items()}
