"""A folder has one owner: a second one is refused before any work, and a killed one leaves nothing in the way."""

import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from on_two_ranks import in_two_forks
from run_samples import one_line

from mlomae.cli import main
from mlomae.common.atomic import hidden_name, replacing
from mlomae.common.ownership import LOCK, InUse, owned, owner_of
from mlomae.pretraining.run import run_pretraining
from mlomae.records import claim_of, config_hash, strip_paths

# owns a folder, forks a worker that outlives it, as a loader's may for seconds, and is killed
KILLED = """
import os, signal, sys, time
from pathlib import Path
from mlomae.common.ownership import owned
with owned(Path(sys.argv[1])):
    if os.fork() == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_second_owner_is_refused_by_a_line_that_names_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with owned(folder):
        with pytest.raises(InUse) as error, owned(folder, patience=0.1):
            pass
        text = one_line(error.value)
        assert text.startswith(f"'{folder}' is in use by process {os.getpid()} on {platform.node()}, started 20")
        assert owner_of(folder / LOCK) in text
        (folder / "result").touch()
    assert owner_of(folder / LOCK) is None
    assert [path.name for path in folder.iterdir()] == ["result"]
    with owned(tmp_path / "above" / "empty"):
        pass
    assert not (tmp_path / "above").exists(), "a run that was refused leaves no folder behind"


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert killed.returncode < 0
    assert killed.stdout.strip().decode() in (tmp_path / f"{LOCK}.owner").read_text(), "its words are still there"
    assert owner_of(tmp_path / LOCK) is None
    with owned(tmp_path, patience=0):
        assert f"process {os.getpid()} " in str(owner_of(tmp_path / LOCK))


# writes a file, a folder and the file of a folder below, and is killed before any of them has its name
WRITING = """
import os, signal, sys
from pathlib import Path
from mlomae.common.atomic import new_folder, replacing
place = Path(sys.argv[1])
picture = place / "pictures" / "1.png"
with replacing(place / "record.json") as a, replacing(picture) as b, new_folder(place / "set") as c:
    for path in (a, b, c / "image"):
        path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", WRITING, str(tmp_path)], check=False)
    assert killed.returncode < 0
    left = [path for path in tmp_path.rglob(".*") if path.suffix in (".tmp", ".partial")]
    assert len(left) == 3, "the process was killed while it wrote"
    elsewhere = [tmp_path / f".record.json.00000000-{n}.tmp" for n in (1, 2)]
    for path in elsewhere:
        path.write_text("half")
    os.utime(elsewhere[0], (0, 0))
    with replacing(tmp_path / "alive") as mine:
        mine.write_text("half")
        with owned(tmp_path):
            assert not any(path.exists() for path in left)
            assert [path.exists() for path in elsewhere] == [False, True], "of a day ago, and of now"
            assert mine.exists(), "this process lives"
    assert (tmp_path / "alive").read_text() == "half"


def test_so_is_what_it_wrote_about_the_owner_of_a_file(tmp_path: Path) -> None:
    (child := multiprocessing.get_context("fork").Process(target=int)).start()
    child.join()
    dead = hidden_name(".a.lock.owner").replace(str(os.getpid()), str(child.pid))
    (left := tmp_path / f"{dead}.tmp").touch()
    with owned(tmp_path / "a.json", tmp_path / ".a.lock"):
        assert not left.exists()


def test_no_run_begins_in_a_folder_in_use_and_none_is_hindered_to_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "tiny.py", **tiny.RANDOM, train__outer_iterations=2)
    work, recipe = tmp_path / "run", tmp_path / "classification" / "knn.py"
    assert main(["pretrain", str(config), "--work-dir", str(work)]) == 0
    recipe.parent.mkdir()
    textures = dict(type="textures", size=16, classes=4)
    data = dict(train=dict(split="train", count=32, **textures), test=dict(split="test", count=16, **textures))
    recipe.write_text(f'name, protocol = "knn", "knn"\ndata = {data}\nbackbone = dict(img_size=16)\nknn = dict(k=3)\n')
    before = sorted(work.rglob("*"))
    capsys.readouterr()
    with owned(work):
        for command in (
            ["pretrain", str(config), "--resume"],
            ["bench", "classification", str(recipe), "--weights", "random"],
        ):
            assert main([*command, "--work-dir", str(work)]) == 2
            assert f"error: '{work}' is in use by process {os.getpid()}" in one_line(capsys.readouterr().err)
        assert main(["export", str(work), str(tmp_path / "out.safetensors")]) == 0
    assert sorted(work.rglob("*")) == before
    assert [path.name for path in tmp_path.glob(".*")] == [], "the lock of the export is gone"


def test_a_run_whose_record_another_process_makes_is_refused(tmp_path: Path) -> None:
    config, runs = tiny.config(**tiny.RANDOM), tmp_path / "runs"
    digest = config_hash(strip_paths(config.to_dict()))
    with owned(*claim_of(runs / "of_another_name.json", digest, config.seed)):
        place = runs / f"{config.name}_seed{config.seed}.json"
        with pytest.raises(InUse, match=f"'{place}' is in use by process {os.getpid()}"):
            run_pretraining(config, tmp_path / "run", records_dir=runs)
    assert [path.name for path in tmp_path.iterdir()] == [], "before any work"


def test_a_refusal_reaches_all_ranks(tmp_path: Path) -> None:
    def refused(rank: int) -> None:
        with pytest.raises(InUse, match="is in use by process"):
            run_pretraining(tiny.config(**tiny.RANDOM), tmp_path)

    with owned(tmp_path):
        in_two_forks(refused, seconds=60)
