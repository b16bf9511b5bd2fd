"""Reading weights from files, names and state dicts, and giving a segmenter the backbone of a classifier."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.published_weights import FOLDER, PUBLISHED, found, resolve
from wavemix_pl.models.weights import (
    export_authors_state_dict,
    load_checkpoint,
    load_weights,
    model_state,
    pretrained_model,
)

NAME = "WaveMix-8/2 (level 2)"
SMALLEST = "cifar10/wavemix-lite-144-7"


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_transfer_says_what_went_where() -> None:
    classifier = create_model(NAME, 10)
    segmenter = create_model(NAME, 4, task="segmentation")
    fresh = copy_of(segmenter)
    transfer = load_weights(segmenter, classifier.state_dict(), new_head=True)
    source, target = classifier.state_dict(), segmenter.state_dict()
    assert set(transfer.taken) | set(transfer.new) == set(target)
    assert set(transfer.taken) | set(transfer.unused) == set(source)
    assert all(torch.equal(target[name], source[name]) for name in transfer.taken)
    assert all(torch.equal(target[name], fresh[name]) for name in transfer.new)
    assert {name.split(".")[0] for name in transfer.new + transfer.unused} == {"head"}
    for name in transfer.new + transfer.unused:
        assert name in str(transfer)


@pytest.mark.parametrize("new_head", [False, True])
@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("WaveMix-12/2 (level 2)", r"stem.0.weight is \(6, 3, 3, 3\) in the weights and \(4, 3, 3, 3\) in the model"),
        ("WaveMix-8/1 (level 2)", r"no blocks.1.reduce.weight, .* and \d+ more, which the model needs"),
        ("WaveMix-8/3 (level 2)", r"have blocks.2.reduce.weight, .* and \d+ more, which the model does not know"),
        ("WaveMix-Lite-8/2", "blocks.0.paths"),
    ],
)
def test_another_backbone_is_refused_and_nothing_changes(source: str, named: str, new_head: bool) -> None:
    model = create_model(NAME, 4)
    before = copy_of(model)
    with pytest.raises(InputError, match=named) as error:
        load_weights(model, create_model(source, 4).state_dict(), new_head)
    assert "new_head" not in str(error.value)  # which would not help
    assert_same(model, before)


def test_a_head_of_other_classes_stays_new_only_if_asked() -> None:
    model, source = create_model(NAME, 4), create_model(NAME, 10)
    before = copy_of(model)
    with pytest.raises(InputError, match=r"head.linear.weight is \(10, 8\).*new head: new_head=True"):
        load_weights(model, source.state_dict())
    assert_same(model, before)
    transfer = load_weights(model, source.state_dict(), new_head=True)
    assert transfer.new == transfer.unused == ["head.linear.weight", "head.linear.bias"]
    assert_same(model, {**source.state_dict(), **{name: before[name] for name in transfer.new}})


def test_new_head_needs_a_head() -> None:
    with pytest.raises(InputError, match="Sequential has no part called head"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), {"0.weight": torch.ones(2, 2)}, new_head=True)


def test_the_model_in_a_checkpoint_of_lightning() -> None:
    state = {"model.stem.0.weight": torch.ones(1), "loss.weight": torch.ones(2)}
    assert list(model_state({"state_dict": state})) == ["stem.0.weight"]
    nothings: list[Any] = [{}, {"epoch": 3}, {"state_dict": {"model.a": 1}}, torch.ones(2), [1], {1: torch.ones(2)}]
    for nothing in nothings:
        with pytest.raises(InputError, match="neither a checkpoint"):
            model_state(nothing)


def test_names_of_wrappers_are_taken_off() -> None:
    model = create_model("WaveMix-Lite-8/1", 3)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "model.", "model._orig_mod."):
        assert model_state({prefix + name: value for name, value in model.state_dict().items()}).keys() == (
            model.state_dict().keys()
        )
    assert model_state({"model": model.state_dict()}).keys() == model.state_dict().keys()


def test_a_tensor_that_comes_twice_is_refused() -> None:
    model = create_model("WaveMix-Lite-8/1", 3)
    state = export_authors_state_dict(model)
    with pytest.raises(InputError, match=r"have head.linear.bias twice.*pool\.2\.bias"):
        load_weights(model, {"head.linear.bias": state["pool.2.bias"], **state})


def test_a_part_that_the_authors_blocks_do_not_have() -> None:
    model = create_model("WaveMix-Lite-8/1", 3)
    state = {**export_authors_state_dict(model), "layers.0.feedforward.1.weight": torch.ones(1)}
    with pytest.raises(InputError, match=r"have layers\.0\.feedforward\.1\.weight, which the model does not know"):
        load_weights(model, state)


@pytest.mark.parametrize("layout", ["ours", "the authors'", "lightning's"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_files(layout: str, suffix: str, tmp_path: Path) -> None:
    source = create_model(NAME, 4)
    state = export_authors_state_dict(source) if layout == "the authors'" else dict(source.state_dict())
    if layout == "lightning's":
        state = {f"model.{name}": value for name, value in state.items()}
    path = tmp_path / f"file{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if layout == "lightning's" else state, path)
    model = create_model(NAME, 4)
    transfer = load_weights(model, path)
    assert (transfer.taken, transfer.new, transfer.unused) == (list(source.state_dict()), [], [])
    assert_same(model, dict(source.state_dict()))
    other = create_model("WaveMix-Lite-8/2", 4)
    with pytest.raises(InputError, match=rf"{path}: the weights have "):
        load_weights(other, str(path))


def test_peers_load_what_is_their_own() -> None:
    model, source = (build_model("ConvMixer-8/2", 3, "classification", {}) for _ in range(2))
    assert load_weights(model, source.state_dict()).new == []
    assert_same(model, dict(source.state_dict()))


def test_load_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "file.pt")
    assert torch.equal(load_checkpoint(tmp_path / "file.pt")["a"], torch.ones(2))
    (tmp_path / "file.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:-300])
    (tmp_path / "file.safetensors").write_bytes(b"no such format")
    for name in ("file.pt", "file.safetensors"):
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(tmp_path / name)


class Malicious:
    """Makes a directory when it is unpickled by what trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors", ".bin"])
