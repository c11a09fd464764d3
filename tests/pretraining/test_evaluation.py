"""k-NN and the linear probe against scikit-learn, closed cases and planted structure."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from mlomae.common.errors import DataError, TrainingError
from mlomae.models import ViT, create_encoder
from mlomae.pretraining.evaluation import evaluate, extract_features, knn_accuracy, linear_probe_accuracy

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def blobs(n_train: int = 300, n_test: int = 150, dim: int = 8, classes: int = 4, gap: float = 0.7) -> Data:
    """Overlapping Gaussian classes: accuracy well between chance and 100."""
    g = torch.Generator().manual_seed(0)
    centres = gap * torch.randn(classes, dim, generator=g)
    labels = torch.arange(n_train + n_test) % classes
    x = centres[labels] + torch.randn(len(labels), dim, generator=g)
    return x[:n_train], labels[:n_train], x[n_train:], labels[n_train:]


@pytest.fixture(scope="module")
def encoder() -> ViT:
    torch.manual_seed(0)
    return create_encoder("tiny", img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (50, 1.0), (300, 0.5)])
def test_knn_equals_scikit_learn(k: int, temperature: float) -> None:
    train_f, train_y, test_f, test_y = blobs()
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1.0 - d) / temperature))
    reference.fit(train_f.double().numpy(), train_y.numpy())
    predicted = reference.predict(test_f.double().numpy())
    expected = 100.0 * float((predicted == test_y.numpy()).mean())
    assert 30 < expected < 95
    assert knn_accuracy(train_f, train_y, test_f, test_y, k=k, temperature=temperature) == pytest.approx(
        expected, abs=1e-9
    )


def test_knn_is_blockwise_exact_and_ignores_length() -> None:
    train_f, train_y, test_f, test_y = blobs()
    whole = knn_accuracy(train_f, train_y, test_f, test_y)
    assert knn_accuracy(train_f, train_y, test_f, test_y, block=7) == whole
    assert knn_accuracy(train_f * 1000, train_y, test_f * 0.01, test_y) == whole


def test_knn_closed_case_the_vote_is_weighted() -> None:
    """One neighbour at cosine 1 against two at cosine 0.6: weights 1 against 2 exp(-0.4/T)."""
    train_f = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    train_y, test_f = torch.tensor([0, 1, 1]), torch.tensor([[2.0, 0.0]])
    sharp, flat = 0.3, 0.9  # 2 exp(-0.4/T) crosses 1 at T = 0.4 / ln 2 = 0.577
    for temperature, winner in ((sharp, 0), (flat, 1), (1e-4, 0)):
        assert knn_accuracy(train_f, train_y, test_f, torch.tensor([winner]), k=3, temperature=temperature) == 100.0


def test_probe_equals_scikit_learn_on_standardised_features() -> None:
    train_f, train_y, test_f, test_y = blobs()
    train_f, test_f = train_f * torch.logspace(-2, 2, 8) + 5, test_f * torch.logspace(-2, 2, 8) + 5
    scaler = StandardScaler().fit(train_f.double().numpy())
    reference = LogisticRegression(C=1.0, solver="newton-cg", max_iter=1000, tol=1e-8)
    reference.fit(scaler.transform(train_f.double().numpy()), train_y.numpy())
    expected = 100.0 * reference.score(scaler.transform(test_f.double().numpy()), test_y.numpy())
    assert 40 < expected < 95
    assert linear_probe_accuracy(train_f, train_y, test_f, test_y) == pytest.approx(expected, abs=0.7)


def test_probe_finds_a_planted_direction_of_tiny_scale_and_survives_constants() -> None:
    """Only one coordinate tells the class and it is 1e-2 of the others: standardising must come first."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    x = 100 * torch.randn(400, 6, generator=g)
    x[:, 3] = 0.01 * (2.0 * labels - 1) + 0.001 * torch.randn(400, generator=g)
    x[:, 5] = 7.0
    assert linear_probe_accuracy(x[:200], labels[:200], x[200:], labels[200:]) == 100.0
    assert knn_accuracy(x[:200], labels[:200], x[200:], labels[200:]) < 70.0


def test_labels_without_relation_to_the_features_give_chance() -> None:
    train_f, _, test_f, _ = blobs(n_train=2000, n_test=2000)
    train_y, test_y = torch.randint(4, (2, 2000), generator=torch.Generator().manual_seed(1))
    assert abs(linear_probe_accuracy(train_f, train_y, test_f, test_y) - 25) < 5  # five standard errors
    assert abs(knn_accuracy(train_f, train_y, test_f, test_y) - 25) < 5


@pytest.mark.parametrize("metric", [knn_accuracy, linear_probe_accuracy])
def test_deterministic_and_fitted_without_the_test_set(metric) -> None:
    train_f, train_y, test_f, test_y = blobs()
    first = metric(train_f, train_y, test_f, test_y)
    assert metric(train_f, train_y, test_f, test_y) == first

    # rights per test row do not depend on the other rows or on any test label: accuracies of single rows add up
    single = [metric(train_f, train_y, test_f[i : i + 1], test_y[i : i + 1]) for i in range(0, 150, 5)]
    picked = metric(train_f, train_y, test_f[::5], test_y[::5])
    assert picked == pytest.approx(sum(single) / len(single))
    # other test labels change which answers are right, never the answers: over all constant labels they add up to 100
    total = sum(metric(train_f, train_y, test_f, torch.full_like(test_y, c)) for c in range(4))
    assert total == pytest.approx(100.0)
    # test labels of a class that training never saw are wrong, not fitted
    assert metric(train_f, train_y, test_f, torch.full_like(test_y, 9)) == 0.0


