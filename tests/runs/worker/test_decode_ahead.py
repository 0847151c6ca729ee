"""Items are read ahead in order, within bounds of number, room and time, and nothing waits for ever."""

import threading
import time

import pytest

from camcli.runs.worker.decode_ahead import Prefetcher, Reservation
from camcli.runs.worker.threads import batched, map_ahead


class Result:
    """What a test's work gives: which item, and the room it has."""

    def __init__(self, item, hold=None, word=""):
        self.item, self.hold, self.word = item, hold, word


def reading(work, **more):
    options = {
        "workers": 3,
        "depth": 6,
        "max_pixels": 100,
        "on_timeout": lambda item: Result(item, word="late"),
        **more,
    }
    return Prefetcher(work, **options)


def sized(item, admit):
    """An item is how many pixels it has."""
    return Result(item, admit(item))


def threads():
    return [one for one in threading.enumerate() if one.name == "camcli reading"]


def test_results_come_in_order_and_the_threads_end():
    def work(item, admit):
        time.sleep(0.002 * (item % 3))
        return Result(item, admit(1))

    assert [one.item for one in reading(work)(range(50))] == list(range(50))
    assert not threads()


def test_no_more_is_under_way_than_there_is_room_for():
    held, most, lock = 0, 0, threading.Lock()

    def work(item, admit):
        nonlocal held, most
        hold = admit(item)
        with lock:
            held += item
            most = max(most, held)
        return Result(item, hold)

    sizes = [30, 60, 10, 90, 100, 5, 5, 5, 80, 20, 99, 1] * 3
    done = []
    for one in reading(work)(sizes):
        time.sleep(0.001)
        done.append(one.item)
        with lock:
            held -= one.item
        one.hold.release()
    assert done == sizes
    assert most <= 100


def test_what_needs_more_than_all_the_room_goes_alone():
    beside = []

    def work(item, admit):
        hold = admit(item)
        beside.append(item)
        if item == 500:
            time.sleep(0.05)
            assert beside[-1] == 500
        return Result(item, hold)

    for one in reading(work)([10, 500, 20, 30]):
        one.hold.release()
    assert beside == [10, 500, 20, 30] or beside == [10, 500, 30, 20]


def test_room_is_free_again_when_nobody_has_the_result_any_more():
    # Nothing is released by hand.
    results, count = reading(sized, stall_seconds=600.0, patience=600.0)([60] * 20), 0
    while next(results, "end") != "end":
        count += 1
    assert count == 20


def test_whoever_keeps_all_results_does_not_wait_for_ever():
    began = time.monotonic()
    kept = [one for one in reading(sized, stall_seconds=0.05, patience=0.01)([60] * 5) if one]
    assert [one.item for one in kept] == [60] * 5
    assert time.monotonic() - began < 5


def test_who_can_give_nothing_back_before_it_has_all_is_not_made_to_wait():
    began = time.monotonic()
    kept = list(reading(sized, stall_seconds=0.0)([60] * 20 + [1000] * 3))
    assert [one.item for one in kept] == [60] * 20 + [1000] * 3
    assert time.monotonic() - began < 5


def test_a_hold_is_given_back_once():
    given = []
    hold = Reservation(7, given.append)
    hold.release()
    hold.release()
    del hold
    assert given == [7]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_item_that_takes_too_long_is_left_to_its_thread_and_the_others_go_on(workers):
    go_on = threading.Event()

    def work(item, admit):
        if item % 4 == 1:
            go_on.wait(30)
        return Result(item, admit(1))

    began = time.monotonic()
    results = [(one.item, one.word) for one in reading(work, workers=workers, timeout=0.1, patience=60.0)(range(16))]
    assert results == [(n, "late" if n % 4 == 1 else "") for n in range(16)]
    assert time.monotonic() - began < 10
    go_on.set()
    for thread in threads():
        thread.join(5)
    assert not threads()


def test_waiting_for_room_is_no_time_of_ones_own():
    results = []
    for one in reading(sized, timeout=0.1, patience=60.0)([90, 90, 90]):
        time.sleep(0.3)
        results.append(one.word)
        one.hold.release()
    assert results == ["", "", ""]


def test_where_memory_was_short_an_item_is_done_again_with_nothing_beside_it():
    """A machine whose memory holds 100, where two of 60 do not fit and one of 120 never does."""
    used, lock, tries = 0, threading.Lock(), []

    class Memory(Result):
        def __del__(self):
            nonlocal used
            with lock:
                used -= self.item if self.word == "" else 0

    def work(item, admit):
        nonlocal used
        hold = admit(1)  # its size is not what its header says
        with lock:
            tries.append(item)
            fits = used + item <= 100
            used += item if fits else 0
        time.sleep(0.02)
        return Memory(item, hold if fits else None, "" if fits else "short")

    found = []
    for one in reading(work, should_retry=lambda result: result.word == "short")([60, 61, 120, 62, 63, 64]):
        if one:
            found.append((one.item, one.word))
        one = None
    assert found == [(60, ""), (61, ""), (120, "short"), (62, ""), (63, ""), (64, "")]
    assert tries.count(120) >= 2


def test_a_pause_gives_all_that_is_under_way_and_says_so():
    def items():
        yield from (1, 2, 3, "pause")
        yield "pause"
        yield 4

    found = list(reading(sized, depth=50, stall_seconds=1.0, is_pause=lambda item: item == "pause")(items()))
    assert [one and one.item for one in found] == [1, 2, 3, None, None, 4]


def test_slow_work_is_said_so_that_who_collects_can_go_on():
    def work(item, admit):
        time.sleep(0.3 if item == 3 else 0)
        return Result(item, admit(1))

    found = reading(work, patience=0.1)([1, 2, 3, 4])
    assert [[one.item for one in batch] for batch in batched(found, 10) if batch] == [[1, 2], [3, 4]]


def test_an_error_comes_at_its_turn_and_what_was_under_way_before():
    def work(item, admit):
        if item == 3:
            raise KeyError(item)
        return Result(item, admit(1))

    results = reading(work)(range(10))
    assert [next(results).item for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert not threads()


def test_when_the_items_are_interrupted_what_was_under_way_is_handed_over():
    def items():
        yield from (1, 2)
        raise KeyboardInterrupt

    results = reading(sized, depth=10)(items())
    assert [next(results).item, next(results).item] == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_closing_early_ends_the_threads_also_those_that_wait_for_room():
    results = reading(sized, depth=10, stall_seconds=600.0)([60] * 10)
    first = next(results)
    results.close()
    assert first.item == 60
    assert not threads()


# ---- batches


def test_a_batch_weighs_no_more_than_it_may_and_a_heavy_item_is_alone():
    weighed = [
        list(batch) for batch in batched([3, 3, 3, 20, 1, 9, 4, 4, 4], 10, weight=lambda item: item, max_weight=10)
    ]
    assert weighed == [[3, 3, 3], [20], [1, 9], [4, 4], [4]]
    # A full one does not wait for what comes behind it.
    ahead = iter([10])
    assert next(batched(ahead, 10, weight=lambda item: item, max_weight=10)) == [10]


def test_none_ends_a_batch_and_is_in_none():
    assert list(batched([None, 1, 2, None, None, 3], 10)) == [[], [1, 2], [], [], [3]]


def test_what_is_written_behind_is_handed_over_at_a_pause():
    drawn = []

    def items():
        for item in ("a", "b", None, "c"):
            drawn.append(item)
            yield item

    results = map_ahead(str.upper, items(), workers=2, depth=50)
    assert [next(results), next(results), drawn] == ["A", "B", ["a", "b", None]]
    assert list(results) == ["C"]
