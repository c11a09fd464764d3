"""Numbers of things in messages."""

import pytest

from mlomae.common.errors import counted


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2000, "class", "2,000 classes"),
        (3, "category", "3 categories"),
        (1, "category", "1 category"),
    ],
)
def test_one_is_no_plural(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said