def test_features_are_class_token_and_mean_of_patches(encoder: ViT) -> None:
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([3, 1, 4, 1, 5])
    batches = [{"image": images[:2], "label": labels[:2]}, {"image": images[2:], "label": labels[2:]}]
    encoder.train()
    features, got = extract_features(encoder, batches, "cpu")
    assert encoder.training
    tokens = encoder.eval()(images)
    assert features.shape == (5, 32)
    assert features.dtype == torch.float32
    assert torch.allclose(features[:, :16], tokens[:, 0], atol=1e-6)
    assert torch.allclose(features[:, 16:], tokens[:, 1:].mean(1), atol=1e-6)
    assert torch.equal(got, labels)


def test_evaluate_keys_and_poolings(encoder: ViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant the label in the mean of the patch tokens only: the cls numbers must stay near chance."""

    def planted(images: torch.Tensor) -> torch.Tensor:
        tokens = torch.randn(len(images), 5, 16, generator=torch.Generator().manual_seed(len(images)))
        tokens[:, 1:, 0] += 20 * (images[:, 0, :1, 0] - 1)  # opposite directions: k-NN sees no lengths
        return tokens

    monkeypatch.setattr(encoder, "forward", planted)
    labels = torch.arange(90) % 3

    def batches(n: int) -> list[dict[str, torch.Tensor]]:
        images = torch.zeros(n, 3, 8, 8) + labels[:n, None, None, None]
        return [{"image": images, "label": labels[:n]}]

    result = evaluate(encoder, batches(90), batches(60), "cpu")
    assert result["n_train"] == 90
    assert result["n_test"] == 60
    assert result["chance"] == pytest.approx(100 / 3)
    assert result["linear_top1_avg"] == 100.0
    assert result["knn_top1_avg"] > 80
    assert result["linear_top1_cls"] < 60
    assert result["knn_top1_cls"] < 60


@pytest.mark.parametrize("planted_in", ["middle", "border"])
def test_the_middle_is_read_by_itself(planted_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vit = ViT(16, 4, 16, 1, 2)
    middle = torch.zeros(4, 4, dtype=torch.bool)
    middle[1:3, 1:3] = True

    def planted(images: torch.Tensor) -> torch.Tensor:
        tokens = torch.randn(len(images), 17, 16, generator=torch.Generator().manual_seed(len(images)))
        where = middle.flatten() if planted_in == "middle" else ~middle.flatten()
        tokens[:, 1:][:, where, 0] += 20 * (images[:, 0, 0, 0, None] - 1)
        return tokens

    monkeypatch.setattr(vit, "forward", planted)
    labels = torch.arange(90) % 3
    batches, others = (
        [{"image": torch.zeros(n, 3, 16, 16) + labels[:n, None, None, None], "label": labels[:n]}] for n in (90, 60)
    )
    result = evaluate(vit, batches, others, "cpu")
    assert (result["knn_top1_middle"] > 80) == (planted_in == "middle")
    assert (result["linear_top1_middle"] > 80) == (planted_in == "middle")
    features, _ = extract_features(vit, batches, "cpu", middle.flatten().nonzero().flatten())
    expected = planted(batches[0]["image"])[:, 1:][:, middle.flatten()].mean(dim=1)
    torch.testing.assert_close(features[:, 32:], expected, rtol=0.0, atol=0.0)


def test_a_grid_of_two_by_two_has_no_middle(encoder: ViT) -> None:
    batches = [{"image": torch.randn(12, 3, 8, 8), "label": torch.arange(12) % 3}]
    assert set(evaluate(encoder, batches, batches)) == {
        *(f"{kind}_top1_{pooling}" for kind in ("knn", "linear") for pooling in ("cls", "avg")),
        *("knn_k", "n_train", "n_test", "chance"),
    }


def test_bad_inputs(encoder: ViT) -> None:
    train_f, train_y, test_f, test_y = blobs()
    broken = train_f.clone()
    broken[17, 2] = float("inf")
    with pytest.raises(TrainingError, match=r"1 of 300 feature rows are not finite \(first: row 17\)"):
        knn_accuracy(broken, train_y, test_f, test_y)
    with pytest.raises(TrainingError, match="not finite"):
        linear_probe_accuracy(train_f, train_y, test_f * float("nan"), test_y)
    with pytest.raises(TrainingError, match="not finite"):
        extract_features(encoder, [{"image": torch.full((1, 3, 8, 8), float("nan")), "label": torch.zeros(1)}])
    with pytest.raises(DataError, match="no images"):
        extract_features(encoder, [])
    with pytest.raises(DataError, match="k=400"):
        knn_accuracy(train_f, train_y, test_f, test_y, k=400)
    with pytest.raises(DataError, match="two classes"):
        linear_probe_accuracy(train_f, torch.zeros_like(train_y), test_f, test_y)
    with pytest.raises(DataError, match="do not pair up"):
        knn_accuracy(train_f, train_y[:-1], test_f, test_y)


def test_probe_is_run_to_convergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that stops early reports the optimiser, not the features."""
    fitted = []

    class Spy(LogisticRegression):
        def fit(self, *args, **kwargs):
            fitted.append(self)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Spy)
    linear_probe_accuracy(*blobs(n_train=1000))
    assert fitted[0].n_iter_[0] < fitted[0].max_iter
