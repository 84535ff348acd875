"""Nodes of one run meet at node 0's announcement, which must be alive."""

import json
import threading

import pytest

from vlm_r1 import nodes
from vlm_r1.errors import ConfigError
from vlm_r1.nodes import Meeting, meet


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(nodes, "BEAT_S", 0.02)


def meeting(tmp_path, node_rank: int, timeout_s: float = 60) -> Meeting:
    return Meeting(tmp_path / "cache/run.json", node_rank, timeout_s)


def test_another_node_gets_the_id_of_the_start_that_it_joins(tmp_path):
    ids = []

    def join() -> None:
        with meet(meeting(tmp_path, 1)) as run:
            ids.append(run)

    for _ in range(2):
        other = threading.Thread(target=join)
        other.start()  # before node 0
        with meet(meeting(tmp_path, 0)) as run:
            other.join()
            assert ids.pop() == run
    assert run not in ids


def test_two_starts_have_different_ids_and_leave_nothing(tmp_path):
    runs = set()
    for _ in range(2):
        with meet(meeting(tmp_path, 0)) as run:
            runs.add(run)
    assert len(runs) == 2
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_node_0_left_is_not_taken_for_a_start(tmp_path):
    stale = meeting(tmp_path, 1, timeout_s=0.2)
    stale.file.parent.mkdir()
    stale.file.write_text(json.dumps({"run": "old", "beat": 7}))
    with (
        pytest.raises(ConfigError, match=r"no sign of node 0(.|\n)*launch\.start_timeout_s"),
        meet(stale),
    ):
        pass


def test_a_half_written_announcement_is_looked_at_again(tmp_path):
    late = meeting(tmp_path, 1)
    late.file.parent.mkdir()
    late.file.write_text('{"run": "o')
    with meet(meeting(tmp_path, 0)) as run, meet(late) as joined:
        assert joined == run
