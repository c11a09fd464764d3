"""What is checked before the first step of a pretraining, so that nothing is found out at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlomae import auxiliary, masking
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.config.schema import PretrainConfig
from mlomae.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OuterBatches,
    SceneSource,
    Source,
    Stream,
    build_augment,
    check_two_classes,
)
from mlomae.data.augment import Augmentation
from mlomae.data.streams import check_divisible
from mlomae.masking import is_trainable


def check_kinds(config: PretrainConfig, train: Source, feedback: Source, pixels: bool) -> None:
    """Raise ConfigError where labels of pixels are used as labels of whole images, or the reverse."""
    kind = config.feedback["type"]
    if len(train.classes) < 2 and config.data.eval is not None:
        raise ConfigError(
            f"data.eval is for k-NN and linear probe, which need labels of images, and {train.describe()} has none; "
            "set it to None"
        )
    learned = is_trainable(config.mask["type"])
    if isinstance(feedback, SceneSource) and learned and not pixels:
        raise ConfigError(
            f"feedback.type='{kind}' needs classes of images and {feedback.describe()} has them for pixels; "
            "set feedback.type='segmentation'"
        )
    if not pixels and learned and len(feedback.classes) < 2:
        raise ConfigError(
            f"mask.type='{config.mask['type']}' learns from labels, which {feedback.describe()} does not have; "
            "set data.feedback to a data set with labels, or choose another mask"
        )
    if pixels and config.data.shuffle_labels is not None:
        raise ConfigError(f"data.shuffle_labels permutes labels of images, which feedback.type='{kind}' does not read")
    if (config.auxiliary or {}).get("type") == "classification":
        if pixels:
            raise ConfigError(
                f"auxiliary.type='classification' has other classes than feedback.type='{kind}'; remove one"
            )
        check_two_classes(train, train.labels, "auxiliary.type='classification'", "set auxiliary=None")


def check_labels(feedback: str, batches: OuterBatches) -> None:
    """Raise DataError if the head's or the upper images are of one class."""
    for part, stream in (("head", batches.head), ("upper", batches.upper)):
        if stream is not None and not stream.pixels:
            use = f"the {part} level of feedback '{feedback}'"
            check_two_classes(stream.source, stream.labels.numpy(), use, "add images, or set data.feedback to others")


def build_augments(config: PretrainConfig, learned: bool) -> tuple[Augmentation, Augmentation]:
    """The augmentations of the lower level and of the feedback.

    Raises ConfigError for another size than the model's, and for images that feedback or evaluation would normalise in
    another way than the encoder's training.
    """
    size = config.model.img_size
    built = []
    for key in ("augment", "feedback_augment"):
        given = getattr(config.data, key)
        if given.get("size", size) != size:
            raise ConfigError(f"data.{key}.size is {given['size']}, and model.img_size is {size}; leave it out")
        built.append(build_augment({"size": size, **given}))
    lower, feedback = built
    for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        own, others = list(getattr(lower, key)), list(getattr(feedback, key))
        if learned and own != others:
            raise ConfigError(
                f"data.feedback_augment.{key} is {others}, and data.augment.{key} is {own}; set it to that"
            )
        if config.data.eval is not None and own != list(usual):
            raise ConfigError(
                f"data.augment.{key} is {own}, and evaluation takes {list(usual)}; leave it out, or set data.eval=None"
            )
    return lower, feedback


def lowered_batches(config: PretrainConfig, levels: Mapping[str, Sequence[Stream]], processes: int) -> dict[str, int]:
    """The batch sizes that are larger than the images they are drawn from, lowered to as many.

    ``levels``: the streams that a key of ``config.data`` is about. A batch would repeat images, which tell a feedback
    nothing new. Raises ConfigError for lower batches that cannot be accumulated.
    """
    lowered = {}
    for key, streams in levels.items():
        images = min((len(stream) for stream in streams), default=getattr(config.data, key))
        if getattr(config.data, key) > images:
            lowered[key] = max(images // processes, 1) * processes
    _check_chunks(lowered.get("batch_size", config.data.batch_size) // processes, config.train.accumulate)
    return lowered


def check_shares(config: PretrainConfig, processes: int) -> None:
    """Raise ConfigError, before there are ``processes`` or data, if they could not share the batches or accumulate."""
    data, chunks = config.data, config.train.accumulate
    sizes = {"data.batch_size": data.batch_size, "data.feedback_batch_size": data.feedback_batch_size}
    check_divisible(sizes, processes)
    _check_chunks(data.batch_size // processes, chunks)
    check_coupled(config, processes)


def check_coupled(config: PretrainConfig, processes: int) -> None:
    """Raise ConfigError for chunks of several processes, which are not those of one, if a loss compares within them."""
    if config.train.accumulate == 1 or processes == 1:
        return
    if masking.is_coupling(config.mask["type"]):
        what = f"mask.type='{config.mask['type']}'"
    elif config.auxiliary is not None and auxiliary.is_coupling(config.auxiliary["type"]):
        what = "auxiliary"
    else:
        return
    raise ConfigError(
        f"{what} compares the images of a chunk, and chunks of {processes} processes hold other images than those of "
        "one; set train.accumulate=1"
    )


def _check_chunks(share: int, chunks: int) -> None:
    if share % chunks:
        raise ConfigError(
            f"train.accumulate={chunks} does not divide the {share} images of a process's lower batch; choose another"
        )


def check_sizes(before: dict[str, int], now: dict[str, int], folder: Path) -> None:
    """Raise CheckpointError for a run whose batches were `lowered_batches` in another way: by an earlier version, which
    repeated images, or of other data."""
    if before != now:
        raise CheckpointError(
            f"the run in '{folder}' drew batches of other sizes ({before or 'as configured'}, now {now}); finish it "
            "with the version and the data that it began with, or choose another work dir"
        )
