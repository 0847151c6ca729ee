"""Command ``camcli explain --engine ray``: its options, and what it says of a run on a cluster."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from camcli.base.errors import RequestError
from camcli.cli.console import Console
from camcli.cli.follow import Following
from camcli.cli.loading import check_job
from camcli.cli.log import CommandLog
from camcli.cli.options import CommonOptions
from camcli.images.address import is_url
from camcli.runs.job.job import Job
from camcli.runs.job.option import CLUSTER, option
from camcli.runs.record.outcome import Counts

if TYPE_CHECKING:
    from camcli.runs.cluster.run import ClusterRun

# Seconds without an image done after which an actor is replaced.
STALL = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions(CommonOptions):
    """Options of ``camcli explain`` for a cluster."""

    engine: Literal["local", "ray"] = option(
        "local",
        CLUSTER,
        help="Where the job runs: local = in this process, ray = on a Ray cluster",
        metavar="NAME",
        env=False,
    )
    address: str = option(
        "",
        CLUSTER,
        help="Ray: address of the cluster, such as auto or HOST:6379",
        metavar="ADDRESS",
        show_default="$RAY_ADDRESS, or a cluster on this machine",
        env=False,
    )
    actors: int = option(
        0,
        CLUSTER,
        help="Ray: processes that do shards; 0 = one a GPU, or one for 4 CPUs",
        metavar="N",
        min=0,
        env=False,
    )
    gpus_per_actor: float = option(
        -1.0,
        CLUSTER,
        help="Ray: GPUs of each process, perhaps a fraction",
        metavar="G",
        show_default="1, or 0 without GPUs",
        min=0,
        unset=True,
        env=False,
    )
    stall: float = option(
        STALL,
        CLUSTER,
        help="Ray: seconds without an image done after which a process is replaced",
        metavar="S",
        min=1,
        env=False,
    )


def check_cluster_options(options: ClusterOptions) -> None:
    """Check that nothing is said about a cluster where none is used.

    Raises:
        RequestError: something is.
    """
    if options.address or options.actors or options.gpus_per_actor >= 0 or options.stall != STALL:
        raise RequestError(
            "--address, --actors, --gpus-per-actor and --stall are for a cluster", "add --engine ray, or leave them out"
        )


def run_on_cluster(job: Job, options: ClusterOptions, console: Console, log: CommandLog) -> Counts:
    """Run a job on a Ray cluster, and say on the console what comes of it."""
    check_job(job, job.save)
    from camcli.runs.cluster.run import ClusterRun

    run = ClusterRun(job, options.address, options.actors, options.gpus_per_actor, options.stall)
    following = Following(console, job.out, options.as_json)
    console.say(f"model: {job.model}")
    console.say(f"output: {job.out}")
    with ExitStack() as held:
        with console.working("connecting to Ray"):
            held.enter_context(run)
        console.say(f"engine: Ray, {run.actors} actor{'s' * (run.actors > 1)}, {run.describe_needs()}")
        if not is_url(job.out):
            log.open(Path(job.out))
        following.follow(run, run.total)
    _conclude(run, console)
    return following.conclude()


def _conclude(run: "ClusterRun", console: Console) -> None:
    for name, words in run.about.items():
        if words and name != "untrained":
            console.say(f"{name}: {words}")
    if run.about.get("untrained"):
        console.note("the weights are random: these maps mean nothing, and every output is marked so")
    for note in run.notes:
        console.note(note)
