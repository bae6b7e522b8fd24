"""Every doubt on a model that deserves it, and none on one that does not."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from counterpart.batch import Batch
from counterpart.contracts import NamedAttack
from counterpart.evaluation.ledger import LedgerRow
from counterpart.evaluation.model_checks import INPUTS, classifier_doubts, model_doubts, result_doubts
from counterpart.models.inference import InferenceView
from counterpart.models.straight_through import straight_through


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5)
    )


@pytest.fixture
def batch(generator):
    """Images that the healthy network classifies as their labels say."""
    images = torch.rand(24, 3, 8, 8, generator=generator)
    labels = small_network().eval()(images).argmax(dim=1)
    return Batch(images, labels, torch.arange(24))


def names(model, batch):
    return [doubt.name for doubt in model_doubts(model, InferenceView(model), batch)]


class Around(nn.Module):
    """A function of the logits, or of the images, around a network."""

    def __init__(self, network, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images):
        return self.after(self.network(self.before(images)))


def test_a_healthy_network_raises_no_doubt(batch):
    assert names(small_network(), batch) == []


def test_a_healthy_network_in_training_mode_is_judged_in_eval_mode(batch):
    assert names(small_network().train(), batch) == []


def test_two_classes_have_no_dlr_and_no_doubt(batch):
    model = Around(small_network(), after=lambda z: z[:, :2])
    assert names(model, replace(batch, labels=batch.labels % 2)) == []


def test_softmax_at_the_end(batch):
    assert names(Around(small_network(), after=lambda z: z.softmax(dim=1)), batch) == ["probabilities"]


@pytest.mark.parametrize(
    ("after", "name", "said"),
    [
        (lambda z: (20 * z).sigmoid(), "bounded outputs", r"never leave \[0, 1\] \(a sigmoid at its end\?\)"),
        (lambda z: (3 * z).tanh(), "bounded outputs", r"never leave \[-1, 1\] \(a tanh at its end\?\)"),
        (
            lambda z: z.softmax(1) + (2 * z).softmax(1),
            "probabilities",
            "sums of probabilities, 2 for each image",
        ),
        (lambda z: torch.log((400 * z).softmax(1) + 1e-8), "probabilities", r"cut off at -18\.42"),
    ],
)
def test_outputs_that_flatten_gradients(batch, after, name, said):
    model = Around(small_network(), after=after)
    doubts = {doubt.name: doubt.text for doubt in model_doubts(model, InferenceView(model), batch)}
    assert re.search(said, doubts[name])
    assert "attacks" in doubts[name]


@pytest.mark.parametrize(
    "after", [lambda z: z.log_softmax(dim=1), lambda z: z / 100, lambda z: 10 * z.tanh()]
)
def test_outputs_that_do_not(batch, after):
    assert names(Around(small_network(), after=after), batch) == []


def test_rounding_has_no_gradient_and_a_way_out(batch):
    def eight_bits(images):
        return (255 * images).round() / 255

    model = Around(small_network(), before=eight_bits)
    labels = model.eval()(batch.images).argmax(dim=1)
    doubts = model_doubts(model, InferenceView(model), replace(batch, labels=labels))
    assert {doubt.name for doubt in doubts} == {"zero gradients"}
    assert all("wrap it in counterpart.straight_through" in doubt.text for doubt in doubts)
    assert (
        names(Around(small_network(), before=straight_through(eight_bits)), replace(batch, labels=labels))
        == []
    )


@pytest.mark.parametrize("words", list(INPUTS))
def test_normalisation_that_is_missing_inside(batch, words):
    """The network was made for other inputs, and gets images in [0, 1]: its answers are right once they are changed."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in INPUTS[words])
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():  # no bias to the class that wins on [0, 1]
        inputs = (batch.images - mean) / std
        model[1].bias -= model(inputs).mean(dim=0)
    labels = model(inputs).argmax(dim=1)
    [doubt] = model_doubts(model, InferenceView(model), replace(batch, labels=labels))
    assert doubt.name == "input range"
    assert f"100% when {words}:" in doubt.text


def test_a_model_that_refuses_other_inputs_is_not_refused(batch):
    def strict(images):
        assert bool((images >= 0).all()), "images must be in [0, 1]"
        return images

    assert names(Around(small_network(), before=strict), batch) == []
    assert (
        names(Around(small_network(), before=lambda x: x + 0 * x.log1p().sqrt()), batch) == []
    )  # NaN below 0


def test_images_that_are_wrong_anyway_need_no_gradient(batch):
    """Where the true class is third, the DLR loss is 1 whatever the image."""
    third = small_network().eval()(batch.images).argsort(dim=1, descending=True)[:, 2]
    mixed = torch.where(torch.arange(24) % 2 == 0, batch.labels, third)
    assert "zero gradients" not in names(small_network(), replace(batch, labels=mixed))
    assert "zero gradients" not in names(small_network(), replace(batch, labels=third))


