"""Work shared out to several seats: results in order, errors at their turn, nothing drawn far ahead."""

import threading

import pytest

from camcli.base.errors import RequestError
from camcli.runs.worker.threads import map_over


def test_results_come_in_order_and_a_seat_does_one_thing_at_a_time() -> None:
    busy = {"a": threading.Lock(), "b": threading.Lock()}
    done: dict[str, list[int]] = {"a": [], "b": []}
    slow = threading.Event()

    def work(seat: str, item: int) -> int:
        assert busy[seat].acquire(blocking=False)
        if item == 0:
            assert slow.wait(5)  # until the other has done several
        done[seat].append(item)
        if item == 2:
            slow.set()
        busy[seat].release()
        return item * item

    assert list(map_over(work, range(12), ["a", "b"])) == [n * n for n in range(12)]
    assert sorted(done["a"] + done["b"]) == list(range(12))
    assert min(map(len, done.values())) >= 1


def test_all_seats_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=5)
    assert list(map_over(lambda seat, item: together.wait() >= 0, range(6), "abc")) == [True] * 6


def test_no_more_than_two_items_a_seat_are_held() -> None:
    drawn: list[int] = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    for seats in (2, 3):
        drawn.clear()
        results = map_over(lambda seat, item: item, items(), range(seats))
        assert [next(results), next(results)] == [0, 1]
        assert len(drawn) == 2 * seats + 1  # one was taken
        results.close()


def test_one_seat_works_in_the_callers_thread_and_draws_nothing_ahead() -> None:
    drawn: list[int] = []

    def items():
        for number in range(9):
            drawn.append(number)
            yield number

    results = map_over(lambda seat, item: (seat, item, threading.current_thread()), items(), ["a"])
    assert next(results) == ("a", 0, threading.current_thread())
    assert drawn == [0]


@pytest.mark.parametrize("seats", [1, 2])
@pytest.mark.parametrize("trouble", [RequestError("it cannot be"), KeyboardInterrupt()])
def test_an_error_comes_at_its_turn_and_no_thread_is_left(trouble: BaseException, seats: int) -> None:
    def work(seat: int, item: int) -> int:
        if item == 3:
            raise trouble
        return item

    results = map_over(work, range(50), range(seats))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(trouble)):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]
