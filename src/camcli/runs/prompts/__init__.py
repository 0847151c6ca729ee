"""``camcli prompts``: what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from camcli.base.errors import RequestError
from camcli.models import check_templates
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.outcome import Measure

Kept = Literal["sheet", "array"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What is asked of ``camcli prompts``: the maps of several prompts in each picture, compared.

    Attributes:
        job: model, layer, method, pictures, and how they are done; its prompts are what is asked about, and its
            ``save`` says what is written for each picture: ``sheet``, and ``array`` for the maps themselves.
    """

    job: Job
    paraphrases: tuple[str, ...] = option(
        (),
        MODEL,
        help="Template that makes a prompt of each --text, such as 'a photo of a {}.' ({} alone = the text itself), or "
        "open_clip's imagenet or imagenet-simple; repeat for several. Then the prompts of each text are compared",
        flag="--paraphrase",
        metavar="TEXT",
        env=False,
    )
    measure: Measure = option(
        "pearson",
        OUTPUT,
        help="Similarity of two maps, for the table and for sorting images: pearson, ssim, overlap (of the top 20%)",
        metavar="MEASURE",
        env=False,
    )
    pictures: int = option(5, OUTPUT, help="Number of least stable images to show", metavar="N", min=1, env=False)

    def __post_init__(self) -> None:
        """Raises RequestError for what cannot be asked."""
        if not self.job.prompted:
            raise RequestError(
                "no prompts were given",
                "name several: --text dog --text puppy; or one, and ways to say it: --text dog --paraphrase "
                "'a photo of a {}.' --paraphrase 'a drawing of a {}.'",
            )
        check_templates(self.paraphrases)
        if self.measure not in get_args(Measure):
            raise RequestError(f"measure cannot be {self.measure!r}", f"there are: {', '.join(get_args(Measure))}")
        if unknown := [kind for kind in self.job.save if kind not in get_args(Kept)]:
            raise RequestError(f"{unknown[0]!r} cannot be saved", f"there are: {', '.join(get_args(Kept))}")
        if self.pictures < 1:
            raise RequestError(f"{self.pictures} pictures cannot be shown", "give a number from 1 on")
