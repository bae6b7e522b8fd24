import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from counterpart.catalogue import published_models
from counterpart.errors import UserError
from counterpart.models import create
from counterpart.models.normalisations import NORMALISATIONS, normalisation_of
from counterpart.models.published import load_published


def file_of(folder, name="wrn-10-1", classes=10, prefix="", stem="weights", channels=3, **extra):
    torch.random.default_generator.manual_seed(0)
    model = create(name, classes, in_channels=channels)
    torch.save({prefix + n: t for n, t in model.backbone.state_dict().items()} | extra, folder / f"{stem}.pt")
    return folder / f"{stem}.pt"


def test_the_numbers_of_the_data_sets():
    """Means and deviations of all training images, as published networks round them; ImageNet's as timm has them."""
    stated = {
        "none": ((0.0,), (1.0,)),
        "half": ((0.5,), (0.5,)),
        "cifar10": (
            (0.4914, 0.4822, 0.4465),
            (0.2471, 0.2435, 0.2616),
        ),  # .2470 to four digits: everyone has .2471
        "cifar100": tuple(
            tuple(round(number, 4) for number in numbers)
            for numbers in (
                (0.50707516, 0.48654887, 0.44091784),
                (0.26733429, 0.25643846, 0.27615047),
            )
        ),
        "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    }
    assert stated == NORMALISATIONS


def values(model):
    return model.mean.flatten().tolist(), model.std.flatten().tolist()


# Names and numbers of classes that decide how a file is normalised, for the networks of images of 32 pixels.
STEMS = {
    (row.name, row.classes): row
    for row in published_models()
    if row.classes < 1000 and row.network and normalisation_of(row) is not None
}


def test_a_name_and_a_number_of_classes_mean_one_normalisation():
    for row in published_models():
        if row.classes < 1000 and normalisation_of(row) is not None:
            assert normalisation_of(row) == normalisation_of(STEMS[row.name, row.classes]), row.name
    assert normalisation_of(STEMS["Rony2019Decoupling", 10]) == ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
    assert normalisation_of(STEMS["Chen2020Efficient", 100])[1] == (0.2675, 0.2565, 0.2761)
    assert normalisation_of(STEMS["Hendrycks2019Using", 10]) == ((0.5,), (0.5,))
    assert normalisation_of(STEMS["Carmon2019Unlabeled", 10]) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("stem", "classes"), STEMS)
def test_robustbenchs_files_are_normalised_as_it_does(tmp_path, stem, classes):
    architecture = (
        "preact-resnet18-fast" if STEMS[stem, classes].network == "preact-resnet18-fast" else "wrn-10-1"
    )
    name = "preact-resnet18" if architecture != "wrn-10-1" else "wrn-10-1"
    model, notes = load_published(architecture, file_of(tmp_path, name, classes, stem=stem))
    mean, std = normalisation_of(STEMS[stem, classes])
    assert values(model)[0] == pytest.approx(mean if len(mean) == 3 else mean * 3)
    assert values(model)[1] == pytest.approx(std if len(std) == 3 else std * 3)
    assert f"as RobustBench does for {stem}" in notes[-1]


def test_the_user_may_say_it(tmp_path):
    for name, (mean, _) in NORMALISATIONS.items():
        model, notes = load_published("wrn-10-1", file_of(tmp_path), normalisation=name)
        assert values(model)[0] == pytest.approx(mean if len(mean) == 3 else mean * 3)
        assert f"as asked for ({name})" in notes[-1]
    # What the user says comes before what is known of a file's name, or of an architecture.
    model, _ = load_published("wrn-10-1", file_of(tmp_path, stem="Rice2020Overfitting"), normalisation="half")
    assert values(model)[0] == [0.5] * 3
    model, _ = load_published("dm-wrn-10-1", file_of(tmp_path, "dm-wrn-10-1", 7), normalisation="half")
    assert values(model)[0] == [0.5] * 3


def test_deepminds_networks_normalise_by_their_data(tmp_path):
    for classes in (10, 100):
        model, _ = load_published("dm-wrn-10-1", file_of(tmp_path, "dm-wrn-10-1", classes))
        assert values(model)[1] == pytest.approx(NORMALISATIONS[f"cifar{classes}"][1])
    with pytest.raises(UserError, match="does not say how its images were normalised, and DeepMind's"):
        load_published("dm-wrn-10-1", file_of(tmp_path, "dm-wrn-10-1", 7))


def test_something_before_the_network_must_be_explained(tmp_path):
    file = file_of(tmp_path, prefix="module.1.")
    with pytest.raises(
        UserError, match=r"names start with 1\., .*: give the normalisation, one of none, half"
    ):
        load_published("wrn-10-1", file)
    model, _ = load_published("wrn-10-1", file, normalisation="cifar10")
    assert values(model)[0] == pytest.approx([0.4914, 0.4822, 0.4465])
    with pytest.raises(UserError, match="before a network that normalises itself"):
        load_published("dm-wrn-10-1", file_of(tmp_path, "dm-wrn-10-1", prefix="1."))


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        load_published("wrn-10-1", file_of(tmp_path), normalisation="cifar")
    file = file_of(tmp_path, mu=torch.ones(3), sigma=torch.ones(3))
    with pytest.raises(
        UserError, match="holds its own mean and standard deviation: leave normalisation 'half'"
    ):
        load_published("wrn-10-1", file, normalisation="half")
    with pytest.raises(UserError, match="have 3 and 3 values, the images 1 channels"):
        load_published("wrn-10-1", file_of(tmp_path, channels=1), normalisation="cifar10")
