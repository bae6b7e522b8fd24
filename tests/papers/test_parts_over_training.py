"""The figure of parts over training: from the records of epochs, the parts of the last row with the best first."""

from types import SimpleNamespace

from matplotlib.figure import Figure

from counterpart.papers import parts_over_training
from counterpart.papers.experiments import Drawing
from counterpart.records import Record


def test_the_figure_shows_the_mean_of_each_row_and_each_part_of_the_last(tmp_path, monkeypatch):
    def run(*epochs):
        records = [Record("epoch", "epoch", details={"validation_parts": ious}) for ious in epochs]
        return SimpleNamespace(records=lambda: [*records, Record("metric", "accuracy/clean", 0.5)])

    runs = {
        "first": run({"head": 0.1, "tail": 0.3}),
        "last": run({"head": 0.0, "leg": 0.2}, {"head": 0.4, "leg": 0.5}),
    }
    drawn = []
    monkeypatch.setattr(Drawing, "runs", runs)
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: drawn.append(self) or file.write(b"png"))
    caption = parts_over_training.draw_parts_over_training(object.__new__(Drawing), tmp_path / "figure.png")
    assert "“last”" in caption
    assert (tmp_path / "figure.png").read_bytes() == b"png"
    means, parts = drawn[0].axes[:2]
    assert [list(line.get_ydata()) for line in means.get_lines()] == [[20.0], [10.0, 45.0]]
    assert [label.get_text() for label in parts.get_yticklabels()] == ["leg", "head"]
    assert parts.images[0].get_array().tolist() == [[20.0, 50.0], [0.0, 40.0]]
