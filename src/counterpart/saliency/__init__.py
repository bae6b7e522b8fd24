"""Saliency maps: which pixels a network's answer rests on. Knows no budget."""

from .cam import grad_cam as grad_cam
from .cam import probe_map as probe_map
from .closed_form import grad_cam_closed_form as grad_cam_closed_form
