"""The how-to pages: their commands and their Python are run on tiny data, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.test_structure import ROOT
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.models.published_weights import PUBLISHED
from wavemix_pl.paper import catalog

Run = Callable[..., int]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERY = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

SHORT = {
    "fit": ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
    "test": ("--trainer.limit_test_batches=1",),
}
ONE_CPU = ("--trainer.accelerator=cpu", "--trainer.devices=1")
FENCES = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:wavemix-pl|python -m wavemix_pl|-m wavemix_pl) (.*)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of what is fenced."""
    return FENCES.findall(page.read_text())


def commands(block: str) -> Iterator[list[str]]:
    """The arguments of each command of this package in a block of shell."""
    for line in block.replace("\\\n", " ").splitlines():
        found = COMMAND.search(line)
        if found:
            yield shlex.split(found[1], comments=True)


def only_parsed(page: Path, arguments: list[str]) -> bool:
    """Whether a command takes what is not here: several GPUs, or the authors' weights."""
    recipes = [(ROOT / word).read_text() for word in arguments if word.startswith("experiments/recipes/")]
    settings = "\n".join((*recipes, *arguments))
    return page.stem == "cluster" or any(name in settings for name in PUBLISHED)


def is_slow(arguments: list[str]) -> bool:
    return arguments[0] in ("export", "report") or "--smoke" in arguments


def execute(run: Run, page: Path, arguments: list[str]) -> None:
    verb = arguments[0]
    if only_parsed(page, arguments):
        with pytest.raises(SystemExit) as exit:
            run(*arguments, "--print_config")
        assert exit.value.code == 0, arguments
    elif verb == "reproduce" and not {"--smoke", "--dry-run"} & {*arguments}:
        assert run(*arguments, "--dry-run") == 0, arguments
    else:
        trains = verb in ("fit", "validate", "test", "predict")
        assert run(*arguments, *SHORT.get(verb, ()), *(ONE_CPU if trains else ())) == 0, arguments


def follow(run: Run, page: Path, folder: Path, slow: bool) -> None:
    """Does what a page says, in its order, in a directory with what it takes for granted."""
    shutil.copytree(ROOT / "experiments" / "tables", folder / "experiments" / "tables")
    shutil.copytree(ROOT / "experiments" / "recipes", folder / "experiments" / "recipes")
    write_photos(folder / "photos")
    write_scenes(folder / "scenes")
    for picture in ("shoe.png", "scene.png"):
        Image.fromarray(EmbeddedFashionMNIST().load("test").images[0, 0].numpy()).save(folder / picture)
    for language, block in blocks(page):
        file = re.match(r"# (\S+\.(?:py|yaml))\n", block)
        if file:
            Path(file[1]).write_text(block)
            catalog.load_tables.cache_clear()
        elif language == "python":
            exec(compile(block, str(page), "exec"), {"__name__": page.stem})
        elif language in ("sh", "slurm"):
            for arguments in commands(block):
                if slow or not is_slow(arguments):
                    execute(run, page, arguments)


def write_photos(root: Path) -> None:
    """Images of several sizes in folders of classes."""
    rng = torch.Generator().manual_seed(0)
    for split, count in (("train", 12), ("test", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (70 + number, 90, 3), generator=rng, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / split / name / f"{name}{number}.jpg")


def write_scenes(root: Path) -> None:
    """Images with masks of three classes and void."""
    rng = torch.Generator().manual_seed(0)
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(0, 256, (72, 140, 3), generator=rng, dtype=torch.uint8)
            mask = torch.tensor([0, 1, 2, 255], dtype=torch.uint8).repeat_interleave(35).repeat(72, 1)
            Image.fromarray(pixels.numpy()).save(root / split / "images" / f"{number}.jpg")
            Image.fromarray(mask.numpy()).save(root / split / "masks" / f"{number}.png")


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page writes can be imported, as by `python -m`; nothing of it is left over."""
    monkeypatch.syspath_prepend(tmp_path)
    before, tables = {*sys.modules}, (catalog.load_tables, catalog._by_experiment)
    for cached in tables:
        cached.cache_clear()
    yield
    for name in {*sys.modules} - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]
    for cached in tables:
        cached.cache_clear()


@pytest.mark.usefixtures("own_modules")
@EVERY
def test_what_it_says_works(run: Run, page: Path, tmp_path: Path) -> None:
    follow(run, page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("name", ["new_table_row", "pretrained_weights"])
def test_what_takes_longer(run: Run, name: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / f"{name}.md"
    assert any(is_slow(arguments) for _, block in blocks(page) for arguments in commands(block))
    follow(run, page, tmp_path, slow=True)


def test_every_slow_command_is_run_somewhere() -> None:
    found = {page.stem for page in PAGES for _, block in blocks(page) for words in commands(block) if is_slow(words)}
    assert found == {"new_table_row", "pretrained_weights"}


@EVERY
def test_nothing_is_overlooked(page: Path) -> None:
    """Whatever is fenced is of a kind that is run, and each line of shell belongs to a command."""
    found = blocks(page)
    assert page.read_text().count("```") == 2 * len(found)
    for language, block in found:
        assert language in ("sh", "slurm", "python", "yaml", "text")
        if language == "sh":
            lines = block.replace("\\\n", " ").splitlines()
            assert len(lines) == len([*commands(block)]), block
        elif language == "slurm":
            assert [*commands(block)], block
        elif language == "yaml":
            assert re.match(r"# \S+\.yaml\n", block)


def test_readme_links_to_all_of_them() -> None:
    linked = {ROOT / link for link in re.findall(r"\]\(((?:docs|notebooks)/[^)]+)\)", (ROOT / "README.md").read_text())}
    picture = ROOT / "docs" / "overview.png"
    assert linked == {*PAGES, *(ROOT / "notebooks").glob("*.ipynb"), picture}
    assert picture.stat().st_size < 150_000


@EVERY
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:wavemix_pl|experiments|tests|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists() or name in ("experiments/results/widths.csv", "experiments/results/"), name
