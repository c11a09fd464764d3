"""The embedded images: determinism, balance, masks that agree, and classes that only texture tells apart."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mlomae.common.errors import ConfigError
from mlomae.data import Textures, build_source, list_datasets
from mlomae.data.textures.scene import DRAWS, TEXTURES, evaluate


@pytest.fixture(scope="module")
def train() -> Textures:
    return Textures("train", count=1600)


def test_content_depends_on_seed_split_and_index_alone(train):
    again = Textures("train", count=70)
    assert torch.equal(again.images_NCHW, train.images_NCHW[:70])
    assert torch.equal(again.instances_NHW, train.instances_NHW[:70])
    assert again.fingerprint() == train.fingerprint(range(70))


def test_train_and_test_share_no_image(train):
    digests = {train.pixel_digest(i) for i in range(len(train))}
    assert len(digests) == len(train)
    for other in (Textures("test", count=200), Textures("val", count=200), Textures("train", count=200, seed=1)):
        assert not digests & {other.pixel_digest(i) for i in range(200)}


def test_defaults_and_registry():
    assert "textures" in list_datasets()
    source = build_source({"type": "textures", "split": "test", "size": 8, "objects": [1, 2]})
    assert len(source) == 2000
    assert source.root == "embedded"
    assert source.image(0).shape == (3, 8, 8)
    assert source.image(0).dtype == torch.uint8


def test_any_prefix_is_balanced(train):
    assert np.bincount(train.labels).tolist() == [200] * 8
    assert len(train.classes) == 8
    assert np.bincount(train.labels[:83]).max() - np.bincount(train.labels[:83]).min() <= 1


def test_objects_cover_a_sensible_share(train):
    share = torch.stack([train.object_mask(i).float().mean() for i in range(len(train))])
    assert 0.15 < share.mean() < 0.45
    assert share.min() > 0.02
    assert share.max() < 0.8
    instances = [len(train.instances(i)[1]) for i in range(300)]
    assert set(instances) == {1, 2, 3}
    assert min(instances.count(n) for n in (1, 2, 3)) > 70


def test_objects_are_anywhere(train):
    """A score that knows positions only must not find objects: 0.5 is chance, 0.72 was measured with whole objects."""
    share = torch.nn.functional.avg_pool2d((train.instances_NHW > 0)[:, None].float(), 4).flatten(1)
    position = share[:800].mean(dim=0)
    assert roc_auc_score((share[800:] > 0.5).flatten(), position.repeat(800)) < 0.58


@pytest.mark.parametrize("mixed", [False, True])
def test_masks_instances_and_semantic_map_agree(mixed):
    source = Textures("test", size=48, count=60, mixed=mixed, objects=(2, 4))
    kinds = 0
    for i in range(60):
        (masks, labels), semantic = source.instances(i), source.pixel_labels(i)
        assert semantic.dtype == torch.uint8
        assert masks.dtype == torch.bool
        assert masks.shape == (len(labels), 48, 48)
        assert masks.flatten(1).any(dim=1).all()
        assert torch.equal(masks.sum(dim=0) > 0, source.object_mask(i))
        assert masks.sum(dim=0).max() == 1
        for mask, label in zip(masks, labels, strict=True):
            assert (semantic[mask] == label + 1).all()
        assert torch.equal(semantic > 0, source.object_mask(i))
        if not mixed:
            assert (labels == source.labels[i]).all()
        kinds += len(labels.unique()) > 1
    assert (kinds > 30) == mixed


def test_mask_lies_on_the_object():
    """Without clutter, distractors' colours and noise apart, the pixels differ between two textures only on objects."""
    stripes = Textures("train", count=40, classes=2, clutter=0, noise=0)
    for i in range(0, 40, 5):
        twin = Textures("train", count=40, classes=3, clutter=0, noise=0)
        if stripes.labels[i] == twin.labels[i]:
            continue
        changed = (stripes.image(i).int() - twin.image(i).int()).abs().amax(dim=0) > 8
        assert changed.any()
        inside = stripes.object_mask(i)
        edge = torch.nn.functional.max_pool2d(inside[None].float(), 3, 1, 1)[0] > 0  # one soft pixel around
        assert not (changed & ~edge).any()
        assert (changed & inside).sum() > 0.5 * inside.sum()


def nearest_centroid_accuracy(train_ND: torch.Tensor, train_N: np.ndarray, test_ND: torch.Tensor, test_N: np.ndarray):
    labels = torch.from_numpy(train_N)
    centroids = torch.stack([train_ND[labels == c].mean(dim=0) for c in range(8)])
    return (torch.cdist(test_ND, centroids).argmin(dim=1) == torch.from_numpy(test_N)).float().mean().item()


def test_colour_does_not_tell_the_class_but_the_texture_does(train):
    test = Textures("test", count=800)

    def object_colour(source: Textures) -> torch.Tensor:
        inside = (source.instances_NHW > 0)[:, None]
        return (source.images_NCHW * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))

    def image_colour(source: Textures) -> torch.Tensor:
        return source.images_NCHW.float().mean(dim=(2, 3))

    def spectrum(source: Textures) -> torch.Tensor:
        grey = source.images_NCHW.float().mean(dim=1)
        inside = source.instances_NHW > 0
        mean = (grey * inside).sum(dim=(1, 2), keepdim=True) / inside.sum(dim=(1, 2), keepdim=True)
        power = torch.fft.fft2((grey - mean) * inside).abs()
        return (power / power.norm(dim=(1, 2), keepdim=True)).flatten(1)

    scores = {
        measure.__name__: nearest_centroid_accuracy(measure(train), train.labels, measure(test), test.labels)
        for measure in (object_colour, image_colour, spectrum)
    }
    # Chance is 0.125; with 800 images its standard deviation is 0.012.
    assert scores["object_colour"] < 0.17, scores
    assert scores["image_colour"] < 0.17, scores
    assert scores["spectrum"] > 0.4, scores


@pytest.mark.parametrize("texture", TEXTURES, ids=lambda t: t.name)
def test_fields_stay_in_range_and_vary(texture):
    axis = np.arange(-16.0, 16.0)
    draws = np.random.default_rng(0).random((20, DRAWS + 3))
    field = evaluate(texture, axis[None, None, :], axis[None, :, None], draws, 1.0, 0.1)
    assert field.shape == (20, 32, 32)
    assert np.abs(field).max() <= 1 + 1e-9
    assert field.std(axis=(1, 2)).min() > 0.4
    assert np.abs(field[0] - field[1]).mean() > 0.2


@pytest.mark.parametrize(
    "bad",
    [
        {"split": "training"},
        {"size": 4},
        {"count": 0},
        {"classes": 13},
        {"objects": (0, 2)},
        {"objects": (3, 2)},
        {"radius": (0.0, 0.2)},
        {"contrast": (0.5, 0.2)},
        {"clutter": -1},
        {"noise": -1},
        {"jitter": 1.0},
        {"scale": 0},
        {"colour": 2},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_values_out_of_range_are_named(bad):
    with pytest.raises(ConfigError) as error:
        build_source({"type": "textures", **bad})
    assert next(iter(bad)) in str(error.value)
    assert "must be" in str(error.value) or "choose one of" in str(error.value)
