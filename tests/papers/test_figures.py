"""What figures draw: points and lines of plots, images and part maps of grids."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpart import papers
from counterpart.config import resolve
from counterpart.data.image_sets import Splits
from counterpart.data.labels import relabelled
from counterpart.data.synthetic_parts import load_synthetic_parts
from counterpart.errors import UserError
from counterpart.models import create
from counterpart.papers import grid, parts_pictures, plots
from counterpart.papers.experiments import Drawing
from counterpart.papers.grid import Line
from counterpart.part_colours import coloured_parts
from counterpart.recipes import load
from counterpart.records import Record


def drawing(name, values, dataset="part-imagenet", configs=None):
    found = {
        (row, column): [
            Record("metric", column, v, 10, (v - 0.1, v + 0.1), seed) for seed, v in enumerate(some)
        ]
        for (row, column), some in values.items()
    }
    return Drawing(papers.find(name), dataset, configs or {}, found, {})


@pytest.fixture
def axes(monkeypatch):
    """The plots that are drawn, by what stands above and beside them."""
    from matplotlib.figure import Figure

    seen = {}
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        seen.update({(one.get_title(), one.get_ylabel()): one for one in figure.axes})
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return seen


def lines_of(axes):
    return {
        container.get_label(): list(zip(*(c.tolist() for c in container.lines[0].get_data()), strict=True))
        for container in axes.containers
    }


def test_a_tradeoff_has_a_line_for_each_series_in_the_order_of_rows(tmp_path, axes):
    values = {  # measured in another order
        ("Downsampled: TRADES 0.1", "natural"): [0.6], ("Downsampled: TRADES 0.1", "AA"): [0.3],
        ("Downsampled: PGD", "natural"): [0.5, 0.7], ("Downsampled: PGD", "AA"): [0.4, 0.4],
        ("ResNet-50: PGD", "natural"): [0.5], ("ResNet-50: PGD", "AA"): [0.25],
        ("ResNet-50: TRADES 0.1", "natural"): [0.9],  # its attack is missing: no point
    }  # fmt: skip
    drawn = drawing("parts/figure-2", values)
    caption = plots.draw_tradeoff(drawn, tmp_path / "a.png", columns=["AA"])
    assert "95 %" in caption
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert set(axes) == {("paper", "AA, %"), ("here", "AA, %")}
    found = lines_of(axes["here", "AA, %"])
    assert list(found) == ["ResNet-50", "Downsampled"]
    assert found["ResNet-50"] == [pytest.approx((50, 25))]
    assert found["Downsampled"] == [pytest.approx((60, 40)), pytest.approx((60, 30))]
    words = [text.get_text() for text in axes["here", "AA, %"].texts]
    assert words == ["PGD", "PGD", "TRADES 0.1"]
    published = lines_of(axes["paper", "AA, %"])
    assert published["ResNet-50"][0] == pytest.approx((74.7, 37.7))  # Table 7, lr 0.1 and wd 5e-4
    assert published["ResNet-50"][1] == pytest.approx((91.6, 1.2))
    assert len(published["Downsampled"]) == 9


def test_other_data_stand_beside_what_the_paper_has_and_say_so(tmp_path, axes):
    values = {("Downsampled: PGD", "natural"): [0.5], ("Downsampled: PGD", "AA"): [0.4]}
    drawn = drawing("parts/figure-2", values, "synthetic-parts")
    plots.draw_tradeoff(drawn, tmp_path / "a.png", columns=["AA"])
    assert set(axes) == {("paper, part-imagenet", "AA, %"), ("here", "AA, %")}


def test_points_may_bear_another_columns_value_and_unpublished_figures_stand_alone(tmp_path, axes):
    values = {
        ("Downsampled: PGD", "natural"): [0.5], ("Downsampled: PGD", "AA"): [0.416],
        ("Downsampled: PGD", "textures"): [0.3], ("Bounding-Box: PGD", "natural"): [0.5],
        ("Bounding-Box: PGD", "textures"): [0.2],
    }  # fmt: skip
    drawn = drawing("parts/figure-11", values)
    plots.draw_tradeoff(drawn, tmp_path / "a.png", columns=["corruptions", "textures"], label="AA")
    assert set(axes) == {("here", "corruptions, %"), ("here", "textures, %")}
    assert [text.get_text() for text in axes["here", "textures, %"].texts] == ["42", ""]
    assert all(len(points) == 0 for points in lines_of(axes["here", "corruptions, %"]).values())


def test_cityscapes_is_drawn_under_both_suites_and_others_under_one(tmp_path, axes):
    def titles(dataset):
        axes.clear()
        values = {("Downsampled: PGD", column): [0.5] for column in ("natural", "AA", "AA published")}
        drawn = drawing("parts/figure-4", values, dataset)
        plots.draw_tradeoff(drawn, tmp_path / "a.png", columns=["AA", "AA published"])
        return set(axes)

    mine = {("here", "AA, %"), ("here", "AA published, %")}
    assert titles("cityscapes") == mine | {("paper", "AA published, %")}
    assert titles("pascal-part") == {("here", "AA, %"), ("paper", "AA, %")}


def test_a_curve_goes_over_the_number_that_names_a_point(tmp_path, axes):
    values = {(f"Downsampled: {share}", "AA"): [share / 200] for share in (100, 10, 50)}
    plots.draw_curves(
        drawing("parts/figure-6", values), tmp_path / "a.png", columns=["AA"], xlabel="share, %"
    )
    [found] = lines_of(axes["here", "AA, %"]).values()
    assert found == [pytest.approx((x, x / 2)) for x in (10, 50, 100)]


def test_nothing_measured_is_no_plot(tmp_path):
    with pytest.raises(UserError, match="nothing was measured"):
        plots.draw_curves(
            drawing("parts/figure-6", {}), tmp_path / "a.png", columns=["AA"], xlabel="share, %"
        )


def test_labels_are_drawn_of_the_same_images_and_points_can_be_seen(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        parts_pictures,
        "write_grid",
        lambda file, titles, lines, legend: drawn.update(t=titles, l=lines, g=legend),
    )
    monkeypatch.setattr(parts_pictures.build, "load_splits", lambda config, device: small(config))
    configs = {
        row.name: resolve(load(f"synthetic-parts/{row.recipe}"), {"device": "cpu"}, source="test")
        for row in papers.find("parts/figure-10").rows
    }
    parts_pictures.draw_labels(drawing("parts/figure-10", {}, configs=configs), tmp_path / "a.png")
    names = [line.name for line in drawn["l"]]
    assert names == ["image", "Segmentation", "Bounding boxes", "Centroids"]
    assert len(drawn["t"]) == 10
    _, masks, boxes, points = (
        (line.pictures != coloured_parts(np.zeros(1, int))).any(-1) for line in drawn["l"]
    )
    assert (masks <= boxes).all()
    assert (points.sum((1, 2)) >= 9).all()  # squares of nine pixels, some of which may lie on others
    assert points.sum() < masks.sum()
    assert "car wheel" in drawn["g"]


@pytest.mark.parametrize("named", [True, False])
def test_images_that_nobody_annotated_are_not_drawn(named, tmp_path, monkeypatch):
    images = load_synthetic_parts(train=24, test=12, size=16).test
    unmarked = replace(images.parts, there=torch.zeros(12, dtype=torch.bool))
    images = replace(images, parts=unmarked if named else None)
    model = create(
        "parts/pixel",
        2,
        image_size=16,
        parts={"part_classes": [0, 1], "encoder": "timm/test_resnet", "depth": 3},
    )
    config = resolve(load("synthetic-parts/downsampled"), {"name": "run", "device": "cpu"}, source="test")
    target = SimpleNamespace(model=model, images=images, config=config)
    monkeypatch.setattr(parts_pictures.jobs, "open_targets", lambda text, given: [target])
    monkeypatch.setattr(parts_pictures.build, "load_splits", lambda *_: SimpleNamespace(train=images))
    drawn = drawing("parts/figure-12", {}, configs={"Downsampled": config})
    with pytest.raises(
        UserError, match="Downsampled: parts are drawn of part models on images with annotated"
    ):
        parts_pictures.draw_found_parts(drawn, tmp_path / "a.png")
    with pytest.raises(UserError, match="the training images of synthetic-parts have no annotated parts"):
        parts_pictures.draw_labels(drawn, tmp_path / "a.png")


def small(config):
    data = load_synthetic_parts(train=24, test=12)
    train = relabelled(data.train, config.data.labels)
    return Splits(train=train, validation=data.validation, test=data.test)


def test_a_frame_shows_right_and_wrong_by_colour_line_and_sign(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: (seen.append(figure), save(figure, *a, **k))
    )
    pictures = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    lines = [Line("image", pictures), Line("parts", pictures, [True, False], ["car", "boat"])]
    grid.write_grid(tmp_path / "a.png", ["car", "fish"], lines, {"wheel": "#0078b4"})
    [figure] = seen
    plain, _, good, bad = figure.axes
    assert not plain.spines["left"].get_visible()
    assert [axis.texts[0].get_text() for axis in (good, bad)] == ["\u2713", "\u00d7"]
    assert good.spines["left"].get_edgecolor() != bad.spines["left"].get_edgecolor()
    assert good.spines["left"].get_linestyle() != bad.spines["left"].get_linestyle()
    assert [axis.get_xlabel() for axis in (good, bad)] == ["car", "boat"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wheel"]
