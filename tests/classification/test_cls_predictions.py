"""Files of predictions, and the paired comparison of two runs."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.analysis import statistics
from mlomae.backbones.task import ImageSums, TestedRun
from mlomae.classification import compare as module
from mlomae.classification.compare import compare, main, paired_interval
from mlomae.classification.per_image import FORMAT, PerImage, top1
from mlomae.common.errors import DataError

NAMES = ("cat", "dog", "horse")
IDENTITY: dict[str, Any] = {"class_names": NAMES, "test_set": "f" * 64, "run": "mae", "config_hash": "0123456789abcdef"}
# by hand: ten images; A has 7 right, B has 5, of which 4 are the same
LABEL = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
A_SAYS = [0, 0, 0, 1, 1, 1, 0, 2, 2, 0]
B_SAYS = [0, 0, 1, 0, 1, 0, 0, 2, 0, 1]


def images(label: list[int], says: list[int]) -> PerImage:
    order = np.array([[p, *[c for c in range(3) if c != p]] for p in says])
    log_probs = np.log(np.tile(np.array([[0.5, 0.3, 0.2]], dtype=np.float32), (len(says), 1)))
    return PerImage(np.arange(len(label)) * 2, np.array(label), order, log_probs)


def run(says: list[int], **changes: Any) -> TestedRun:
    identity = IDENTITY | {k: v for k, v in changes.items() if k in IDENTITY}
    found = changes.get("images", images(changes.get("label", LABEL), says))
    sums = ImageSums(found.right[:, None].astype(np.int64), top1)
    return TestedRun("a.npz", "top1", sums, index=found.index, truth=found.label, **identity)


def right(tested: TestedRun) -> NDArray[np.int64]:
    return tested.sums.numbers_NF[:, 0]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "a.npz"
    FORMAT.save(path, images(LABEL, A_SAYS), **IDENTITY)
    return path


def test_round_trip_without_pickles(saved: Path) -> None:
    found, identity = FORMAT.read(saved)
    expected = images(LABEL, A_SAYS)
    for name in ("index", "label", "top_classes", "top_log_probs"):
        array = getattr(found, name)
        assert np.array_equal(array, getattr(expected, name))
        assert array.dtype == getattr(expected, name).dtype
    assert identity == {**IDENTITY, "file": "a.npz"}
    with np.load(saved, allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)
    assert [p.name for p in saved.parent.iterdir()] == ["a.npz"]


def test_an_interrupted_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def half(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(KeyboardInterrupt):
        FORMAT.save(saved, images(LABEL, B_SAYS), **IDENTITY)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["a.npz"]


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(b ^ 0xFF for b in content[len(content) // 2 :][:40]) + content[-200:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: p.write_bytes(b""), "cannot read"),
        (lambda p: p.write_bytes(b"text\nof two lines"), "cannot read"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "cannot read"),
        (lambda p: p.write_bytes(damaged(p.read_bytes())), "cannot read"),
        (lambda p: np.save(p.open("wb"), np.zeros(3)), "cannot read"),
        (lambda p: np.savez(p, x=np.zeros(3)), "lacks 'format'"),
        (lambda p: np.savez(p, format=np.array([{}], dtype=object)), "cannot read"),
        (lambda p: rewrite(p, format="mlomae classification predictions 9"), "its format is .* 9'"),
        (lambda p: rewrite(p, run=np.zeros(2)), "'run' is not text"),
        (lambda p: rewrite(p, label=None), "lacks 'label'"),
        (lambda p: rewrite(p, label=np.zeros(10)), "'label' has type float64"),
        (lambda p: rewrite(p, label=np.full(10, 3)), "'label' reaches outside its 3 classes"),
        (lambda p: rewrite(p, label=np.zeros(9, int)), "do not hold 10 images"),
        (lambda p: rewrite(p, top_classes=np.zeros((10, 2), int)), "3 of 3 classes"),
        (lambda p: rewrite(p, index=np.zeros(10, int)), "not sorted, or one is there twice"),
        (lambda p: rewrite(p, top_log_probs=np.full((10, 3), np.nan)), "log-probabilities"),
        (lambda p: rewrite(p, top_log_probs=np.full((10, 3), 0.5)), "log-probabilities"),
    ],
)
def test_damaged_and_foreign_files_are_one_line(saved: Path, change: Any, message: str) -> None:
    change(saved)
    with pytest.raises(DataError, match=message) as error:
        FORMAT.read(saved)
    assert "\n" not in str(error.value)
    assert "a.npz" in str(error.value)


def test_parts_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 images and 2 of 2 classes"):
        FORMAT.save(tmp_path / "a.npz", images(LABEL, A_SAYS), **(IDENTITY | {"class_names": ["cat", "dog"]}))
    assert not list(tmp_path.iterdir())


def test_comparison_by_hand() -> None:
    found = compare(run(A_SAYS), run(B_SAYS, run="other"))
    assert (found.n, found.top1_a, found.top1_b) == (10, 70.0, 50.0)
    assert found.difference == pytest.approx(20.0)
    assert (found.both, found.only_a, found.only_b, found.neither) == (4, 3, 1, 2)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 2**4)  # P(at most 1 of 4 coins) twice
    # Bonett and Price: shares (3 + 1) / 12 and (1 + 1) / 12, so 1/6 ± 1.96 sqrt((1/2 - 1/36) / 12)
    half = 1.959964 * math.sqrt((1 / 2 - 1 / 36) / 12)
    assert (found.low, found.high) == (pytest.approx(100 * (1 / 6 - half)), pytest.approx(100 * (1 / 6 + half)))
    assert found.per_class.to_dict("list") == {
        "class": ["cat", "dog", "horse"],
        "n": [4, 3, 3],
        "top1_a": pytest.approx([75, 200 / 3, 200 / 3]),
        "top1_b": pytest.approx([75, 100 / 3, 100 / 3]),
        "difference": pytest.approx([0, 100 / 3, 100 / 3]),
    }


def test_the_other_way_round_only_the_sign_changes() -> None:
    a, b = compare(run(A_SAYS), run(B_SAYS)), compare(run(B_SAYS), run(A_SAYS))
    assert (a.difference, a.low, a.high, a.p_value) == (-b.difference, -b.high, -b.low, b.p_value)


def test_equal_runs_differ_by_nothing_within_an_interval_that_has_a_width() -> None:
    found = compare(run(A_SAYS), run(A_SAYS))
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.low < -10
    assert found.high == -found.low


def random_pair(seed: int, n: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    counts = np.random.default_rng(seed).multinomial(n, [*shares, 1 - sum(shares)])
    return int(counts[0]), int(counts[1])


def test_many_images_give_students_paired_interval_and_scipys_p_value() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 4000).tolist()
    says = [[t if generator.random() < share else (t + 1) % 3 for t in label] for share in (0.72, 0.70)]
    a, b = (run(s, label=label) for s in says)
    found = compare(a, b)
    paired = 100.0 * right(a) - 100.0 * right(b)
    student = statistics.seed_interval(paired.tolist())
    assert found.difference == pytest.approx(student.mean)
    assert (found.low, found.high) == (pytest.approx(student.low, abs=0.02), pytest.approx(student.high, abs=0.02))
    test = stats.binomtest(int((paired > 0).sum()), int((paired != 0).sum()), 0.5)
    assert found.p_value == pytest.approx(test.pvalue)
    unpaired = 1.96 * math.sqrt(sum(right(r).var() / 4000 for r in (a, b))) * 100
    assert abs((found.high - found.low) / 2 - unpaired) < 0.2  # independent errors: pairing gains nothing here


@pytest.mark.parametrize(("n", "shares"), [(30, (0.1, 0.1, 0.6)), (200, (0.08, 0.03, 0.7)), (50, (0.02, 0.0, 0.9))])
def test_the_interval_covers_the_truth(n: int, shares: tuple[float, float, float]) -> None:
    truth = shares[0] - shares[1]
    hits = 0
    for seed in range(1000):
        low, high = paired_interval(*random_pair(seed, n, shares), n)
        hits += low <= truth <= high
    assert hits >= 930  # 950 expected, standard error 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_set": "e" * 64}, r"different test sets \(fingerprints\)"),
        ({"class_names": ("dog", "cat", "horse")}, "different classes"),
        ({"images": images(LABEL[:9], A_SAYS[:9])}, "different images"),
        ({"label": LABEL[::-1]}, "different labels"),
    ],
)
def test_different_tests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(
        DataError, match=f"'a.npz' and 'a.npz' are of {message}; compare runs tested on the same images"
    ) as error:
        compare(run(A_SAYS), run(A_SAYS, **changes))
    assert "\n" not in str(error.value)


def test_command_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved.with_name("b.npz")
    FORMAT.save(other, images(LABEL, B_SAYS), **(IDENTITY | {"run": "mlo"}))
    assert main([str(saved), str(other)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "A  mae (0123456789abcdef): top-1 70.00 %",
        "B  mlo (0123456789abcdef): top-1 50.00 %",
        "A - B: +20.00 points, 95 % interval [-22.21, +55.55] over 10 images, paired; other seeds are not in it",
        "right in both 4, only in A 3, only in B 1, in neither 2; McNemar's exact test p = 0.62",
        "classes that differ most: dog +33.3 (n=3), horse +33.3 (n=3)",
    ]
    assert main([str(saved), str(saved)]) == 0
    assert "classes that differ" not in capsys.readouterr().out
    assert main([str(saved), "nowhere.npz"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: predictions file 'nowhere.npz' does not exist")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_module_runs(saved: Path) -> None:
    command = [sys.executable, "-m", module.__name__, str(saved), str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "A - B: +0.00 points" in done.stdout
