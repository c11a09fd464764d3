"""A model's folder and card for a hub, and the upload, to a stand-in on this machine."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import tiny
import torch

from mlomae.backbones.hub import prepare_model
from mlomae.cli import main
from mlomae.common.errors import CheckpointError
from mlomae.pretraining.run import run_pretraining

Sent = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("run")
    run_pretraining(tiny.config(name="card", train__outer_iterations=2, train__picture_interval=100), work)
    return work


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """What the protocol of the Hugging Face Hub was asked for: repositories made, and files by name."""
    sent: Sent = {"made": [], "files": {}}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer: Any = {}
            if self.path.startswith("/api/repos/create"):
                sent["made"].append(asked := json.loads(body))
                answer = {"url": f"http://{self.headers['Host']}/{asked['organization']}/{asked['name']}"}
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                answer = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        sent["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"http://{self.headers['Host']}/me/vit/commit/{0:040}",
                    "hookOutput": "",
                }
            self._answer(answer)

        def do_GET(self) -> None:
            self._answer({"id": "me/vit", "sha": "0" * 40, "siblings": []})

        def _answer(self, values: Any) -> None:
            text = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_standin")
    yield sent
    server.shutdown()


def test_the_card_is_made_from_the_record_and_nothing_is_sent(run: Path, hub: Sent, tmp_path: Path) -> None:
    report = prepare_model(run, tmp_path / "o", "me/vit", licence="cc-by-4.0")
    record = json.loads((run / "record.json").read_text())
    card = (tmp_path / "o" / "README.md").read_text()
    assert hub == {"made": [], "files": {}}
    assert report.splitlines()[-1].startswith("load ")
    assert "license: cc-by-4.0" in card.split("---")[1]
    for words in (
        "timm.create_model('hf-hub:me/vit', pretrained=True, global_pool='avg')",
        f"Seed {record['seed']}.",
        record["config_hash"],
        record["train_source"],
        f"{sum(record['images_seen'].values()):,} images seen",
    ):
        assert words in card
    value, low, high = map(float, re.search(r"knn_top1_avg \| ([\d.]+) \(([\d.]+) to ([\d.]+)\)", card).groups())  # type: ignore[union-attr]
    assert value == pytest.approx(record["metrics"]["knn_top1_avg"], abs=0.05)
    assert low < value < high
    (tmp_path / "o" / "README.md").write_text("mine")
    assert "was there and is kept" in prepare_model(run, tmp_path / "o", "me/vit")
    assert (tmp_path / "o" / "README.md").read_text() == "mine"
    with pytest.raises(CheckpointError, match="does not exist"):
        prepare_model(run, tmp_path / "o", "me/vit", record=tmp_path / "none.json")
    assert (tmp_path / "o" / "README.md").read_text() == "mine", "a refusal loses nothing"


def test_other_seeds_give_an_interval_over_seeds(run: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    run_pretraining(
        tiny.config(name="card", seed=1, train__outer_iterations=2, train__picture_interval=100),
        tmp_path / "second",
        records_dir=tmp_path / "records",
    )
    prepare_model(run, tmp_path / "o", "me/vit", records=tmp_path / "records")
    card = (tmp_path / "o" / "README.md").read_text()
    assert "Seeds 0, 1. Of shares in percent: mean and 95 % interval of the mean over the seeds" in card
    assert re.search(r"knn_top1_avg \| [\d.]+ ± [\d.]+", card)
    other = tmp_path / "second" / "record.json"
    with pytest.raises(CheckpointError, match="is of seed 1, the checkpoint of seed 0"):
        prepare_model(run, tmp_path / "p", "me/vit", record=other)


def test_push_sends_the_folder_without_the_digests(
    run: Path, hub: Sent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    assert main(["export", str(run), str(out), "--hub", "me/vit", "--push"]) == 0
    assert "/me/vit/commit/0000" in capsys.readouterr().out
    assert (out / "images.npz").is_file()
    (made,) = hub["made"]
    assert (made["organization"], made["name"]) == ("me", "vit")
    assert made.get("private") is True or made.get("visibility") == "private"  # as of the library's version
    assert set(hub["files"]) == {"README.md", "config.json", "model.safetensors"}
    received = tmp_path / "received"
    received.mkdir()
    for name, content in hub["files"].items():
        (received / name).write_bytes(content)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = (
            timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images) for folder in (out, received)
        )
    assert torch.equal(ours, theirs)


def test_what_a_hub_does_not_take(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_standin")
    out = tmp_path / "o"
    for argv, words in (
        (["--hub", "vit"], "write OWNER/NAME"),
        (["--hub", "me/vit", "--format", "onnx"], "a hub takes folders"),
        (["--push"], "--push is for --hub OWNER/NAME"),
        (["--hub", "me/vit", "--record", str(tmp_path / "none.json")], "does not exist"),
        (["--hub", "me/vit", "--push"], "was written but not pushed to me/vit"),
    ):
        assert main(["export", str(run), str(out), *argv]) == 2
        assert words in capsys.readouterr().err
    assert (out / "model.safetensors").is_file()
