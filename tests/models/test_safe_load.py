"""What stands in a file of weights beside them, and in place of them."""

import subprocess
import sys
import zipfile
from collections import defaultdict, deque
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_samples import make_mae
from mmengine.logging import HistoryBuffer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mlomae.backbones.create import create_backbone
from mlomae.common.errors import CheckpointError
from mlomae.models.loading import load_pretrained
from mlomae.models.safe_load import Record, read_file
from mlomae.models.weights import read_weights

IMAGES = torch.zeros(2, 3, 16, 16)
PLAIN = VisionTransformer(16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=0).eval()
BASE: dict[str, Tensor] = {key: value.detach() for key, value in PLAIN.state_dict().items()}


def create(path: Path) -> Any:
    return create_backbone(str(path), num_classes=0, img_size=16, global_pool="token", model={"num_heads": 2})


def follow(error: CheckpointError, folder: Path) -> None:
    """Run the command that a message ends with."""
    command = str(error)[str(error).index("python -c") :]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=folder, timeout=120)


def test_the_safe_list_holds_records_and_nothing_that_runs(tmp_path: Path) -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0)
    others = [buffer, deque([1, 2]), defaultdict(dict, {"a": {"b": 1}}), datetime.now(), np.bool_(True), {3}]
    for other in others:
        state = {f"backbone.{key}": value for key, value in BASE.items()}
        torch.save({"state_dict": state, "message_hub": {"loss": other}}, tmp_path / "w.pth")
        assert read_weights(tmp_path / "w.pth").encoder.keys() == BASE.keys()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(
        CheckpointError, match=r"refers to 'torch.nn.modules.linear.Linear'.*if you trust it.*python -c"
    ):
        read_weights(tmp_path / "module.pth")


class Reaches:
    """Pickled as a call of getattr, which the safe list has for MMEngine's buffers."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, ("text", "upper")


def test_what_is_listed_is_not_called(tmp_path: Path) -> None:
    torch.save({"model": BASE, "x": Reaches(), "p": Path("/etc"), "a": np.arange(3)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    content, _ = read_file(tmp_path / "w.pth")
    assert all(isinstance(content[key], Record) for key in "xpa")
    assert content["x"].args == ("text", "upper")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.slow
def test_the_conversion_that_the_message_gives_works(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="python -c") as error:
        read_weights(tmp_path / "module.pth")
    follow(error.value, tmp_path)
    assert read_weights(tmp_path / "weights.pth").encoder.keys() == BASE.keys()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_a_program_is_called_what_it_is_and_its_weights_can_be_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    if kind == "TorchScript":
        torch.jit.trace(PLAIN, IMAGES).save(str(path))
    else:
        torch.export.save(torch.export.export(PLAIN, (IMAGES,)), path)
    with pytest.raises(CheckpointError, match=f"program.pt2' is a .*{kind}.*python -c") as error:
        read_weights(path)
    follow(error.value, tmp_path)
    found = read_weights(tmp_path / "weights.pth").encoder
    assert found.keys() == BASE.keys()
    assert all(torch.equal(found[key], BASE[key]) for key in BASE)


@pytest.mark.parametrize(
    ("name", "members", "said"),
    [
        ("w.pt", ["w/data.pkl", "w/constants.pkl", "w/code/x.py"], "is a TorchScript program.*torch.jit.load"),
        ("w.pt2", ["w/archive_format", "w/models/model.json"], "is a program of torch.export.*torch.export.load"),
        ("w.pth", ["photos/1.jpg"], "is an archive; unpack it"),
        ("w.pth", ["w/data.pkl"], "is truncated or not a torch file"),
        ("w.onnx", None, "is an ONNX model.*give the weights that it was made of"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(
    name: str, members: list[str] | None, said: str, tmp_path: Path
) -> None:
    if members is None:
        (tmp_path / name).write_bytes(b"\x08\x0a\x12\x07pytorch")
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for member in members:
                file.writestr(member, b"")
    with pytest.raises(CheckpointError, match=said) as error:
        read_weights(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
        (b"\n<HTML>", "web page"),
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(500), "truncated"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_a_failed_download_leaves_is_to_be_fetched_again(
    content: bytes, words: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (read_weights, lambda path: load_pretrained(make_mae(), path), create):
        with pytest.raises(
            CheckpointError, match=rf"{words if name == 'w.pth' or words != 'truncated' else ''}.*fetch"
        ):
            read(tmp_path / name)
