"""Operations of pretrainings: against closed forms, over whole runs, and the file that holds them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import make_record

from benchmarks.analysis import evidence
from benchmarks.cost import flops
from benchmarks.cost.flops import Costs, classes_of, config_of, count_costs, total_flops
from benchmarks.cost.speed.setting import SETTINGS
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.masking import create, keep_count, list_strategies
from mlomae.masking.teacher import TaughtMasking
from mlomae.models import MAE
from mlomae.pretraining.estimate import estimate, occurrences
from mlomae.pretraining.feedback_gate import FeedbackGate, is_probe, moves_phi
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import images_seen
from mlomae.records import write_record

CLASSES, STEPS = 3, 2
LENGTH, DIM, DEPTH, WIDTH, PIXELS = 16, 32, 2, 16, 48  # of the setting "tiny": 4 x 4 patches of 4 x 4 pixels
HIDDEN = 128  # of the mask network


def config(method: str = "mae", **sections: Any) -> PretrainConfig:
    """The speed benchmark's "tiny" setting: 40 outer iterations, lower batches of 12, feedback batches of 20."""
    values = SETTINGS["tiny"].config(method).to_dict()
    values["data"] |= {"batch_size": 12, "feedback_batch_size": 20}
    values["train"]["outer_iterations"] = 40
    for section, changes in sections.items():
        values[section] = {**(values.get(section) or {}), **changes} if isinstance(changes, dict) else changes
    return config_from_dict(values)


def record(cfg: PretrainConfig, begin: int = 0, **changes: Any) -> dict[str, Any]:
    fields = {
        "config": cfg.to_dict(),
        "outer_iterations": cfg.train.outer_iterations,
        "images_seen": images_seen(cfg, begin),
        "metrics": {"phi_started": float(begin), "feedback_chance": 100.0 / CLASSES},
    }
    return make_record(**{**fields, **changes})


def total(cfg: PretrainConfig, begin: int = 0) -> float:
    return total_flops(cfg, count_costs(cfg, CLASSES, 8), begin)


@pytest.fixture(scope="module")
def learned() -> Costs:
    """Of every configuration with the linear feedback and `one_step` that differs by its schedule alone."""
    return count_costs(config("mlomae"), CLASSES, 8)


# --- closed forms, for one image ------------------------------------------------------------------------------------


def blocks(tokens: int, width: int, depth: int) -> int:
    """A multiply-add is 2: qkv 3, projection 1 and MLP 8 matrices of width², and two products of attention."""
    return depth * (2 * 12 * tokens * width**2 + 2 * 2 * tokens**2 * width)


def last_block(tokens: int, count: int, width: int) -> int:
    """Keys and values of all tokens; queries, projection and MLP of ``count`` of them."""
    return 2 * (2 * tokens + 10 * count) * width**2 + 2 * 2 * tokens * count * width


EMBED = 2 * LENGTH * PIXELS * DIM
FULL = EMBED + blocks(LENGTH + 1, DIM, DEPTH)  # the encoder on all tokens
CLASS = EMBED + blocks(LENGTH + 1, DIM, DEPTH - 1) + last_block(LENGTH + 1, 1, DIM)  # and its last block on one
SCORES = 2 * LENGTH * (DIM * HIDDEN + HIDDEN)  # the mask network