@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, protocol=2))])
def test_nothing_in_a_file_runs(suffix: str, save: Callable[[Any, Path], object], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / f"file{suffix}"
    model = create_model("WaveMix-Lite-8/1", 3)
    save({"extra": Malicious(ran), **model.state_dict()}, path)
    with pytest.raises(InputError, match="damaged" if suffix == ".safetensors" else r"would run code \(\w+\.mkdir\)"):
        load_weights(model, path)
    assert not ran.exists()
    if suffix != ".safetensors":  # the file is what it claims to be
        torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
        assert ran.exists()


def test_a_published_name_does_not_make_a_file_trusted(tmp_path: Path) -> None:
    path = tmp_path / PUBLISHED[SMALLEST].file
    path.parent.mkdir()
    torch.save({"extra": Malicious(tmp_path / "ran")}, path)
    with pytest.raises(InputError, match="would run code"):
        pretrained_model(SMALLEST, folder=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with the smallest of the published models, at random."""
    folder = tmp_path / "of weights"
    path = folder / PUBLISHED[SMALLEST].file
    path.parent.mkdir(parents=True)
    torch.save(export_authors_state_dict(create_model(PUBLISHED[SMALLEST].config, 10)), path)
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def test_where_a_name_is_looked_for(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PUBLISHED[SMALLEST]
    path = weights / entry.file
    assert resolve(SMALLEST) == resolve(SMALLEST.upper()) == resolve(path) == found(entry) == path
    monkeypatch.chdir(weights)
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", "elsewhere")
    assert resolve(SMALLEST, weights) == path
    Path("weights").symlink_to(weights)
    monkeypatch.delenv("WAVEMIX_PL_WEIGHTS")
    assert resolve(SMALLEST) == Path("weights") / entry.file
    Path(SMALLEST).parent.mkdir(exist_ok=True)
    Path(SMALLEST).write_bytes(b"a file of that name")
    assert resolve(SMALLEST) == Path(SMALLEST)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("imagenet/wavemix-192-16-level4", "nearest name is 'imagenet/wavemix-192-16-level3'.*'wavemix-pl weights'"),
        ("wavemix", "neither a file nor the name of published weights; the nearest name is '"),
        ("WaveMix-12-5", "nearest name is 'fashion-mnist/wavemix-12-5-level-2'"),
        ("runs/best.ckpt", r"runs/best\.ckpt: no such file of weights$"),
        ("somewhere/galaxy10/galaxy_95.42.pth", "published: the name 'galaxy10/wavemix-192-16-level3' in its place"),
        (".", "'.' is neither a file"),
    ],
)
def test_neither_a_file_nor_a_name(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(source)


@pytest.mark.usefixtures("weights")
def test_a_published_model() -> None:
    model = pretrained_model(SMALLEST, dropout=0.0)
    source = model_state(load_checkpoint(resolve(SMALLEST)))
    assert_same(model, source)
    assert (model.config, model.training) == (PUBLISHED[SMALLEST].config.replace(dropout=0.0), True)
    again = create_model(model.config, 10)
    load_weights(again, SMALLEST)
    assert_same(again, source)
    backbone = {name: value for name, value in source.items() if not name.startswith("head.")}
    for changes in ({"num_classes": 7}, {"task": "segmentation"}, {"num_classes": 7, "task": "segmentation"}):
        with pytest.raises(InputError, match=r"has the head of classification with 10 classes.*new_head=True"):
            pretrained_model(SMALLEST, **changes)
        other = pretrained_model(SMALLEST, new_head=True, **changes)
        assert_same(other, {**copy_of(other), **backbone})
        assert type(other) is type(create_model(NAME, 3, changes.get("task", "classification")))  # type: ignore[arg-type]
        assert len(other(torch.zeros(2, 3, 16, 16))[0]) == changes.get("num_classes", 10)
    with pytest.raises(InputError, match=r"blocks.0.paths.0.project.weight is \(144,"):
        pretrained_model(SMALLEST, ff=100)


CONTENT = b"what is in the file" * 1000
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """A hub with one file: it answers HEAD with the checksum and where the file lies, GET with a redirection there.

    Attributes:
        etag: What it says the file's checksum is.
        seen: The requests for files.
    """

    etag = hashlib.sha256(CONTENT).hexdigest()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubRequest(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        if not self.path.startswith("/api/"):  # what the library wants to know besides
            self.server.seen.append(f"{self.command} {self.path}")
        if self.path == "/storage":
            self.answer(200, {"Content-Length": str(len(CONTENT))})
        elif self.path == f"/cloudwalker/wavemix/resolve/main/{FOLDER}/{PUBLISHED[SMALLEST].file}":
            headers = {"X-Repo-Commit": COMMIT, "ETag": '"of the redirection"', "X-Linked-Size": str(len(CONTENT))}
            headers |= {"X-Linked-Etag": f'"{self.server.etag}"', "Content-Length": "0"}
            self.answer(302, {**headers, "Location": f"http://localhost:{self.server.server_port}/storage"})
        else:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path == "/storage":
            self.wfile.write(CONTENT)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server
        server.shutdown()


SCRIPT = """
import sys
from wavemix_pl.errors import InputError
from wavemix_pl.models.published_weights import resolve
try:
    print(resolve(sys.argv[1]))
except InputError as error:
    print("InputError:", error)
assert "torch" not in sys.modules
"""


def fetch(home: Path, endpoint: str, name: str = SMALLEST, **environment: str) -> str:
    """What `resolve` says in a process of its own: huggingface_hub reads its settings when it is imported."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "*", **environment}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    # not in the tests' directory, where a folder of weights may lie
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        env={**inherited, "PYTHONPATH": os.pathsep.join([root, inherited.get("PYTHONPATH", "")]), **settings},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kept(home: Path) -> list[Path]:
    """The contents in the hub's cache."""
    return [path for path in home.rglob("*") if path.is_file() and path.stat().st_size >= len(CONTENT)]


def test_a_file_comes_from_the_hub_and_stays(hub: Hub, tmp_path: Path) -> None:
    path = Path(fetch(tmp_path, hub.url))
    assert path.read_bytes() == CONTENT
    assert path.parts[-3:] == (FOLDER, "cifar10", "cifar10_94.58.pth")
    assert [request.split()[0] for request in hub.seen] == ["HEAD", "HEAD", "GET"]
    assert Path(fetch(tmp_path, hub.url, HF_HUB_OFFLINE="1")) == path
    assert Path(fetch(tmp_path, hub.url)) == path
    assert len(hub.seen) == 3  # a file that is here is not asked for
    path.write_bytes(CONTENT.replace(b"file", b"hole"))
    assert "removed, and not loaded" in fetch(tmp_path, hub.url)
    assert not kept(tmp_path)
    assert Path(fetch(tmp_path, hub.url)).read_bytes() == CONTENT


def test_a_cache_without_links_asks_for_the_checksum(hub: Hub, tmp_path: Path) -> None:
    path = Path(fetch(tmp_path, hub.url))
    path.unlink()
    path.write_bytes(CONTENT)
    assert Path(fetch(tmp_path, hub.url)) == path
    assert [request.split()[0] for request in hub.seen] == ["HEAD", "HEAD", "GET", "HEAD"]
    assert "the hub is not asked (HF_HUB_OFFLINE)" in fetch(tmp_path, hub.url, HF_HUB_OFFLINE="1")


def test_another_checksum_than_the_hubs_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.etag = "0" * 64
    said = fetch(tmp_path, hub.url)
    assert said.startswith(f"InputError: {SMALLEST}: ")
    assert hashlib.sha256(CONTENT).hexdigest() in said
    assert "the hub says 0000" in said
    assert not kept(tmp_path)
    hub.etag = "1" * 40  # a file that git holds itself has git's checksum
    assert "tells no SHA-256" in fetch(tmp_path, hub.url)
    assert not kept(tmp_path)


def test_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    entry = PUBLISHED[SMALLEST]
    by_hand = f"download {entry.on_hub.url} by hand and put it at {Path('weights') / entry.file}"
    start = f"InputError: {SMALLEST} is not at {Path('weights') / entry.file}, and the hub "
    assert fetch(tmp_path, hub.url, HF_HUB_OFFLINE="1") == f"{start}is not asked (HF_HUB_OFFLINE): {by_hand}"
    assert not hub.seen
    said = fetch(tmp_path, "http://127.0.0.1:1")
    assert said.startswith(f"{start}cannot be reached (Connect")
    assert said.endswith(by_hand)
    assert f"{PUBLISHED['cifar100/wavemix-lite-256-8'].file}, and the hub answers 404: download" in fetch(
        tmp_path, hub.url, "cifar100/wavemix-lite-256-8"
    )


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", str(tmp_path))
    assert found(PUBLISHED[SMALLEST]) is None
    with pytest.raises(InputError, match=r"pip install 'wavemix_pl\[hub\]', or download https://.* by hand and put it"):
        resolve(SMALLEST)
