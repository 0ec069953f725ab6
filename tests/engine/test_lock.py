"""One run a folder."""

import errno
import fcntl
import os
import socket
import time

import pytest
from helpers import forked

from crbp_d2.engine.lock import FILE, FolderTaken, RunLock

HOLD = """
import sys, time
from crbp_d2.engine.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path, tmp_path_factory):
    """Another process that holds the lock of `tmp_path`."""
    folder = tmp_path_factory.mktemp("holder")
    (folder / "hold.py").write_text(HOLD)
    log = folder / "log"
    process = forked.start(folder / "hold.py", [tmp_path], log)
    while not (log.exists() and "held" in log.read_text()):
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_second_run_is_rejected_a_killed_one_taken_over(tmp_path, holder, caplog):
    with pytest.raises(FolderTaken) as raised, RunLock(str(tmp_path)):
        pass
    owner = f"process {holder.pid} on host {socket.gethostname()}"
    assert owner in str(raised.value) and "OUTPUT_DIR" in str(raised.value) and str(tmp_path) in str(raised.value)
    holder.kill()
    holder.join()
    with RunLock(str(tmp_path)) as lock:
        lock.log_notes()
        assert owner in caplog.text
        assert str(os.getpid()) in (tmp_path / FILE).read_text()


def test_a_lock_is_freed_without_a_trace(tmp_path):
    for _ in range(2):
        with RunLock(str(tmp_path / "new" / "folder")):
            pass
    with pytest.raises(RuntimeError, match="mine"), RunLock(str(tmp_path / "new" / "folder")):
        raise RuntimeError("mine")
    with RunLock(str(tmp_path / "new" / "folder")) as lock:
        assert not lock.notes


def test_a_damaged_lock_file_is_taken_over(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff{")
    with RunLock(str(tmp_path)) as lock:
        assert len(lock.notes) == 1 and str(tmp_path) in lock.notes[0]


def test_a_worker_that_outlives_its_run_does_not_keep_the_lock(tmp_path):
    read, write = os.pipe()
    run = os.fork()
    if not run:
        lock = RunLock(str(tmp_path))
        lock.__enter__()
        worker = os.fork()
        if worker:
            os.write(write, f"{worker}\n".encode())
            os._exit(0)
        time.sleep(600)
        os._exit(0)
    worker = int(os.read(read, 100))
    os.waitpid(run, 0)
    try:
        with RunLock(str(tmp_path)) as lock:
            assert len(lock.notes) == 1 and str(run) in lock.notes[0]
    finally:
        os.kill(worker, 9)
        os.close(read)
        os.close(write)


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def unsupported(*args, **kwargs):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RunLock(str(tmp_path)) as lock:
        assert str(tmp_path) in lock.notes[0]
