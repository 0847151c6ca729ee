"""Work in threads: results in order, few items drawn ahead, errors at their turn; batches."""

import itertools
import threading
import time

import pytest

from camcli.runs.worker.threads import batched, map_ahead


def test_results_keep_their_order_although_early_ones_take_longer() -> None:
    def work(number: int) -> int:
        time.sleep(0.03 if number % 4 == 0 else 0)
        return number * number

    assert list(map_ahead(work, range(20), workers=4, depth=6)) == [n * n for n in range(20)]


def test_no_more_than_depth_items_are_drawn_before_the_first_result_is_taken() -> None:
    drawn = []

    def items():
        for number in itertools.count():
            drawn.append(number)
            yield number

    results = map_ahead(lambda item: item, items(), workers=2, depth=5)
    assert next(results) == 0
    assert drawn == [0, 1, 2, 3, 4]  # one handed over, four under way
    assert next(results) == 1
    assert drawn == [0, 1, 2, 3, 4, 5]
    results.close()


def test_an_eager_one_yields_what_is_there_when_the_next_item_comes() -> None:
    drawn, worked = [], threading.Event()

    def items():
        for number in itertools.count():
            worked.wait(5)  # an item takes long, and the work on the one before it is done meanwhile
            worked.clear()
            time.sleep(0.01)
            drawn.append(number)
            yield number

    def work(number: int) -> int:
        worked.set()
        return number

    worked.set()
    results = map_ahead(work, items(), workers=2, depth=5, eager=True)
    assert next(results) == 0
    assert len(drawn) <= 2
    results.close()


def test_the_work_of_several_threads_overlaps() -> None:
    together = threading.Barrier(3, timeout=5)
    # Each waits until three are at work: with fewer threads the barrier would break.
    assert list(map_ahead(lambda item: together.wait() >= 0, range(6), workers=3, depth=3)) == [True] * 6


def test_an_error_is_raised_at_its_items_turn_after_all_results_before_it() -> None:
    def work(number: int) -> float:
        return 6 / number

    results = map_ahead(work, [3, 2, 0, 1], workers=2, depth=4)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("trouble", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_is_under_way_is_handed_over_before_the_sources_own_error(trouble: BaseException) -> None:
    def items():
        yield from "abc"
        raise trouble

    results = map_ahead(str.upper, items(), workers=1, depth=10)
    assert [next(results), next(results), next(results)] == ["A", "B", "C"]
    with pytest.raises(type(trouble)):
        next(results)


def test_closing_drops_what_has_not_begun_and_waits_for_what_has() -> None:
    begun, ended, first = [], [], threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            first.set()
            time.sleep(0.1)
        ended.append(item)
        return item

    results = map_ahead(work, range(100), workers=1, depth=50)
    assert next(results) == 0
    assert first.wait(5)
    results.close()
    assert begun == ended  # nothing is still at work
    assert len(begun) < 50
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("work")]
    assert alive == []


def test_no_items_no_results() -> None:
    assert list(map_ahead(str, [], workers=2, depth=2)) == []


def test_batches_hold_at_most_so_many_and_keep_the_order() -> None:
    assert list(batched("abcdefg", 3)) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert list(batched("", 3)) == []


def test_riders_do_not_count_and_stay_in_their_place() -> None:
    # Lower case rides along: a batch ends with its second capital.
    assert list(batched("aAbBcCdDe", 2, str.isupper)) == [list("aAbB"), list("cCdD"), ["e"]]


def test_riders_alone_do_not_pile_up() -> None:
    # 4 * 2 riders are a batch even without one that counts; a folder of a million done images stays a stream.
    assert [len(batch) for batch in batched("a" * 20, 2, str.isupper)] == [8, 8, 4]


def test_batches_come_as_soon_as_they_are_full() -> None:
    drawn = []

    def items():
        for number in range(10):
            drawn.append(number)
            yield number

    assert next(batched(items(), 4)) == [0, 1, 2, 3]
    assert drawn == [0, 1, 2, 3]


def test_what_it_reads_is_closed_with_it_and_by_an_error() -> None:
    closed = []

    def items():
        try:
            yield from range(20)
        finally:
            closed.append(True)

    early = map_ahead(lambda one: one, items(), workers=2, depth=2)
    assert next(early) == 0
    early.close()
    assert closed == [True]
    with pytest.raises(ZeroDivisionError) as held:
        list(map_ahead(lambda one: 1 // (one - 1), items(), workers=2, depth=2))
    assert closed == [True, True], held
