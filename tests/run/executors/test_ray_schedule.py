"""What follows from deaths: the schedule, the ledger and the marks, with no process and no Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.errors import RunError, StoreError
from dyntok.records import PlanEntry, SourceRef, VideoRow
from dyntok.run.executors.deaths.ledger import ATTEMPT_FOLDER, Ledger
from dyntok.run.executors.deaths.marks import Marks, Place, Traces, is_abandoned, read_marks, traces
from dyntok.run.executors.deaths.schedule import DEATHS_PER_ATTEMPT, Probe, Schedule
from dyntok.run.shard.messages import ShardWork
from dyntok.store import StoreRoot
from tests.support.runs import environment


def entry(shard: int, position: int) -> PlanEntry:
    name = f"{shard}-{position}.mp4"
    return PlanEntry(shard, position, name, name, SourceRef(name), 1, "f")


def load(shard: int) -> ShardWork:
    """Every shard has six videos."""
    return ShardWork(shard, tuple(entry(shard, position) for position in range(6)))


@pytest.fixture
def root(tmp_path: Path) -> StoreRoot:
    return StoreRoot.open(tmp_path)


@pytest.fixture
def make(root: StoreRoot) -> Callable[..., Schedule]:
    def schedule(pending: range, attempts: int = 3, suspects: tuple[Place, ...] = ()) -> Schedule:
        return Schedule(pending, load, Ledger(root, attempts), attempts, suspects)

    return schedule


def take(schedule: Schedule) -> ShardWork:
    work = schedule.take_shard()
    assert work is not None
    return work


def take_probe(schedule: Schedule) -> Probe:
    probe = schedule.take_probe()
    assert probe is not None
    return probe


def test_a_death_puts_its_suspects_on_trial_before_its_shards_go_out_again(
    make: Callable[..., Schedule],
) -> None:
    schedule = make(range(3))
    assert [take(schedule).shard, take(schedule).shard] == [0, 1]
    schedule.died([0, 1], begun=[0], suspects=[(0, 3), (0, 4)])
    assert [take(schedule).shard, take(schedule).shard] == [1, 2]
    assert schedule.take_shard() is None
    assert schedule.wants_probe
    probe = take_probe(schedule)
    assert probe.entry == entry(0, 3)
    assert schedule.take_probe() is None
    schedule.probed(probe, died=False)
    probe = take_probe(schedule)
    assert probe.entry == entry(0, 4)
    schedule.probed(probe, died=False)
    assert take(schedule) == load(0)
    for shard in range(3):
        schedule.done(shard)
    assert schedule.finished
    assert not schedule.failures


def test_a_video_is_quarantined_after_its_attempts_alone_and_no_sooner(make: Callable[..., Schedule]) -> None:
    schedule = make(range(1), attempts=3)
    take(schedule)
    schedule.died([0], [0], [(0, 1), (0, 2), (0, 5)])
    schedule.probed(take_probe(schedule), died=False)
    verdicts = [schedule.probed(take_probe(schedule), died=True) for _ in range(3)]
    assert verdicts == [False, False, True]
    assert schedule.take_probe() is None
    assert take(schedule).quarantined == {2}


def test_surviving_once_clears_a_video(make: Callable[..., Schedule]) -> None:
    schedule = make(range(1), attempts=2)
    for _ in range(3):
        take(schedule)
        schedule.died([0], [0], [(0, 2)])
        assert not schedule.probed(take_probe(schedule), died=True)
        assert not schedule.probed(take_probe(schedule), died=False)
    assert take(schedule).quarantined == frozenset()


def test_a_lost_node_blames_nobody(make: Callable[..., Schedule], root: StoreRoot) -> None:
    schedule = make(range(2), attempts=1)
    for _ in range(50):
        shards = [take(schedule).shard, take(schedule).shard]
        assert shards == [0, 1]
        schedule.died(shards, (), ())
    assert not schedule.wants_probe
    assert not root.exists(ATTEMPT_FOLDER)
    take(schedule)
    schedule.died([0], [0], [(0, 1)])
    for _ in range(50):
        schedule.put_back(take_probe(schedule))
    schedule.probed(take_probe(schedule), died=False)
    assert take(schedule).quarantined == frozenset()


def test_deaths_without_a_culprit_come_to_an_end(make: Callable[..., Schedule]) -> None:
    schedule = make(range(2), attempts=2)
    deaths = 0
    while (work := schedule.take_shard()) is not None:
        if work.shard == 1:
            schedule.done(1)
            continue
        deaths += 1
        schedule.died([0], [0], [(0, 2)])
        if schedule.wants_probe:
            schedule.probed(take_probe(schedule), died=False)
    assert schedule.finished
    assert deaths == 2 * DEATHS_PER_ATTEMPT + 1
    assert isinstance(schedule.failures[0], RunError)
    assert schedule.failures.keys() == {0}


def test_errors_are_tried_elsewhere_and_then_kept(make: Callable[..., Schedule]) -> None:
    schedule = make(range(2), attempts=2)
    error = StoreError("cannot write there")
    take(schedule)
    schedule.failed([0], error)
    assert not schedule.failures
    assert take(schedule).shard == 0
    schedule.failed([0], error)
    assert schedule.failures == {0: error}
    assert take(schedule).shard == 1
    schedule.died([1], [1], [(1, 0)])
    schedule.probe_failed(take_probe(schedule), error)
    assert take(schedule).shard == 1
    schedule.done(1)
    assert schedule.finished


def test_the_ledger_outlives_its_run(make: Callable[..., Schedule], root: StoreRoot) -> None:
    first = make(range(2), attempts=3)
    take(first)
    first.died([0], [0], [(0, 2), (0, 4)])
    first.probed(take_probe(first), died=True)
    # The driver is killed here, amid the probes.
    second = make(range(2), attempts=3)
    assert take(second).shard == 1
    assert take_probe(second).place == (0, 2)
    third = make(range(2), attempts=3)
    assert not third.probed(take_probe(third), died=True)
    assert third.probed(take_probe(third), died=True)
    assert take(make(range(2))).quarantined == {2}
    # Another plan knows nothing of it, and neither does what is torn.
    ledger = Ledger(root, 3)
    other = replace(load(0), entries=load(0).entries[:5])
    assert ledger.applied(other).quarantined == frozenset()
    (Path(root.url) / ATTEMPT_FOLDER / "shard-000000.json").write_text('{"alone": ')
    assert Ledger(root, 3).applied(load(0)) == load(0)


def test_suspects_of_an_earlier_run_come_first(make: Callable[..., Schedule]) -> None:
    schedule = make(range(3), suspects=((1, 5), (1, 0)))
    assert [take(schedule).shard, take(schedule).shard] == [0, 2]
    probe = take_probe(schedule)
    assert probe.place == (1, 5)
    schedule.probed(probe, died=False)
    probe = take_probe(schedule)
    assert probe.place == (1, 0)
    schedule.probed(probe, died=False)
    assert take(schedule) == load(1)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_dies_every_shard_is_done_and_only_poison_is_quarantined(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    places = [(shard, position) for shard in range(4) for position in range(6)]
    poison = data.draw(st.sets(st.sampled_from(places), max_size=5), "poison")
    attempts = data.draw(st.integers(1, 3), "attempts")
    root = StoreRoot.open(tmp_path_factory.mktemp("schedule"))
    schedule = Schedule(range(4), load, Ledger(root, attempts), attempts)
    # Kills from outside: fewer than a shard may have, and than kill any one video alone every time.
    kills = data.draw(st.integers(0, min(4, DEATHS_PER_ATTEMPT * attempts - 1)), "kills")
    probe_kills = attempts - 1
    result: dict[int, frozenset[int]] = {}
    for _ in range(2000):
        if schedule.finished:
            break
        if (probe := schedule.take_probe()) is not None:
            killed = probe_kills > 0 and data.draw(st.booleans(), "probe killed")
            probe_kills -= killed
            schedule.probed(probe, died=killed or probe.place in poison)
            continue
        works = [work for _ in range(2) if (work := schedule.take_shard()) is not None]
        fatal = [
            (work.shard, position)
            for work in works
            for position in range(6)
            if (work.shard, position) in poison and position not in work.quarantined
        ]
        killed = kills > 0 and data.draw(st.booleans(), "killed")
        kills -= killed
        if fatal or killed:
            begun = [work.shard for work in works]
            near = [place for place in places if place[0] in begun]
            suspects = data.draw(st.lists(st.sampled_from(near), max_size=4, unique=True), "suspects")
            schedule.died(begun, begun, dict.fromkeys([*suspects, *fatal[:1]]))
        else:
            for work in works:
                result[work.shard] = work.quarantined
                schedule.done(work.shard)
    assert schedule.finished
    assert not schedule.failures
    assert {(shard, position) for shard, given_up in result.items() for position in given_up} == poison
    assert result.keys() == set(range(4))


# marks ----------------------------------------------------------------------------------------------------------


def row(shard: int, position: int) -> VideoRow:
    one = entry(shard, position)
    return VideoRow(one.id, "key", one.source, position, "done")


def test_marks_tell_what_was_in_work(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    for position in range(4):
        marks.begun(entry(7, position))
    assert read_marks(tmp_path / "marks").suspects == ((7, 0), (7, 1), (7, 2), (7, 3))
    for position in (0, 1, 3):
        marks.encoded(entry(7, position))
    marks.video(row(7, 0))
    marks.encoded(entry(8, 0))  # given up before it was begun, so it cannot have done it
    assert read_marks(tmp_path / "marks") == Traces(frozenset({7}), ((7, 2),))
    marks.encoded(entry(7, 2))
    assert read_marks(tmp_path / "marks").suspects == ((7, 1), (7, 2), (7, 3))
    for position in (1, 2, 3):
        marks.video(row(7, position))
    assert read_marks(tmp_path / "marks") == Traces(frozenset({7}), ())
    marks.shard(7, 100)
    assert read_marks(tmp_path / "marks") == Traces()
    marks.close()
    assert not (tmp_path / "marks").exists()
    assert read_marks(tmp_path / "marks") == Traces()


@pytest.mark.parametrize("torn", ["begun 7", "begun seven 1", "beg", "begun 7 1 2 3 x", "\0\0"])
def test_torn_marks_are_read_as_far_as_they_go(tmp_path: Path, torn: str) -> None:
    assert traces(["begun 3 1", torn, "begun 4 1"]) == Traces(frozenset({3}), ((3, 1),))
    (tmp_path / "marks").write_text(f"begun 3 1\n{torn}")
    assert read_marks(tmp_path / "marks") == Traces(frozenset({3}), ((3, 1),))


def test_marks_are_abandoned_when_their_process_is_gone_however_it_went(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dyntok.run.executors.deaths.marks import Marks; "
        "marks = Marks(Path(sys.argv[1])); "
        "print('there', flush=True); time.sleep(60)"
    )
    path = tmp_path / "marks"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline()
    assert not is_abandoned(path)
    process.kill()
    process.communicate()
    assert is_abandoned(path)
    assert not is_abandoned(tmp_path / "none")
    assert list(tmp_path.iterdir()) == [path]
