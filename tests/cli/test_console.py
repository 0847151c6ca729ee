"""The console: progress, summaries and what goes to which stream."""

import io
import re
import sys
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from camcli.base.errors import RequestError
from camcli.cli import progress, streams
from camcli.cli.console import Console, print_results, print_table
from camcli.cli.streams import to_printable
from camcli.runs.record.outcome import Counts, Outcome


class Terminal(io.StringIO):
    """Looks like a terminal."""

    def isatty(self) -> bool:
        return True


Stream = Callable[[], io.StringIO]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Makes standard error a terminal; called in the test, since pytest puts its own there before."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def terminal() -> io.StringIO:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return terminal


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Makes standard error a pipe."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def piped() -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return piped


def outcome(source: str = "a.png", error: str | None = None, label: str = "tabby") -> Outcome:
    return Outcome(
        source=source, name=source, stamp="", job="j", run="r", index=3, label=label, probability=0.5, seconds=0.1,
        files={} if error else {"overlay": f"{source}.overlay.jpg"}, error=error, layer="layer4",
    )  # fmt: skip


NASTY = "a[/b].jpg [bold]\x1b[31m\n\r\u202e\x07\udcff\x9b :smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u732b \u00e9.jpg", "plain \u732b \u00e9.jpg"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202etxt", "gpj.\\u202etxt"),  # would be read from right to left
        ("\u200b\u2028\ufeff", "\\u200b\\u2028\\ufeff"),
        ("caf\udce9", "caf\\udce9"),  # a byte that is not UTF-8
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_printed_is_one_line_and_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert to_printable(text) == shown
    shown.encode("utf-8")


def test_names_are_shown_as_they_are_in_every_kind_of_message(piped: Stream) -> None:
    stream = piped()
    console, counts = Console(verbose=True), Counts()
    with console.progress(None, counts) as reporter:
        reporter.add_picture([outcome(NASTY, label=NASTY)])
        reporter.add_picture([outcome(NASTY, error=f"{NASTY} is empty")])
    console.say(NASTY)
    console.note(NASTY)
    console.error(RequestError(NASTY, NASTY))
    console.print_summary([outcome(NASTY, label=NASTY)], counts, 1.0, NASTY)
    said = stream.getvalue()
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\r" not in said
    shown = "a[/b].jpg [bold]\\x1b[31m\\n\\r\\u202e\\x07\\udcff\\x9b :smile:"
    assert said.count(shown) == 2 + 1 + 1 + 1 + 2 + 4  # the failure's reason ends with its first line
    assert f"failed: {shown}: a[/b].jpg [bold]\\x1b[31m\n" in said


def test_the_bar_takes_any_name(terminal: Stream) -> None:
    stream = terminal()
    counts = Counts()
    with Console().progress(3, counts) as reporter:
        for outcomes in ([outcome("a[/b].jpg")], [outcome("tail\\", error="[/] is damaged")], []):
            reporter.add_picture(outcomes)
            reporter.bar.refresh()  # type: ignore[attr-defined]
    said = stream.getvalue()
    assert "a[/b].jpg" in said
    assert "[/] is damaged" in said
    assert "3/3" in said
    assert "1 failed" in said
    assert (counts.done, counts.failed, counts.skipped) == (1, 1, 1)


def test_without_a_terminal_a_plain_line_every_few_seconds(piped: Stream, monkeypatch) -> None:
    stream = piped()
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Console().progress(40, Counts()) as reporter:
        for _ in range(10):
            now[0] += 1
            reporter.add_picture([outcome()])
        now[0] += 4.9
        reporter.add_picture([outcome(error="empty")])
    # After 5 and 10 s; each image took 1 s.
    assert stream.getvalue().splitlines() == [
        "5/40 images, 1.0/s, 35 s left",
        "10/40 images, 1.0/s, 30 s left",
        "failed: a.png: empty",
    ]


