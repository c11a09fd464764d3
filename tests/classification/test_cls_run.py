"""Whole transfers: what lands in the folder is consistent, knows where its backbone comes from, and refuses leaks."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cls_runs
import numpy as np
import pandas as pd
import pytest
import torch
from cls_runs import main, run_transfer
from run_samples import differences, one_line

from benchmarks.analysis.evidence import read_evidence
from mlomae import records
from mlomae.backbones.batches import EpochBatches, ImageLoader
from mlomae.backbones.create import is_untrained
from mlomae.backbones.export import export
from mlomae.backbones.provenance import Provenance, describe_weights
from mlomae.backbones.results import check_copies, described
from mlomae.backbones.run import TransferRun
from mlomae.backbones.training import TransferStep
from mlomae.classification import run as run_module
from mlomae.classification.config import PROTOCOLS, ClassificationConfig
from mlomae.classification.loaders import CachedFeatures, LabelledImages, eval_loader, extract
from mlomae.classification.model import Classifier, ClassifierStep
from mlomae.classification.per_image import FORMAT, summarise
from mlomae.classification.run import ClassificationMetric, build_model, rank_scores
from mlomae.common.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, DataError, TrainingError
from mlomae.data import build_source
from mlomae.models import create_encoder
from mlomae.models.places import sha256
from mlomae.pretraining.evaluation import PlainBatches, extract_features, knn_accuracy

SEED = 3
Pretrained = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def pretrained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    """Checkpoint and record of two seeds of one pretraining, and of another one."""
    changes = {"one": {"seed": SEED}, "seed": {"seed": SEED + 1}, "other": {"seed": SEED, "mask__ratio": 0.5}}
    return {name: cls_runs.pretrain(tmp_path_factory.mktemp(name), **change) for name, change in changes.items()}


@pytest.fixture(scope="module")
def runs(pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Work dir of each protocol, by the command line; beside it a folder ``records``."""
    folder = tmp_path_factory.mktemp("runs")
    config = cls_runs.write_config(folder / "config.py")
    for protocol in PROTOCOLS:
        command = [str(config), "--weights", str(pretrained["one"][0]), "--work-dir", str(folder / protocol)]
        command += ["--records", str(folder / protocol / "records"), "--cfg-options", f"protocol={protocol}"]
        assert main([*command, "backbone.model=None"]) == 0
    return {protocol: folder / protocol for protocol in PROTOCOLS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_run_leaves_agrees_with_itself(protocol: str, runs: dict[str, Path], pretrained: Pretrained) -> None:
    work, (checkpoint, before) = runs[protocol], pretrained["one"]
    record = json.loads((work / "record.json").read_text())
    records.validate_record(record, "record.json")
    evidence = read_evidence(work / "records")
    assert list(evidence.records.values()) == [record]
    assert [t.sums.whole() for t in evidence.tested.values()] == [pytest.approx(record["metrics"]["top1"])]
    assert [t.test_set for t in evidence.tested.values()] == [FORMAT.read(work / "predictions.npz")[1]["test_set"]]
    assert record["task"] == "classification"
    assert (record["method"], record["seed"]) == ("MLO-MAE", SEED), "taken from the pretraining"
    identity = {"method": "MLO-MAE", "config_hash": before["config_hash"], "iteration": 2}
    assert record["config"]["backbone"]["weights"] == identity
    assert record["pretrained"]["sha256"] == sha256(checkpoint)
    assert record["pretrained"]["images_seen"] == before["images_seen"]["lower"]
    assert record["images_seen"]["lower"] == (0 if protocol == "knn" else 2 * 96)
    assert 0 < record["cpu_s"] < 60

    images, identity = FORMAT.read(work / "predictions.npz")
    test = build_source(cls_runs.values()["data"]["test"])
    assert identity["test_set"] == test.fingerprint()
    assert identity["config_hash"] == record["config_hash"]
    assert images.index.tolist() == list(range(cls_runs.TEST_IMAGES))
    assert images.label.tolist() == test.labels.tolist()
    assert {k: record["metrics"][k] for k in summarise(images, 4)} == summarise(images, 4)
    table = pd.read_csv(work / "confusion.csv", index_col=0)
    assert list(table.columns) == test.classes
    assert int(table.to_numpy().sum()) == record["metrics"]["n"] == cls_runs.TEST_IMAGES
    assert 100 * np.trace(table.to_numpy()) / table.to_numpy().sum() == pytest.approx(record["metrics"]["top1"])
    assert (work / "confusion.png").stat().st_size > 0
    assert (protocol == "knn") == ("loss" not in record["metrics"])


def test_the_seeds_of_a_pretraining_share_a_configuration_and_others_do_not(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    export(pretrained["one"][0], tmp_path / "one.safetensors", "safetensors")
    export(pretrained["other"][0], tmp_path / "other", "timm")
    weights = {name: str(path) for name, (path, _) in pretrained.items()}
    weights |= {"export": str(tmp_path / "one.safetensors"), "folder": str(tmp_path / "other")}
    weights |= {"floor": f"random:{weights['one']}", "floor of the seed": f"random:{weights['seed']}"}
    weights |= {"timm": "timm:vit_tiny_patch16_224", "random timm": "random:timm:vit_tiny_patch16_224"}
    hashes = {}
    for name, spec in weights.items():
        portable = described(cls_runs.config(protocol="knn", backbone__weights=spec), describe_weights(spec))
        hashes[name] = records.config_hash(portable)
    assert hashes["one"] == hashes["seed"] == hashes["export"]
    assert hashes["other"] == hashes["folder"]
    assert hashes["floor"] == hashes["floor of the seed"]
    assert len(set(hashes.values())) == 5
    assert [describe_weights(weights[name]).seed for name in ("one", "seed", "export")] == [SEED, SEED + 1, SEED]
    assert describe_weights(weights["floor"]).method == "random initialisation"
    named = tmp_path / "random_looking.pth"
    torch.save({"patch_embed.proj.weight": torch.zeros(2, 3, 4, 4)}, named)
    assert describe_weights(str(named)).method == "random_looking", "a file, whatever its name begins with"


@pytest.mark.parametrize("trained", [False, True])
def test_only_weights_that_were_trained_elsewhere_may_have_seen_test_images(trained: bool) -> None:
    spec = f"timm:vit_tiny_patch16_224{':pretrained' * trained}"
    config = cls_runs.config(protocol="knn", backbone__weights=spec)
    steps = cls_runs.opened(config)
    copies, earlier = check_copies(config, steps.train, steps.test)
    assert (copies.get("pretraining"), earlier) == ("unknown" if trained else None, None)
    assert is_untrained(spec) != trained
    assert is_untrained("random")
    assert is_untrained(f"random:{spec}")
    assert not is_untrained("random_looking.pth"), "a file, whatever its name begins with"


@pytest.mark.parametrize("pooling", ["avg", "cls"])
def test_knn_is_that_of_the_pretrainings_own_evaluation(pooling: str, pretrained: Pretrained, tmp_path: Path) -> None:
    """Both see the same pixels: at 16 px neither transform resamples. ``(x/255 - m)/s`` and ``(x - 255m)/(255s)`` round
    differently, in the last bit: so features agree to 1e-5, and the top-1, a count of images, exactly."""
    checkpoint, before = pretrained["one"]
    changes = {"protocol": "knn", "pooling": pooling, "seed": SEED, "backbone__model": None}
    config = cls_runs.config(**changes, backbone__weights=str(checkpoint))
    record = run_transfer(config, tmp_path)
    assert record["metrics"]["top1"] == before["metrics"][f"knn_top1_{pooling}"]

    encoder = create_encoder("tiny", 16, **cls_runs.SHAPE)
    state = load_checkpoint(checkpoint)["modules"]["mae"]
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")})
    inputs = cls_runs.opened(config)
    model, _ = build_model(config, 4)
    ours, theirs = [], []
    half = slice(0, 16) if pooling == "cls" else slice(16, None)
    for source in (inputs.train, inputs.test):
        ours += extract(model, eval_loader(config, source, inputs.plain), pooling)[:2]
        images = torch.cat([batch["image"] for batch in eval_loader(config, source, inputs.plain)])
        labels = torch.from_numpy(source.labels)
        features, _ = extract_features(encoder, [{"image": images, "label": labels}])
        theirs += [features[:, half], labels]
        plain = list(PlainBatches(source, 16))
        torch.testing.assert_close(images[plain[0]["index"]], plain[0]["image"], atol=2e-6, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert knn_accuracy(*theirs, k=20) == record["metrics"]["top1"]


def test_predictions_of_a_vote_are_probabilities(runs: dict[str, Path]) -> None:
    images = FORMAT.read(runs["knn"] / "predictions.npz")[0]
    np.testing.assert_allclose(np.exp(images.top_log_probs.astype(np.float64)).sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__train__split": "test"}, "evaluation images would reach training"),
        ({"data__test__classes": 3}, r"classes of training .* differ: only textures train"),
    ],
)
def test_leaks_and_other_classes_are_refused(protocol: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as error:
        run_transfer(cls_runs.config(protocol=protocol, **changes), tmp_path)
    one_line(error.value)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_replaced_by_another(runs: dict[str, Path], pretrained: Pretrained) -> None:
    """Also where there are no checkpoints, as k-NN leaves none."""
    held = {path: path.read_bytes() for path in runs["knn"].iterdir() if path.is_file()}
    same = {"protocol": "knn", "seed": SEED, "backbone__model": None, "backbone__weights": str(pretrained["one"][0])}
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        run_transfer(cls_runs.config(**same), runs["knn"])
    for change in ({"protocol": "finetune"}, {"knn__k": 5}, {"backbone__weights": str(pretrained["other"][0])}):
        with pytest.raises(CheckpointError, match="was made with another configuration") as error:
            run_transfer(cls_runs.config(**(same | change)), runs["knn"], resume=True)
        one_line(error.value)
    assert held == {path: path.read_bytes() for path in runs["knn"].iterdir() if path.is_file()}
    again = run_transfer(cls_runs.config(**same, data__num_workers=1), runs["knn"], resume=True)
    assert again["metrics"] == json.loads(held[runs["knn"] / "record.json"])["metrics"]


def test_the_linear_protocol_learns_and_keeps_its_head_alone(tmp_path: Path) -> None:
    changes = {"protocol": "linear", "data__augment": None, "optim__type": "sgd", "optim__lr": 0.3}
    record = run_transfer(cls_runs.config(**changes, train__epochs=40), tmp_path)
    assert record["metrics"]["loss"] < 1.2 < np.log(4)
    state = load_checkpoint(list_checkpoints(tmp_path)[-1], "mlomae-transfer/1")
    assert state["modules"].keys() == {"head"}


def test_the_average_is_what_is_evaluated(tmp_path: Path) -> None:
    config = cls_runs.config(train__ema=0.8)
    run_transfer(config, tmp_path)
    state = load_checkpoint(checkpoint_path(tmp_path, 12), "mlomae-transfer/1")
    inputs = cls_runs.opened(config)
    model, _ = build_model(config, 4)
    model.eval()
    found = {}
    average = {k.removeprefix("module."): v for k, v in state["modules"]["ema"].items() if k != "n_averaged"}
    for name, weights in {"ema": average, "last": state["modules"]["backbone"]}.items():
        model.backbone.load_state_dict(weights)
        with torch.no_grad():
            batches = list(eval_loader(config, inputs.test, inputs.plain))
            scores = torch.cat([model.logits(batch["image"]) for batch in batches])
        index = torch.cat([batch["index"] for batch in batches])
        found[name] = rank_scores(scores, torch.from_numpy(inputs.test.labels), index)
    saved = FORMAT.read(tmp_path / "predictions.npz")[0]
    assert differences(vars(found["ema"]), vars(saved)) == []
    assert differences(vars(found["last"]), vars(saved)), "too blunt"


def linear_weights(config: ClassificationConfig, work: Path, cached: bool, order: int = 0) -> dict[str, torch.Tensor]:
    """The head after training on features computed once, or with the frozen backbone run in each step."""
    inputs = cls_runs.opened(config)
    model, _ = build_model(config, 4)
    images: Any = LabelledImages(inputs.train, inputs.plain, seed=config.seed)
    if cached:
        features = extract(model, eval_loader(config, inputs.train, inputs.plain), config.pooling)
        images = CachedFeatures(*features, seed=config.seed + order)
    loader = ImageLoader(images, batch_sampler=EpochBatches(images, 16, epochs=config.train.epochs))
    test = eval_loader(config, inputs.test, inputs.plain)
    run = TransferRun(config, Provenance("MAE", {}, {}), work, False, (None, None), {}, {})
    run.train(ClassifierStep(model, config), loader, test, ClassificationMetric(4))
    assert model.head is not None
    return model.head.state_dict()


@pytest.mark.parametrize(("pooling", "weight"), [("avg", "1.weight"), ("attentive", "linear.1.weight")])
def test_cached_features_train_the_head_that_the_frozen_backbone_trains(
    pooling: str, weight: str, tmp_path: Path
) -> None:
    """In the same order; a feature computed in another batch differs in its last bits."""
    changes = {"protocol": "linear", "data__augment": None, "backbone__drop_path": 0.5, "optim__type": "sgd"}
    config = cls_runs.config(**changes, pooling=pooling, queries=4, optim__lr=0.1)
    each = linear_weights(config, tmp_path / "each", cached=False)
    once = linear_weights(config, tmp_path / "once", cached=True)
    torch.testing.assert_close(once, each, rtol=1e-4, atol=1e-5)
    other = linear_weights(config, tmp_path / "other", cached=True, order=1)
    assert float((other[weight] - each[weight]).abs().max()) > 1e-3, "too blunt"


def test_features_that_do_not_fit_are_computed_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extracted = []
    monkeypatch.setattr(run_module, "extract", lambda *given: extracted.append(given) or extract(*given))
    changes = {"protocol": "linear", "data__augment": None, "pooling": "attentive", "queries": 4, "optim__type": "sgd"}
    losses = []
    for limit in (run_module.CACHE, 0):
        monkeypatch.setattr(run_module, "CACHE", limit)
        losses.append(run_transfer(cls_runs.config(**changes), tmp_path / str(limit))["metrics"]["loss"])
    assert len(extracted) == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("protocol", ["finetune", "linear"])
def test_bf16_is_active_in_training_and_evaluation_stays_exact(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    logits = Classifier.logits

    def watched(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        hook = lambda layer, given, out: seen[self.training].add(out.dtype)  # noqa: E731
        with self.backbone.blocks[0].mlp.fc1.register_forward_hook(hook):
            return logits(self, images)

    monkeypatch.setattr(Classifier, "logits", watched)
    run_transfer(cls_runs.config(protocol=protocol, train__amp="bf16", train__epochs=1), tmp_path)
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}
    state = load_checkpoint(checkpoint_path(tmp_path, 6), "mlomae-transfer/1")
    weights = next(iter(state["modules"].values()))
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("protocol", ["finetune", "linear"])
def test_bf16_that_is_not_active_is_an_error(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransferStep, "autocast", lambda self: nullcontext())
    with pytest.raises(TrainingError, match=r"train\.amp='bf16' is not active") as error:
        run_transfer(cls_runs.config(protocol=protocol, train__amp="bf16"), tmp_path)
    one_line(error.value)


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite .*start again .* with a lower optim\.lr") as error:
        run_transfer(cls_runs.config(optim__type="sgd", optim__lr=9e15), tmp_path)
    one_line(error.value)
    assert not list_checkpoints(tmp_path)
