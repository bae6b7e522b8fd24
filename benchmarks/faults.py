"""Campaigns of faults: how many were tried, how many were noticed, how many went through in silence.

    python benchmarks/faults.py --part bits              (a quarter of an hour)
    python benchmarks/faults.py --part kills             (five minutes; on Linux)
    python benchmarks/faults.py --part disk              (ten minutes; on Linux, with a C compiler)
    python benchmarks/faults.py --part power             (five minutes; likewise)
    python benchmarks/faults.py --part stops             (three minutes; on Linux)
    python benchmarks/faults.py --part ranks             (five minutes; on Linux)

Each part is a module of its own, ``fault_NAME.py``, whose ``measure`` takes the command line and returns records. Short
forms are in ``tests/faults``: some bits are flipped in the default tests, all else is tried in the slow ones.
"""

import argparse
from collections.abc import Callable, Mapping

import fault_bits
import fault_disk
import fault_kills
import fault_power
import fault_ranks
import fault_stops
from timing import keep

from counterpart.records import Record

PARTS: Mapping[str, Callable[[argparse.Namespace], list[Record]]] = {
    "bits": fault_bits.measure,
    "kills": fault_kills.measure,
    "disk": fault_disk.measure,
    "power": fault_power.measure,
    "stops": fault_stops.measure,
    "ranks": fault_ranks.measure,
}


def main() -> None:
    """Run the campaigns that are asked for, and keep their counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="by default all of them")
    parser.add_argument("--bits", type=int, default=10_000, help="flips in the data of each binary file")
    parser.add_argument(
        "--writes", type=int, default=50, help="the most writes at which a disk is full, of each command"
    )
    parser.add_argument("--cuts", type=int, default=20, help="how often the power is cut, of each command")
    parser.add_argument(
        "--command",
        choices=fault_kills.COMMANDS,
        action="append",
        help="by default every command that a part has",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.part or PARTS:
        keep("faults.jsonl", PARTS[name](given))


if __name__ == "__main__":
    main()