def forward(kept: int = LENGTH // 4) -> int:
    """Embeds the kept patches, predicts the others."""
    removed = LENGTH - kept
    decoder = 2 * (kept + 1) * DIM * WIDTH + last_block(LENGTH + 1, removed, WIDTH) + 2 * removed * WIDTH * PIXELS
    return EMBED * kept // LENGTH + blocks(kept + 1, DIM, DEPTH) + decoder


def theta_step(kept: int = LENGTH // 4) -> int:
    """Backward twice the forward pass, but for the pixels, which need no gradient."""
    return 3 * forward(kept) - EMBED * kept // LENGTH


def test_plain_mae_is_the_closed_form() -> None:
    cfg = config()
    costs = count_costs(cfg, CLASSES, 8)
    assert costs["between"][0] == STEPS * theta_step()
    assert total_flops(cfg, costs, -1) == 40 * 12 * STEPS * theta_step()


def test_work_that_the_closed_form_does_not_have_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = MAE.encode_patches
    monkeypatch.setattr(MAE, "encode_patches", lambda self, *given: encode(self, *given) + encode(self, *given))
    assert total(config()) > 1.1 * 40 * 12 * STEPS * theta_step()


def parts_of_one_step(lower: int, feedback: int, begin: int, every: int, n: int = 40) -> float:
    """A run with the linear feedback from its parts; the head's own products are left out.

    K steps on θ, with all patches embedded and scored by the mask network from φ's start on, and the encoder on the
    head's images. Where φ moves: the mask of the last batch beforehand, the head's and the upper images through the
    encoder and back, the autoencoder with tangents (3 products for 1) and 7 times the mask network on top. A probe: one
    pass.
    """
    upper = len(range(begin, n, every))
    random = begin * lower * STEPS * theta_step()
    learned = (n - begin) * lower * STEPS * (theta_step() + EMBED + SCORES)
    between = (n - upper) * feedback * CLASS
    seen = 2 * EMBED + 8 * SCORES
    moves = upper * (lower * (seen + 3 * forward()) + 2 * feedback * (3 * CLASS - EMBED))
    return random + learned + between + moves + n // 10 * feedback * CLASS


@pytest.mark.parametrize(("begin", "every"), [(0, 1), (0, 5), (15, 1), (15, 4)])
def test_one_step_is_the_sum_of_its_parts(begin: int, every: int, learned: Costs) -> None:
    found = total_flops(config("mlomae", levels={"warmup": begin, "upper_every": every}), learned, begin)
    assert found == pytest.approx(parts_of_one_step(12, 20, begin, every), rel=0.01)
    for wrong in [
        (20, 20, begin, every),
        (12, 12, begin, every),
        (12, 20, begin + 8, every),
        (12, 20, begin, every + 1),
    ]:
        assert found != pytest.approx(parts_of_one_step(*wrong), rel=0.02)


def test_a_mask_that_never_learned_costs_random_masks_and_the_feedback(learned: Costs) -> None:
    cfg = config("mlomae", levels={"warmup_margin": 5.0})
    expected = 40 * (12 * STEPS * theta_step() + 20 * CLASS) + 4 * 20 * CLASS
    assert total_flops(cfg, learned, -1) == pytest.approx(expected, rel=0.01)


def test_drawn_ratios_count_by_their_distribution() -> None:
    cfg = config(mask={"type": "random_ratio"})
    strategy = create("random_ratio", embed_dim=DIM, grid=(4, 4))
    kept = [keep_count(LENGTH, strategy.batch_ratio(0.75, key)) for key in range(5000, 8000)]
    expected = sum(theta_step(k) for k in kept) / len(kept)
    assert count_costs(cfg, CLASSES, 8)["between"][0] / STEPS == pytest.approx(expected, rel=0.005)
    assert theta_step() != pytest.approx(expected, rel=0.005), "too blunt"


# --- what the count does not depend on, and what it does ------------------------------------------------------------

NCA = {"type": "nca", "pooling": "avg"}
LINEAR_IN_BATCH = {
    "mae": config(),
    "uniformity": config(auxiliary={"type": "uniformity"}),
    "cl_mae": config(mask={"type": "cl_mae"}),
    "one_step": config("mlomae"),
    "nca, pooled": config("mlomae", feedback=NCA | {"dropout": None}, levels={"mask_pooling": True}),
}


def settled(cfg: PretrainConfig) -> PretrainConfig:
    """Without the options of the linear feedback that ``config`` merged into another one."""
    if cfg.feedback["type"] == "linear":
        return cfg
    return replace(cfg, feedback={k: v for k, v in cfg.feedback.items() if k != "dropout"})


@pytest.mark.parametrize("name", LINEAR_IN_BATCH)
def test_cost_is_linear_in_the_batch(name: str) -> None:
    cfg = settled(LINEAR_IN_BATCH[name])
    small, large = (total_flops(cfg, count_costs(cfg, CLASSES, batch), 0) for batch in (8, 16))
    assert small == pytest.approx(large, rel=0.02)


@pytest.mark.parametrize("name", LINEAR_IN_BATCH)
def test_a_plan_without_values_counts_the_same(name: str) -> None:
    cfg = settled(LINEAR_IN_BATCH[name])
    data = replace(cfg.data, train={"type": "cifar10"})
    planned = estimate(replace(cfg, data=data), CLASSES)
    assert planned.total == pytest.approx(total(cfg), rel=1e-9 if name == "mae" else 0.02)


def test_twice_the_iterations_are_twice_the_operations(learned: Costs) -> None:
    cfg = config()
    entries = [flops.count_entry([record(each)]) for each in (cfg, longer(cfg))]
    assert entries[1]["total"] == pytest.approx(2 * entries[0]["total"], rel=1e-3)
    cfg = config("mlomae", levels={"upper_every": 2})
    assert total_flops(longer(cfg), learned, 0) == 2 * total_flops(cfg, learned, 0)
    assert total_flops(longer(cfg), learned, 20) != pytest.approx(2 * total_flops(cfg, learned, 20), rel=1e-3)


def longer(cfg: PretrainConfig) -> PretrainConfig:
    return replace(cfg, train=replace(cfg.train, outer_iterations=2 * cfg.train.outer_iterations))


def test_precision_and_compilation_change_no_count(learned: Costs) -> None:
    assert count_costs(config("mlomae", train={"amp": "bf16", "compile": True}), CLASSES, 8) == learned


@pytest.mark.slow
def test_chunks_of_an_odd_number_divide_the_counted_batch(learned: Costs) -> None:
    cfg = config("mlomae", train={"accumulate": 3})
    entry = flops.count_entry([record(cfg)])
    assert entry["batch"] == 9
    recomputed = 40 * 2 * 20 * CLASS  # each chunk of the feedback's passes a second time
    assert entry["total"] == pytest.approx(total_flops(cfg, learned, 0) + recomputed, rel=0.01)


def test_every_strategy_is_counted_with_what_it_adds() -> None:
    before = torch.get_rng_state()
    steps = {}
    for name in list_strategies():
        if name != "learned":
            steps[name] = count_costs(config(mask={"type": name}), CLASSES, 8)["between"][0] / STEPS
    assert torch.equal(before, torch.get_rng_state())
    for name in steps.keys() - {"random_ratio", "adios"}:
        strategy = create(name, embed_dim=8, grid=(4, 4))
        adds = strategy.adaptive or isinstance(strategy, TaughtMasking)
        assert steps[name] > 1.02 * theta_step() if adds else steps[name] == theta_step(), name
    assert steps["attg"] >= theta_step() + FULL  # a teacher's forward pass
    decoder = blocks(LENGTH + 1, WIDTH, 1) + 2 * LENGTH * WIDTH * PIXELS
    assert steps["cl_mae"] > theta_step() + 2 * (FULL + decoder)  # forward and backward with all patches
    assert steps["adios"] > theta_step()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(-1, 59), st.integers(1, 7), st.sampled_from(["learned", "random"]))
def test_iterations_are_those_of_training(n: int, begin: int, every: int, mask: str) -> None:
    begin = min(begin, n - 1)
    cfg = LINEAR_IN_BATCH["one_step"]
    cfg = replace(
        cfg,
        mask={**cfg.mask, "type": mask},
        train=replace(cfg.train, outer_iterations=n),
        levels=replace(cfg.levels, upper_every=every),
    )
    number, watch = occurrences(cfg, begin), FeedbackGate(begin)
    kinds = []
    for t in range(n):  # as PretrainStep decides
        warmup = not 0 <= watch.begin <= t
        kinds.append("upper" if moves_phi(t, watch.begin, every) else "warm-up" if warmup else "between")
    if mask == "random":
        assert number == {"between": n, "probe": 0}
        return
    assert {k: number[k] for k in ("warm-up", "between", "upper")} == {
        k: kinds.count(k) for k in ("warm-up", "between", "upper")
    }
    both = sum(kind == "upper" and is_probe(t) for t, kind in enumerate(kinds))
    assert images_seen(cfg, begin)["upper"] == 20 * (number["upper"] + number["probe"] - both)


# --- records --------------------------------------------------------------------------------------------------------


def test_weights_named_in_a_record_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(Pretrainer, "start_from", None)
    cfg = replace(config(), init_from="mae.pth")
    assert flops.count_entry([record(cfg)])["total"] == flops.count_entry([record(config())])["total"]
    taught = record(config(mask={"type": "attmask", "teacher": "timm:vit_tiny_patch16_224:pretrained"}))
    assert config_of(taught).mask["teacher"] == "timm:vit_tiny_patch16_224"


def test_records_of_before_some_keys_and_metrics(learned: Costs) -> None:
    cfg = config("mlomae", levels={"warmup": 10})
    old = record(cfg, 10, metrics={"chance": 12.0})
    del old["config"]["levels"]["mask_pooling"], old["config"]["levels"]["upper_every"]
    assert classes_of(old) == 8
    assert classes_of({**old, "classes": 11}) == 11
    assert flops.count_entry([old])["total"] == pytest.approx(total_flops(cfg, learned, 10), rel=0.01)


def test_the_mean_of_runs_whose_masks_began_at_different_times(learned: Costs) -> None:
    cfg = config("mlomae", levels={"warmup_margin": 1.0})
    alone = [total_flops(cfg, learned, begin) for begin in (10, 30)]
    assert alone[0] > 1.1 * alone[1]
    runs = [record(cfg, begin, seed=seed) for seed, begin in enumerate((10, 30))]
    assert flops.count_entry(runs)["total"] == pytest.approx(sum(alone) / 2, rel=1e-3)


# --- the file -------------------------------------------------------------------------------------------------------


def run(folder: Path, *options: str) -> int:
    return flops.main(["--records", str(folder / "runs"), "--out", str(folder / "flops.json"), *options])


def test_the_file_is_sorted_rounded_and_the_same_again(tmp_path: Path) -> None:
    samples = {"a": record(config()), "b": record(config("mlomae")), "c": record(config(), task="speed")}
    for name, sample in samples.items():
        write_record(sample, tmp_path / "runs" / f"{name}.json")
    assert run(tmp_path) == 0
    first = (tmp_path / "flops.json").read_bytes()
    entries = json.loads(first)
    assert list(entries) == sorted({r["config_hash"] for r in samples.values()})
    plain, learned = (entries[samples[name]["config_hash"]] for name in "ab")
    exact = 40 * 12 * STEPS * theta_step()
    assert plain == {
        "batch": 8,
        "lower_step": int(float(f"{8 * theta_step():.4g}")),
        "total": int(float(f"{exact:.4g}")),
        "upper": 0,
    }
    assert plain["total"] != exact, "nothing was rounded"
    assert learned["upper"] > STEPS * learned["lower_step"] > STEPS * plain["lower_step"]
    for options in ([], ["--again"]):
        assert run(tmp_path, *options) == 0
        assert (tmp_path / "flops.json").read_bytes() == first


def test_only_what_is_new_is_counted_and_what_is_gone_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [record(config()), record(config("mlomae")), record(config("mlomae", levels={"warmup_margin": 1.0}))]
    for number, sample in enumerate(samples[:2]):
        write_record(sample, tmp_path / "runs" / f"{number}.json")
    counted: list[str] = []

    def count(runs: list[dict[str, Any]]) -> dict[str, int]:
        counted.append(runs[0]["config_hash"])
        return dict.fromkeys(evidence.FLOPS_KEYS, len(runs))

    monkeypatch.setattr(flops, "count_entry", count)
    hashes = [sample["config_hash"] for sample in samples]
    assert run(tmp_path) == 0
    assert sorted(counted) == sorted(hashes[:2])
    (tmp_path / "runs" / "0.json").unlink()
    write_record(samples[2], tmp_path / "runs" / "2.json")
    assert run(tmp_path) == 0
    assert counted[2:] == hashes[2:]
    assert set(evidence.read_flops(tmp_path / "flops.json")) == set(hashes[1:])
    write_record({**samples[2], "seed": 1}, tmp_path / "runs" / "3.json")  # begins when it will: a new mean
    assert run(tmp_path) == 0
    assert counted[3:] == hashes[2:]
    assert evidence.read_flops(tmp_path / "flops.json")[hashes[2]]["total"] == 2
    assert run(tmp_path, "--again") == 0
    assert sorted(counted[4:]) == sorted(hashes[1:])


def broken(what: str) -> dict[str, Any]:
    cfg = config()
    if what == "images_seen":
        return record(cfg, images_seen={"lower": 1, "head": 0, "upper": 0})
    if what == "outer_iterations":
        return record(cfg, outer_iterations=41)
    if what == "width":
        return record(cfg, config={**cfg.to_dict(), "mask": {"type": "learned", "hidden": 8.5}})
    odd = {"mask": {"type": "none"}, "levels": {"lowersteps": 2}, "feedback": {"type": "linear", "dropout": "high"}}
    return record(cfg, config={**cfg.to_dict(), what: odd[what]})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("mask", "masking strategy"),
        ("levels", "lowersteps"),
        ("feedback", "'dropout' of feedback 'linear' must be float; got 'high'"),
        ("width", "must be int; got 8.5"),
        ("images_seen", "run it again"),
        ("outer_iterations", "run it again"),
    ],
)
def test_what_cannot_be_counted_is_named_and_the_others_are_counted(
    what: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = record(config(train={"outer_iterations": 3})), {**broken(what), "name": "odd_run"}
    write_record(good, tmp_path / "runs" / "good.json")
    write_record(bad, tmp_path / "runs" / "bad.json")
    assert run(tmp_path) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: record 'odd_run' cannot be counted: ")
    assert words in message
    assert message.count("\n") == 1
    assert set(evidence.read_flops(tmp_path / "flops.json")) == {good["config_hash"]}


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": {"total": 1}}', '{"a": 3}', '{"a": {"total": "x"}}'])
def test_another_file_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record(config()), tmp_path / "runs" / "a.json")
    (tmp_path / "flops.json").write_text(content)
    assert run(tmp_path) == 2
    assert "make flops" in capsys.readouterr().err
    assert (tmp_path / "flops.json").read_text() == content
    assert run(tmp_path / "nowhere") == 2


def test_nothing_is_counted_of_a_mask_without_feedback() -> None:
    costs = count_costs(config(), CLASSES, 8)
    assert costs == {"between": (STEPS * theta_step(), 0.0)}
