"""What the commands do with run folders and models."""

from .auditing import audit_named as audit_named
from .corruptions import evaluate_corruptions as evaluate_corruptions
from .judging import Judged as Judged
from .judging import evaluate as evaluate
from .prediction import Prediction as Prediction
from .prediction import predict as predict
from .pseudo_labels import PseudoLabelled as PseudoLabelled
from .pseudo_labels import pseudo_label as pseudo_label
from .targets import open_targets as open_targets
from .training import Trained as Trained
from .training import train as train
from .training import train_seeds as train_seeds
from .verification import verify_run as verify_run
