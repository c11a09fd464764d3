"""How a transfer is known and what it leaves: its configuration without paths, its record and where that lies, and the
copies of test images that were counted."""

import shutil
from pathlib import Path
from typing import Any

from mlomae import placing, records
from mlomae.backbones.config import C, TransferConfig
from mlomae.backbones.create import is_untrained
from mlomae.backbones.provenance import Provenance
from mlomae.common.atomic import replacing
from mlomae.common.ownership import owned
from mlomae.data import Images, check_disjoint
from mlomae.data.copies import Digests, check_trained_on, digests_of, find_copies, load_digests
from mlomae.models.places import weights_path


def described(config: TransferConfig, source: Provenance) -> dict[str, Any]:
    """The configuration as a record keeps it: it identifies the backbone by its content, not by its path."""
    plain = fitted(config, source).to_dict()
    plain["backbone"]["weights"] = source.identity
    return dict(records.strip_paths(plain))


def fitted(config: C, source: Provenance) -> C:
    """The configuration with what follows from the backbone, so that its hash is the same whether that was written out
    or left out."""
    given = (config.backbone.model or {}).get("patch_size") or 16  # of "random"; other weights know theirs
    return config.fitted(source.patch_size or given)


def check_copies(config: TransferConfig, training: Images, test: Images) -> tuple[dict[str, Any], Digests | None]:
    """Compare the test images with those that the model is trained on and those that its backbone was pretrained on.

    Returns the counts of copies under "training" and "pretraining", "unknown" for foreign weights, and the digests of
    the latter, if they are known. Raises DataError as `check_disjoint`.
    """
    allowed, spec = config.data.allow_near_copies, config.backbone.weights or ""
    copies: dict[str, Any] = {"training": check_disjoint(training, test, allowed).counts()}
    earlier = None
    if not is_untrained(spec):
        path, where = weights_path(spec), f"; pretraining of '{spec}'"
        if config.data.allow_seen:
            earlier = load_digests(path)
            counts = None if earlier is None else find_copies(earlier, digests_of(test)).counts()
        else:
            earlier, counts = check_trained_on(path, test, where, allowed)
        copies["pretraining"] = counts or "unknown"
    return copies, earlier


def place_name(name: str, method: str, seed: int) -> str:
    """The file of a transfer's record in a folder of records."""
    return f"{name}_{records.slug(method)}_seed{seed}.json"


def write_results(
    record: records.Record, work_dir: Path, records_dir: Path | None, predictions: Path | None
) -> records.Record:
    """Write the record into the run's folder, replacing the same run's, and into ``records_dir``, replacing nothing;
    returns it, or the one of the same results that is there already.

    ``predictions``: a file of the run's folder that is copied into the folder ``predictions`` of ``records_dir``
    before the record is written, so that no record is without its predictions.
    """
    name = place_name(record["name"], record["method"], record["seed"])
    place = None if records_dir is None else records_dir / name
    record = placing.keep_record(record, work_dir, place)
    if records_dir is None or place is None:
        return record
    with owned(records_dir, patience=60):  # the record and its predictions are of one run
        if predictions is not None and not place.exists():  # never replace those of an existing record
            with replacing(records.predictions_of(place.name, records_dir)) as temporary:
                shutil.copyfile(predictions, temporary)
        placing.place_record(record, place)
    return record