def test_random_answers(batch):
    assert names(Around(small_network(), after=lambda z: z + 1e-3 * torch.randn_like(z)), batch) == [
        "random answers"
    ]


def test_a_view_that_is_another_function(batch):
    model = small_network().eval()
    assert [d.name for d in model_doubts(model, InferenceView(model, precision="bf16"), batch)] == []
    frozen = InferenceView(model)
    with torch.no_grad():
        model[-1].weight.add_(0.5 * torch.randn_like(model[-1].weight))
    labels = model(batch.images).argmax(dim=1)
    assert "view differs" in [d.name for d in model_doubts(model, frozen, replace(batch, labels=labels))]


def test_batch_statistics_in_eval_mode(batch):
    model = small_network()
    model[1] = nn.BatchNorm2d(8, track_running_stats=False)
    assert "batch-dependent answers" in names(model, batch)


def test_batch_norm_that_is_stuck_in_training_mode(batch):
    class Stuck(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

        def forward(self, images):
            return nn.functional.batch_norm(images, None, None, self.weight, self.bias, training=True)

    model = small_network()
    model[1] = Stuck(8)
    doubts = {d.name: d.text for d in model_doubts(model, InferenceView(model), batch)}
    assert "batch-dependent answers" in doubts
    assert doubts["training mode"] == "eval() leaves 1 in training mode."


def test_a_whole_model_that_stays_in_training_mode_is_named(batch):
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = small_network().eval()

        def train(self, mode=True):
            return self

        def forward(self, images):
            return self.network(images)

    [doubt] = model_doubts(Forgetful(), InferenceView(Forgetful()), batch)
    assert doubt.name == "training mode"
    assert "Forgetful" in doubt.text


@pytest.mark.parametrize(
    ("before", "after", "losses"),
    [
        (
            lambda x: (x * 16).round() / 16,
            lambda z: z,
            ["cross-entropy", "DLR"],
        ),  # a staircase: flat everywhere
        (
            lambda x: (x * 255).to(torch.uint8).float() / 255,
            lambda z: z,
            ["cross-entropy", "DLR"],
        ),  # no graph
        (lambda x: x, lambda z: z * 1e6, ["cross-entropy"]),  # a softmax of exactly one
    ],
)
def test_zero_gradients(batch, before, after, losses):
    model = Around(small_network(), before, after)
    labels = model.eval()(batch.images).argmax(dim=1)
    doubts = model_doubts(model, InferenceView(model), replace(batch, labels=labels))
    assert [d.name for d in doubts] == ["zero gradients"] * len(losses)
    for doubt, loss in zip(doubts, losses, strict=True):
        assert f"24 of 24 images have no gradient of the {loss} loss" in doubt.text


def test_a_saturated_softmax_is_two_doubts(batch):
    found = names(Around(small_network(), after=lambda z: (z * 1e6).softmax(dim=1)), batch)
    assert found[0] == "probabilities"
    assert "zero gradients" in found


def row(*fooled):
    return LedgerRow(0, 1, 1, fooled, 0 if fooled else 1, 1, 0)


def lines(texts, by_gradient=True):
    return [
        NamedAttack(text, lambda *_: None, text.split(" target")[0], by_gradient=by_gradient)
        for text in texts
    ]


def found(rows, *texts, **options):
    """The doubts about attacks of these names, which follow gradients unless they are objects already."""
    attacks = [attack for text in texts for attack in (lines([text]) if isinstance(text, str) else [text])]
    return [doubt.name for doubt in result_doubts(rows, attacks, **options)]


def test_honest_rows_raise_no_doubt():
    rows = [row("PGD-20")] * 60 + [row("apgd-t target 1")] * 3 + [row("apgd-t target 2")] * 4 + [row()] * 33
    assert found(rows, "PGD-20", "apgd-t target 1", "apgd-t target 2", "square") == []
    assert found([row()] * 10) == []
    assert found([], "PGD-20") == []


SQUARE, PGD_FROM_ANOTHER_MODEL = lines(["square", "PGD-20 from runs/other"], by_gradient=False)


@pytest.mark.parametrize("queries", [SQUARE, PGD_FROM_ANOTHER_MODEL])
def test_gains_without_gradients(queries):
    rows = [row("PGD-20")] * 950 + [row(queries.name)] * 3 + [row()] * 47
    assert found(rows, "PGD-20", queries) == ["black-box gains"]
    assert found([*rows[1:-1], row("PGD-20"), row()], "PGD-20", queries) == ["black-box gains"]
    few = [row("PGD-20")] * 950 + [row(queries.name)] * 2 + [row()] * 48
    assert found(few, "PGD-20", queries) == []  # 0.2 %, as the published AutoAttack allows
    assert found(rows, "PGD-20", queries.name) == []  # the name decides nothing, the attack says it


def test_an_image_that_falls_to_queries_first_says_nothing_about_gradients():
    rows = [row("square")] * 60 + [row("PGD-20")] * 10 + [row()] * 30
    assert found(rows, SQUARE, "PGD-20") == []
    assert found(rows, SQUARE, "PGD-20", individual=True) == ["black-box gains", "gap between attacks"]
    assert found([row("square")] * 5, SQUARE) == []  # no gradients were asked


def test_a_gap_between_the_first_gradient_attack_and_the_worst_case():
    rows = [row("PGD-20")] * 40 + [row("apgd-t target 1")] * 9 + [row()] * 51
    assert found(rows, "PGD-20", "apgd-t target 1") == ["gap between attacks"]
    assert found([*rows[:-1], row("PGD-20")], "PGD-20", "apgd-t target 1") == ["gap between attacks"]
    narrow = [row("PGD-20")] * 40 + [row("apgd-t target 1")] * 8 + [row()] * 52
    assert found(narrow, "PGD-20", "apgd-t target 1") == []
    both = [row("PGD-20", "apgd-t target 1")] * 40 + [row("PGD-20")] * 9 + [row()] * 51
    assert found(both, "PGD-20", "apgd-t target 1", individual=True) == []


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("name", ["FGSM", "PGD-1", "PGD-1x5 margin", "PGD-1 step 2/255", "MM3-1"])
def test_one_step_is_no_measure_of_a_gap(name, individual):
    rows = [row(name)] * 20 + [row("PGD-20")] * 30 + [row()] * 50
    if individual:
        rows[:20] = [row(name, "PGD-20")] * 20
    assert found(rows, name, "PGD-20", individual=individual) == []
    gap = [*rows[:-10], *[row("MM3-20")] * 10]  # which the attack of several steps is measured by
    assert found(gap, name, "PGD-20", "MM3-20", individual=individual) == ["gap between attacks"]


@pytest.mark.parametrize("name", ["PGD-10", "PGD-10x1 step 1/255", "APGD-11", "10-step apgd-ce"])
def test_several_steps_are_a_measure_of_a_gap(name):
    rows = [row(name)] * 20 + [row("PGD-20")] * 30 + [row()] * 50
    assert found(rows, name, "PGD-20") == ["gap between attacks"]


TEN = tuple("0123456789")


def answered(*pairs):
    """((label, answer, how many), ...) -> rows."""
    return [LedgerRow(0, label, answer, (), answer, 1, 0) for label, answer, n in pairs for _ in range(n)]


def doubted(rows, classes=TEN):
    return [doubt.name for doubt in classifier_doubts(rows, classes)]


def test_a_classifier_that_always_answers_the_same():
    rows = answered(*((label, 3, 10) for label in range(10)))
    first, second = classifier_doubts(rows, TEN)
    assert first.name == "answers hardly vary"
    assert first.text.startswith("the model answers 100 of 100 clean images with '3', which 10 of them are")
    assert second.name == "clean accuracy near chance"
    words = "10 of 100 clean images are right (10.0%, interval 5.5% to 17.4%), and guessing reaches 10.0%"
    assert second.text.startswith(words)
    nearly = answered(*((label, 3, 10) for label in range(9)), (9, 3, 5), (9, 9, 5))
    assert "answers hardly vary" in doubted(nearly)
    varied = answered(*((label, 3, 10) for label in range(9)), (9, 3, 4), (9, 9, 6))
    assert "answers hardly vary" not in doubted(varied)


def test_images_that_hardly_vary_raise_no_doubt():
    assert doubted(answered((0, 0, 200))) == []  # of one class alone
    assert doubted(answered((0, 0, 90), (1, 0, 10)), ("a", "b")) == ["clean accuracy near chance"]


@pytest.mark.parametrize(
    ("right", "n", "near"),
    [(15, 100, True), (16, 100, False), (200, 1000, False), (110, 1000, True)],
)
def test_an_accuracy_whose_interval_reaches_chance(right, n, near):
    """Chance is 0.1: Wilson's lower bound for 16 of 100 is 0.101, for 110 of 1,000 0.092."""
    labels = [k % 10 for k in range(n)]
    rows = [
        LedgerRow(0, y, y if k < right else (y + 1 + k % 8) % 10, (), 0, 1, 0) for k, y in enumerate(labels)
    ]
    assert doubted(rows) == (["clean accuracy near chance"] if near else [])


def test_chance_is_the_most_frequent_class_where_classes_differ_in_size():
    rows = answered((0, 0, 70), (0, 1, 10), (1, 0, 12), (1, 1, 8))  # 78 % right, and 80 % are of one class
    assert doubted(rows, ("a", "b")) == ["clean accuracy near chance"]
    assert doubted(answered((0, 0, 46), (0, 1, 4), (1, 0, 4), (1, 1, 46)), ("a", "b")) == []