def test_a_rate_is_measured_from_batch_to_batch(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress.RateMeter()
    rates = []
    for began in (30.0, 40.0, 50.0):  # the first batch took 30 s, each of the others 10
        for number in range(8):
            now[0] = began + number / 100
            pace.add_picture()
            rates.append(pace.rate)
    # Nothing after the first batch; then 8 in 10 s from the first image to the last.
    assert rates == [None] * 8 + [0.8] * 16
    assert pace.estimate_seconds(16) == 20


def test_no_rate_is_told_before_it_means_something(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress.RateMeter()
    for _ in range(200):
        now[0] += 0.01
        pace.add_picture()
    assert pace.rate is None
    assert pace.estimate_seconds(10) is None
    for _ in range(200):
        now[0] += 0.01
        pace.add_picture()
    assert pace.rate == pytest.approx(100)


def test_pictures_done_before_do_not_count_as_speed(piped: Stream, monkeypatch) -> None:
    stream = piped()
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Console().progress(1000, Counts()) as reporter:
        for _ in range(900):
            reporter.add_picture([])
        for _ in range(6):
            now[0] += 1
            reporter.add_picture([outcome()])
    assert stream.getvalue().splitlines() == ["905/1000 images, 1.0/s, 95 s left"]


def bars(width: int, terminal: Stream, monkeypatch, total: int | None = 1000, failed: bool = False) -> list[str]:
    """The bar's lines on a terminal of this width, once rate and time left are known and when all is done."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    stream = terminal()
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Console().progress(total, Counts()) as reporter:
        for _ in range(30):
            now[0] += 0.5
            reporter.add_picture(
                [outcome("a-folder/with/many/pictures/of-some-length.jpg", "empty" if failed else None)]
            )
        reporter.bar.refresh()  # type: ignore[attr-defined]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if "━" in line or "/1000" in line or "/?" in line]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_nothing_in_the_bar_is_cut(width: int, terminal: Stream, monkeypatch) -> None:
    line = bars(width, terminal, monkeypatch)[-1].rstrip()
    assert cell_len(line) <= width
    words = line.split()
    assert "30/1000" in words
    assert ("2.0/s" in words) == (width >= 40)
    assert words[-2:] == ["eta", "8:05"]
    assert ("a-folder/" in line) == (width >= 80)
    assert all("…" not in word or word.endswith(".jpg") for word in words)


def test_failures_and_an_unknown_total_fit_too(terminal: Stream, monkeypatch) -> None:
    line = bars(60, terminal, monkeypatch, total=None, failed=True)[-1]
    assert "30/?" in line
    assert "30 failed" in line
    assert "eta" not in line


def test_after_the_last_picture_the_bar_says_that_it_is_finishing(terminal: Stream, monkeypatch) -> None:
    assert "finishing" in bars(60, terminal, monkeypatch, total=30)[-1]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab…ef"),
        ("abcdef", 4, "ab…f"),
        ("abcdef", 1, "…"),
        ("\u732b\u732b\u732b\u732b", 7, "\u732b\u732b…\u732b"),  # each is two cells wide
    ],
)
def test_a_long_name_loses_its_middle(text: str, width: int, shown: str) -> None:
    assert streams.elide(text, width) == shown
    assert cell_len(shown) <= width


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_summary_has_one_line_for_each_map_at_any_width(width: int, terminal: Stream, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    stream = terminal()
    names = ["photos/2024/a-long-name-of-a-picture.jpg", "b.jpg"]
    Console().print_summary([outcome(name) for name in names], Counts(2), 1.0, "maps")
    heading, first, second, *_ = re.sub(r"\x1b\[[0-9;?]*m", "", stream.getvalue()).splitlines()
    assert max(map(len, (heading, first, second))) <= width
    assert "3 tabby" in first
    assert "0.50" in first
    assert first.startswith(names[0] if width >= 70 else "photos/")
    assert second.startswith("b.jpg")
    assert ("file" in heading) == (width > 80)
    assert ("maps/photos/2024/a-long-name-of-a-picture.jpg.overlay.jpg" in first) == (width == 200)


def test_no_table_where_nothing_succeeded(piped: Stream) -> None:
    stream = piped()
    Console().print_summary([outcome(error="empty")], Counts(failed=1), 1.0, "out")
    assert stream.getvalue() == "0 done, 1 failed in 1.0 s: out\n"


def test_without_a_total_no_time_left_is_made_up(piped: Stream, monkeypatch) -> None:
    stream = piped()
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Console().progress(None, Counts()) as reporter:
        now[0] = 10.0
        reporter.add_picture([outcome(error="empty")])
    assert stream.getvalue().splitlines()[-1] == "1 images, 1 failed"


def test_quiet_says_errors_and_failures_only(piped: Stream) -> None:
    stream = piped()
    console, counts = Console(quiet=True, verbose=True), Counts()
    with console.working("loading"), console.progress(2, counts) as reporter:
        reporter.add_picture([outcome()])
        reporter.add_picture([outcome(error="empty")])
    console.say("hello")
    console.note("hello")
    console.print_summary([outcome()], counts, 1.0, "out")
    console.error(RequestError("wrong", "do\nthis"))
    assert stream.getvalue() == "failed: a.png: empty\nerror: wrong\n       do\n       this\n"


def test_a_million_failures_do_not_flood(piped: Stream) -> None:
    stream = piped()
    with Console().progress(None, Counts()) as reporter:
        for number in range(100):
            reporter.add_picture([outcome(f"{number}.png", error="empty")])
    said = stream.getvalue().splitlines()
    assert said[19] == "failed: 19.png: empty"
    assert said[20].strip() == "further failures are listed in outcomes.jsonl"
    assert len(said) == 21


def test_lines_are_not_folded_in_a_pipe(piped: Stream) -> None:
    stream = piped()
    Console().note("word " * 99 + "word")
    Console().print_summary([outcome("d/" * 100 + "a.png")], Counts(done=1), 1.0, "out")
    assert stream.getvalue().splitlines()[0] == "note: " + "word " * 99 + "word"
    assert "d/" * 100 + "a.png.overlay.jpg" in stream.getvalue()


def test_the_summary_lists_few_maps_and_only_counts_many(piped: Stream) -> None:
    stream = piped()
    few, many = [outcome(f"{number}.png") for number in range(3)], [outcome(f"{number}.png") for number in range(31)]
    Console().print_summary([*few, outcome("bad.png", error="empty")], Counts(3, 1, 2), 1.5, "out")
    said = stream.getvalue()
    assert "2.png" in said
    assert "bad.png" not in said  # it was said when it failed
    assert said.splitlines()[-1] == "3 done, 1 failed, 2 done before in 1.5 s (2.0/s): out"
    stream.truncate(stream.seek(0))
    Console().print_summary(many, Counts(31), 31.0, "out")
    assert stream.getvalue() == "31 done in 31.0 s (1.0/s): out\n"


def test_no_color_takes_the_colours_away(terminal: Stream, monkeypatch) -> None:
    stream = terminal()
    Console().error(RequestError("wrong"))
    assert "\x1b[1;31m" in stream.getvalue()
    stream.truncate(stream.seek(0))
    monkeypatch.setenv("NO_COLOR", "1")
    Console().error(RequestError("wrong"))
    assert "31m" not in stream.getvalue()
    assert "error: " in stream.getvalue()


def test_a_table_is_tab_separated_in_a_pipe_and_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), iter([("x\ty", "[bold]"), ("1\n2", "")]))
    assert capsys.readouterr().out == "x\\ty\t[bold]\n1\\n2\t\n"


def test_results_have_headings_and_aligned_cells_of_any_length_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(("rule", "found"), iter([("a\nb", "x" * 300), ("longer", "[bold]")]), wrapped=("found",))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["rule    found", "a\\nb    " + "x" * 300, "longer  [bold]"]


def test_a_table_is_drawn_on_a_terminal(monkeypatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(("name", "what"), [("[/b]", "\x1b[31mred")])
    assert "name" in stream.getvalue()
    assert "[/b]" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


def strip_styles(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


def test_lines_are_wrapped_at_words_on_a_terminal_and_a_long_path_stays_whole(terminal: Stream, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream, path = terminal(), "folder/" * 9
    Console().error(RequestError("there is nothing that has this name here", f"give one of those\nthat are in {path}"))
    assert strip_styles(stream).splitlines() == [
        "error: there is nothing that has this",
        "       name here",
        "       give one of those",
        "       that are in",
        f"       {path}",
    ]


@pytest.mark.parametrize("width", [44, 60])
def test_a_wide_table_keeps_its_first_column_and_cuts_no_word_of_a_sentence(width: int, monkeypatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    row = ("blocks.0.conv_dw", "DepthwiseSeparableConvolution", "no, since it does not run")
    print_table(("layer", "type", "map"), [row], wrapped=("map",))
    said = strip_styles(stream)
    assert max(map(cell_len, said.splitlines())) <= width
    assert set(said.split()) >= {row[0], *row[2].split()}
    assert re.search(r"Dep\w*…\w*ion", said)
