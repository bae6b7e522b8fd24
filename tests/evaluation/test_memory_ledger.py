"""A ledger in memory answers as the one on the disk, holds no more images than it may, and can be written there."""

import torch

from counterpart.evaluation.ledger import CLEAN, Ledger, Unit
from counterpart.evaluation.memory_ledger import MemoryLedger


def fill(ledger):
    ledger.open({})
    ledger.commit(CLEAN, 0, Unit([0, 1, 2], [0, 1, 0], [False, False, True], [1] * 3, [0] * 3, 0.5), None)
    ledger.commit("PGD", 0, Unit([0, 1], [0, 2], [False, True], [5, 5], [4, 4], 1.5), torch.ones(1, 1, 2, 2))


def test_it_answers_as_the_one_on_the_disk(tmp_path):
    memory, disk = MemoryLedger(chunks=1), Ledger(tmp_path / "disk", 1)
    for ledger in (memory, disk):
        fill(ledger)
    rows = memory.rows([0, 1, 1], [7, 8, 9], ["PGD"])
    assert rows == disk.rows([0, 1, 1], [7, 8, 9], ["PGD"])
    assert [row.fooled_by for row in rows] == ["", "PGD", "clean"]
    assert memory.seconds() == disk.seconds() == 2
    assert memory.read("FGSM", 0) is None
    assert memory.images("PGD", 0)[1] == disk.images("PGD", 0)[1] == [1]
    written = Ledger(tmp_path / "written", 1)
    written.open({})
    memory.write_to(written)
    assert written.rows([0, 1, 1], [7, 8, 9], ["PGD"]) == rows
    assert torch.equal(written.images("PGD", 0)[0], torch.ones(1, 1, 2, 2))


def test_images_that_find_no_room_are_not_kept_and_not_made_again():
    ledger = MemoryLedger(chunks=1, most_bytes=15)  # an image has 16
    fill(ledger)
    assert ledger.images("PGD", 0) is None
    assert ledger.keeps("PGD", 0, ledger.read("PGD", 0))
    roomy = MemoryLedger(chunks=1, most_bytes=16)
    fill(roomy)
    assert roomy.images("PGD", 0) is not None
