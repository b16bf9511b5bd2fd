"""The verb `figures`: the paper's figures from our models, as files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torchmetrics import ConfusionMatrix

from wavemix_pl.errors import InputError
from wavemix_pl.export_source import read_source
from wavemix_pl.figures import energy, learning_curves, network, occlusion, overview, receptive_field, segmentation
from wavemix_pl.figures.given import LEVELS, SHIPPED, Given, read_given
from wavemix_pl.figures.subbands import draw_subbands
from wavemix_pl.parser import Parser
from wavemix_pl.pictures import denormalize, draw_confusion, new_figure, rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
_ACCURACY = (4, 10, 11, "fashion-frontier")  # tables with accuracies and parameters
Named = Iterator[tuple[str, "Figure"]]


def _receptive_field(given: Given) -> Named:
    networks = network.networks()
    impulses, gradients = [], []
    for one in networks:
        unit = receptive_field.unit_copy(one.build())
        impulses.append(receptive_field.impulse_responses(unit, one.layers, network.SIZE))
        gradients.append(receptive_field.random_gradient_fields(one, seed=given.seed))
    names = [one.name for one in networks]
    yield "receptive-field", receptive_field.draw_receptive_fields(names, impulses, gradients)


def _segmentation(given: Given) -> Named:
    source = given.trained("segmentation")
    module, batches = given.test_images(source, batch_size=4)
    images, truth = next(batches)
    size = truth.shape[-2:]
    predicted = torch.cat([segmentation.segment_images(source.model, image[None], size) for image in images])
    facts = module.preprocessing
    shown = denormalize(images, facts)
    colors, void = module.colors or (), module.void_index
    yield "segmentation", segmentation.draw_segmentation(shown, truth, predicted, module.class_names, colors, void)


def _occlusion(given: Given) -> Named:
    source = given.trained("classification")
    module, batches = given.test_images(source, batch_size=64)
    examples = occlusion.find_examples(source.model, batches)
    maps = [occlusion.occlusion_map(source.model, example.image, example.predicted) for example in examples]
    images = denormalize(torch.stack([example.image for example in examples]), module.preprocessing)
    yield "occlusion", occlusion.draw_occlusion(images, maps, examples, module.class_names)


def _subbands(given: Given) -> Named:
    yield "subbands", draw_subbands(given.photograph, LEVELS)


def _energy(given: Given) -> Named:
    panels = {"photograph": energy.curves(given.photograph[None], LEVELS, seed=given.seed)}
    source = given.source
    if source:
        _, batches = given.test_images(source, batch_size=16)
        maps = energy.learned_maps(source.model, next(batches)[0])
        for i in sorted({0, len(maps) // 2, len(maps) - 1}):
            title = f"learned maps, block {i + 1} of {len(maps)}"
            panels[title] = energy.curves(maps[i], source.model.config.level, seed=given.seed)
    yield "energy", energy.draw_energy(panels)


def _learning_curves(given: Given) -> Named:
    curves = learning_curves.read_curves(given.run)
    yield "learning-curves", learning_curves.draw_learning_curves(curves, learning_curves.switch_of(given.run))


def _confusion(given: Given) -> Named:
    source = given.trained("classification")
    module, batches = given.test_images(source, batch_size=256)
    counts = ConfusionMatrix(task="multiclass", num_classes=module.num_classes)
    with torch.no_grad():
        for images, targets in batches:
            counts.update(source.model(images), targets)
    yield "confusion", draw_confusion(counts.compute(), module.class_names)


def _accuracy(given: Given) -> Named:
    from wavemix_pl.paper.catalog import experiments_folder, load_tables
    from wavemix_pl.paper.comparison import compare
    from wavemix_pl.paper.plots import plots
    from wavemix_pl.paper.results import Ledger

    ledger = Ledger(experiments_folder())
    tables = [(table, compare(table, ledger)) for table in load_tables().values() if table.table in _ACCURACY]
    for plot in plots(tables):
        if plot.across == "params":
            plot.figure.suptitle(plot.caption, fontsize=9)
            words = " ".join(("accuracy table", str(plot.table), plot.group or "")).casefold()
            yield re.sub("[^a-z0-9]+", "-", words).strip("-"), plot.figure


def _overview(given: Given) -> Named:
    source = read_source(SHIPPED["classification"])
    module, batches = replace(given, data=None).test_images(source, batch_size=16)
    images, targets = next(batches)
    with torch.no_grad():
        found, predicted = source.model(images).softmax(1).max(1)
    facts = zip(images, targets.tolist(), predicted.tolist(), found.tolist(), strict=True)
    examples = [occlusion.Example(*fact) for fact in facts]
    fields = {one.name: receptive_field.random_gradient_fields(one, draws=1) for one in network.networks((1,))[:4]}
    reaches = {name.replace("\n", ", "): receptive_field.reach(field)[0] for name, (field,) in fields.items()}
    params = sum(parameter.numel() for parameter in source.model.parameters())
    model = f"{source.model.config.notation}, {params:,} parameters,"
    shown = denormalize(images, module.preprocessing)
    photo = overview.middle(given.photograph)
    yield "overview", overview.draw_overview(photo, reaches, examples, shown, module.class_names, model)


# name -> what it is, and what draws it
FIGURES: dict[str, tuple[str, Callable[[Given], Named]]] = {
    "receptive-field": ("Fig. 2: WaveMix by blocks and levels beside ResNet, ConvMixer, ViT", _receptive_field),
    "segmentation": ("Fig. 4: image, truth, prediction of a trained segmenter", _segmentation),
    "occlusion": ("Fig. 5: what a trained classifier's decisions rest on", _occlusion),
    "subbands": ("the sub-bands of a photograph, level by level", _subbands),
    "energy": ("energy compaction of Haar, Fourier and random filters; with a model, on its maps", _energy),
    "learning-curves": ("loss and score of a run, epoch by epoch", _learning_curves),
    "confusion": ("which classes of the test images a trained classifier takes for which", _confusion),
    "accuracy": ("accuracy against parameters: Tables 4, 10, 11, fashion-frontier", _accuracy),
    "overview": ("the README's picture: the transform, how far a block sees, predictions", _overview),
}


def figures(
    names: Sequence[str] = (),
    output: str = "runs/figures",
    ckpt_path: str | None = None,
    weights: str | None = None,
    data: str | None = None,
    root: str = "data",
    image: str | None = None,
    format: Sequence[Format] = ("png", "svg"),
    seed: int = 0,
) -> Iterator[str]:
    """Draws figures into files, and says of each in a line what was written.

    Args:
        names: Of `FIGURES`. None stands for all; those that lack something are then left out, and a line says what.
        output: Folder for the files.
        ckpt_path: Of a trained model, such as runs/RUN/checkpoints/best.ckpt. Default: one that comes with the package.
        weights: Published weights by their name, or a file; in the place of a checkpoint.
        data: Data set of the model, such as CIFAR10. Default: what comes with the package, if the model was trained on
            it.
        root: Folder of data sets.
        image: Photograph for the sub-bands and the energy. Default: the cameraman that comes with PyWavelets.
        format: Of the files.
        seed: Of random weights and filters.

    Raises:
        InputError: Something given cannot be used, or a figure that was asked for lacks something.
    """
    _check(names, format, output)
    given = read_given(ckpt_path, weights, data, root, image, seed)
    for name in names or FIGURES:
        try:
            drawn = list(FIGURES[name][1](given))
        except InputError as error:
            if names:
                raise InputError(f"{name} {error}" if str(error).startswith("needs") else str(error)) from error
            yield f"left out: {name}: {error}"
            continue
        files = [file for stem, figure in drawn for file in _write(figure, Path(output, stem), format)]
        yield f"{name}: {', '.join(map(str, files))}"


def _check(names: Sequence[str], formats: Sequence[str], output: str) -> None:
    for name in names:
        if name not in FIGURES:
            nearest = difflib.get_close_matches(name, FIGURES, n=1, cutoff=0.4)
            hint = f", did you mean {nearest[0]!r}?" if nearest else "."
            raise InputError(f"unknown figure {name!r}{hint} Known are {', '.join(FIGURES)}")
    if not formats or not {*formats} <= {*get_args(Format)}:
        raise InputError(f"format must be one or more of {', '.join(get_args(Format))}, got {', '.join(formats)}")
    if Path(output).exists() and not Path(output).is_dir():
        raise InputError(f"--output={output} is a file: name a folder")
    new_figure(1, 1)  # says what must be installed


def _write(figure: Figure, stem: Path, formats: Sequence[str]) -> Iterator[Path]:
    """Writes a figure in each format; a file is whole or absent."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for format in dict.fromkeys(formats):
        path = stem.with_name(f"{stem.name}.{format}")
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.write_bytes(rendered(figure, format))
        unfinished.replace(path)
        yield path


def run(arguments: list[str]) -> None:
    """The verb `figures`."""
    known = "; ".join(f"{name}: {what}" for name, (what, _) in FIGURES.items())
    parser = Parser(prog="wavemix-pl figures", description="Draws the paper's figures, as PNG and SVG.")
    parser.add_argument("names", nargs="*", default=[], help=f"Which, default all. {known}.")
    parser.add_argument("--format", nargs="+", default=["png", "svg"], help="png, svg, or both.")
    parser.add_function_arguments(figures, skip={"names", "format"})
    options = parser.parse_args(arguments[1:]).as_dict()
    for line in figures(**options):
        print(line, flush=True)
