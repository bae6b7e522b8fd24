"""The images of a benchmark's protocol, where a configuration follows one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..catalogue import PROTOCOLS, Entry, ProtocolFacts
from ..config import Config
from ..data.image_sets import Splits
from ..data.resizing import prepared_as
from ..errors import UserError


def protocol_of(config: Config) -> Entry[ProtocolFacts] | None:
    """The protocol that a configuration follows; None where it follows none."""
    return None if config.evaluate.protocol is None else PROTOCOLS[config.evaluate.protocol]


def prepare_for_benchmark(protocol: Entry[ProtocolFacts], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a data set's reader, with the benchmark's preparation of files where they name no other."""
    if not protocol.facts.preparation or "prepare" in options:
        return dict(options)
    side, prepare = prepared_as(protocol.facts.preparation)
    return {**options, "size": side, "prepare": prepare}


def keep_to_benchmark(protocol: Entry[ProtocolFacts], splits: Splits, config: Config) -> Splits:
    """The splits, with the images of the benchmark as those to be judged.

    Raises:
        UserError: the data that were read are not the benchmark's.
    """
    facts = protocol.facts
    images = protocol.load()(splits.test, config.data.root)
    if len(images) != facts.n:
        raise UserError(
            f"protocol {protocol.key} has {facts.n:,} images, and {facts.data} has {len(images):,} here."
        )
    return replace(splits, test=images)
