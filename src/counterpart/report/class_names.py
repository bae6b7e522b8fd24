"""Names of classes as people call them: ImageNet's are WordNet ids, and timm has a description of each."""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timm.data import ImageNetInfo


def called(name: str) -> str:
    """A class as a reader knows it, such as "golden retriever (n02099601)"; a name that is no WordNet id stays."""
    if not re.fullmatch(r"n\d{8}", name):
        return name
    try:
        description = _imagenet().label_name_to_description(name)
    except KeyError:  # an id that WordNet does not have
        return name
    return f"{description.partition(',')[0]} ({name})"


@cache
def _imagenet() -> "ImageNetInfo":
    from timm.data import ImageNetInfo  # it brings torch, which a page of other classes does not need

    return ImageNetInfo("imagenet-22k")
