"""Saliency maps: which pixels a network's answer rests on. Knows no budget."""

from .attention import ATTENTION_MAPS as ATTENTION_MAPS
from .cam import MAPS as MAPS
from .cam import layer_map as layer_map
from .cam import probe_map as probe_map
from .closed_form import closed_form as closed_form
from .closed_form import score_weights as score_weights
