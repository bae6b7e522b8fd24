"""A command that is stopped keeps its locks and goes on; one of two processes dies, and the command goes on."""

import random
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux", reason="reads the clocks of other processes as Linux numbers them"
    ),
]


@pytest.mark.parametrize("name", ["train", "evaluate", "data prepare", "papers run"])
def test_a_stopped_command_lets_nobody_in_and_goes_on(benchmark_module, name, tmp_path):
    command = benchmark_module("fault_kills").COMMANDS[name]
    stops = benchmark_module("fault_stops").stop_again_and_again(command, tmp_path, random.Random(1), count=2)
    assert stops.faults == []
    assert stops.refused + stops.nothing_to_do == len(stops.moments) == 2
    assert stops.refused > 0


def test_an_evaluation_whose_second_process_is_killed_goes_on(benchmark_module, tmp_path):
    campaign = benchmark_module("fault_ranks")
    deaths = campaign.kill_ranks(campaign.COMMANDS["evaluate"], tmp_path, random.Random(1), count=1)
    assert deaths.faults == []
    [seconds] = deaths.seconds
    assert seconds < campaign.SOON
