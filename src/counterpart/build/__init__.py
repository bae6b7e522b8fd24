"""The builders that make live objects from a configuration."""

from .attacks import build_attacks as build_attacks
from .benchmark import protocol_of as protocol_of
from .data_and_model import build_model as build_model
from .data_and_model import describe_model as describe_model
from .data_and_model import list_part_classes as list_part_classes
from .data_and_model import load_named as load_named
from .data_and_model import load_splits as load_splits
from .names import hash_config as hash_config
from .names import name_method as name_method
from .phases import build_budget as build_budget
from .phases import build_loop_options as build_loop_options
from .phases import build_mask as build_mask
from .phases import build_mask_rule as build_mask_rule
from .phases import build_optimizer as build_optimizer
from .phases import build_phases as build_phases
from .phases import build_rule as build_rule
from .phases import build_schedule as build_schedule
from .phases import build_training_budget as build_training_budget
from .phases import choose_view_options as choose_view_options
from .phases import mask_needs_map as mask_needs_map
from .users_code import hash_users_code as hash_users_code
from .users_code import name_users_code as name_users_code
