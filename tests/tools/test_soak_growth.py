"""The soak of resident memory."""

import mmap
from types import SimpleNamespace

import pytest

from tools.soak import growth
from tools.soak.record import Record


def test_memory_is_read_after_the_start_and_at_the_end(tmp_path, monkeypatch):
    hook = growth.ResidentMemory(tmp_path / "memory.txt", settled=2)
    hook.trainer = SimpleNamespace(iter=0, max_iter=5)
    sizes = iter((100, 103))
    monkeypatch.setattr(growth, "resident", lambda: next(sizes))
    for hook.trainer.iter in range(5):
        hook.after_step()
    assert (tmp_path / "memory.txt").read_text().split() == ["2", "100", "5", "103"]


def test_resident_memory_follows_an_allocation():
    before = growth.resident()
    # Pages that nothing else of the process has used.
    with mmap.mmap(-1, 2**26) as block:
        block.write(b"x" * 2**26)
        assert growth.resident() - before > 2**25


@pytest.mark.parametrize("end, growing", [(1.02, 0), (1.05, 4)])
def test_growing_trainings_are_counted_and_known_ones_kept(end, growing, tmp_path, monkeypatch):
    measured = []

    def measure(name, folder, length, settled):
        measured.append((name, length, settled))
        return {"run": name, "growth": end - 1}

    monkeypatch.setattr(growth, "measure", measure)
    monkeypatch.setattr(growth, "register_small_sets", lambda folder: None)
    for _ in range(2):
        found = growth.soak(300, 0, tmp_path, Record(tmp_path / "rows.jsonl"))
        assert found["growing"] == growing and len(found["runs"]) == 4
    assert measured == [(name, 300, 50) for name in growth.RUNS]
