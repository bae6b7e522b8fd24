"""Tables and figures of the papers as named experiments, published numbers beside measured ones."""

from ..errors import UserError, nearest
from ..renamed_settings import current_experiment_name
from .comparing import JudgedDifference as JudgedDifference
from .comparing import best_rows as best_rows
from .comparing import differences as differences
from .comparing import judge as judge
from .comparing import seed_differences as seed_differences
from .cost import overheads as overheads
from .experiments import SCALES as SCALES
from .experiments import Experiment as Experiment
from .experiments import PaperRow as PaperRow
from .experiments import PrimaryContrast as PrimaryContrast
from .experiments import absent as absent
from .experiments import columns as columns
from .experiments import differs as differs
from .experiments import figure as figure
from .experiments import measured as measured
from .experiments import shown_name as shown_name
from .experiments import stated_on as stated_on
from .parts_comparison import EXPERIMENTS as _COMPARISON
from .parts_figures import EXPERIMENTS as _FIGURES
from .parts_generalised import EXPERIMENTS as _GENERALISED
from .parts_pretrained import EXPERIMENTS as _PRETRAINED
from .parts_tables import EXPERIMENTS as _PART
from .pixel_dose import EXPERIMENTS as _DOSE
from .pixel_single_step import EXPERIMENTS as _SINGLE_STEP
from .pixel_tables import EXPERIMENTS as _PIXEL
from .running import run as run
from .weights import WEIGHTS as WEIGHTS
from .weights import plain as plain

_ALL = (*_PIXEL, *_DOSE, *_SINGLE_STEP, *_PART, *_GENERALISED, *_FIGURES, *_COMPARISON, *_PRETRAINED)


def _by_number(experiment: Experiment) -> tuple[str, int]:
    """The order of a list: by name, and tables by number, so that table 10 comes after table 9."""
    name, _, number = experiment.name.rpartition("-")
    return (name, int(number)) if number.isdigit() else (experiment.name, 0)


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in sorted(_ALL, key=_by_number)
}


def find(name: str) -> Experiment:
    """The experiment of a name such as "pixel/table-1"."""
    if (renamed := current_experiment_name(name)) in EXPERIMENTS and name not in EXPERIMENTS:
        raise UserError(f"experiment {name!r} is called {renamed!r} now.")
    if name not in EXPERIMENTS:
        raise UserError(f"no experiment is called {name!r}. {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]
