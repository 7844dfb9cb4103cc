"""`orchard generate`: pictures for words, or words that go on, by what the run was trained for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, emit, parse_settings, warn

if TYPE_CHECKING:
    from orchard.inference.painting import Painted, PaintingPipeline
    from orchard.inference.sampling import Sampling

LENGTH = 200  # tokens of a text where nobody says otherwise


def generate(
    run: Annotated[Path, typer.Argument(help="Run or model folder.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to paint or go on from.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many for each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the chances; the same seed paints the same.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Paint a TSV of idx and text; --out is a TSV then.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures (or TSV for --data).")] = None,
    complete: Annotated[Path | None, typer.Option(help="Finish the picture whose upper part is in this file.")] = None,
    text: Annotated[str | None, typer.Option(help="The prompt for --complete.")] = None,
    clip: Annotated[Path | None, typer.Option(help="Run or model folder of a CLIP that ranks the candidates.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Choose among so many likeliest; 0: among all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Choose among the likeliest of this probability.")] = None,
    temperature: Annotated[float | None, typer.Option(help="More is more daring; 0 takes the likeliest.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Divides what speaks for a token that a text has already.")
    ] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens of a text at most.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text ends before this word.")] = None,
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or int8: how the weights are read; fewer bits are faster.")
    ] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of --data: data.bad_records=skip, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Paint pictures for prompts, or go on with texts.

    Pictures are PNGs in a folder, with a sheet of all candidates; each says its prompt, seed and model.
    """
    from orchard.errors import UsageError
    from orchard.inference.loading import load
    from orchard.inference.sampling import Sampling
    from orchard.tasks.text_generation import TextGeneration

    loaded = load(run)
    asked = list(prompts or []) + ([text] if text is not None else [])
    wishes = {
        "top_k": top_k, "top_p": top_p, "temperature": temperature, "repetition_penalty": repetition_penalty
    }  # fmt: skip
    if loaded.task == TextGeneration.name:
        for option, value in {"--data": data, "--out": out, "--complete": complete, "--clip": clip}.items():
            if value is not None:
                raise UsageError(f"{option} is for pictures; {loaded.name} writes text")
        from orchard.cli.writing import write_text

        _at_least_one(asked)
        chosen = _sampling(Sampling(), wishes)
        write_text(run, asked, length=length or LENGTH, sampling=chosen, stop=stop or [], count=count, seed=seed,
                   precision=precision, as_json=as_json)  # fmt: skip
        return
    of_texts = {"--length": length, "--stop": stop, "--repetition-penalty": repetition_penalty}
    if given := [option for option, value in of_texts.items() if value is not None]:
        raise UsageError(f"{given[0]} is for texts; {loaded.name} paints pictures of one size")
    from orchard.inference.painting import PaintingPipeline

    pipeline = PaintingPipeline(loaded, precision=precision, clip=clip, say=warn)  # type: ignore[arg-type]
    sampling = _sampling(pipeline.sampling, wishes)
    if data is not None:
        if asked or complete:
            raise UsageError("--data brings its own prompts; leave out the others, and --complete")
        answer: Any = _table(pipeline, data, out, count, seed, sampling, parse_settings(settings or []))
    else:
        if settings:
            raise UsageError("--set is for the table of --data")
        _at_least_one(asked)
        answer = _pictures(pipeline, asked, complete, out, count, seed, sampling)
    emit(answer, as_json, _show)


def _at_least_one(prompts: list[str]) -> None:
    from orchard.errors import UsageError

    if not prompts:
        raise UsageError('nothing is asked for; give a prompt, such as orchard generate RUN "a red apple"')


def _sampling(usual: Sampling, wishes: dict[str, Any]) -> Sampling:
    """What the options say over what is usual; a top_k of 0 is none."""
    import dataclasses

    given = {key: value for key, value in wishes.items() if value is not None}
    return dataclasses.replace(usual, **given | ({"top_k": None} if given.get("top_k") == 0 else {}))


def _table(
    pipeline: PaintingPipeline,
    data: Path,
    out: Path | None,
    count: int,
    seed: int,
    sampling: Sampling,
    settings: dict[str, Any],
) -> dict[str, Any]:
    from orchard.cli.canvas import Canvas
    from orchard.data.captions import read_prompts
    from orchard.inference.painted_files import paint_table
    from orchard.training.evaluate import source_settings

    prompts, problems = read_prompts(data, source_settings(str(data), settings))
    for problem in problems:
        warn(f"{problem.key}: {problem.what}")
    out = out or data.with_name(f"{data.name.partition('.')[0]}-painted.tsv")
    with Canvas([text for _, text in prompts for _ in range(count)]) as canvas:
        new = paint_table(pipeline, prompts, out, count=count, seed=seed, sampling=sampling, watch=canvas.watch,
                          done=lambda rows: canvas.rows(rows, count))  # fmt: skip
    return {"table": str(out), "rows": len(prompts), "new": new}


def _pictures(
    pipeline: PaintingPipeline, prompts: list[str], complete: Path | None, out: Path | None, count: int, seed: int,
    sampling: Sampling,
) -> list[dict[str, Any]]:  # fmt: skip
    """Paint, and write a folder for each prompt: single pictures, and a sheet where there are several."""
    from orchard.cli.canvas import Canvas
    from orchard.errors import UsageError
    from orchard.inference.painted_files import read_picture, save_picture, sheet

    if complete and len(prompts) != 1:
        raise UsageError(f"--complete takes one prompt, got {len(prompts)}")
    with Canvas([prompt for prompt in prompts for _ in range(count)]) as canvas:
        wishes: dict[str, Any] = {"count": count, "seed": seed, "sampling": sampling, "watch": canvas.watch}
        if complete:
            painted = pipeline.complete(read_picture(complete), prompts[0], **wishes)
        else:
            painted = pipeline.paint(prompts, **wishes)
        answers = []
        for prompt in prompts:
            best = pipeline.rank([next(painted) for _ in range(count)])
            folder = (out or Path("painted")) / _slug(prompt, seed) if len(prompts) > 1 or not out else out
            files = [folder / _name(one, place, pipeline) for place, one in enumerate(best, 1)]
            for file, one in zip(files, best, strict=True):
                save_picture(one.picture, file)
            answer: dict[str, Any] = {"prompt": prompt, "seed": seed, "pictures": [str(file) for file in files]}
            if count > 1:
                save_picture(sheet([one.picture for one in best]), folder / "sheet.png")
                answer["sheet"] = str(folder / "sheet.png")
            if best[0].score is not None:
                answer["scores"] = [one.score for one in best]
            answers.append(answer)
    return answers


def _name(one: Painted, place: int, pipeline: PaintingPipeline) -> str:
    """By the candidate's number; where they are ranked, by rank first."""
    return f"{one.candidate}.png" if pipeline.matcher is None else f"rank{place}-{one.candidate}.png"


def _slug(prompt: str, seed: int) -> str:
    """A prompt as the name of a folder, in any script; different prompts have different ones."""
    import hashlib

    words = re.sub(r"[^\w]+", "-", prompt).strip("-")[:40]
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:6]}-seed{seed}"


def _show(answer: Any) -> None:
    """Where the pictures are."""
    from rich.console import Console

    console = Console()
    if isinstance(answer, dict):
        console.print(f"{answer['rows']} pictures in {answer['table']}, {answer['new']} of them new", highlight=False)
        return
    for one in answer:
        where = one.get("sheet") or one["pictures"][0]
        best = f" (best: {one['pictures'][0]}, cosine {one['scores'][0]:.3f})" if "scores" in one else ""
        console.print(f"{one['prompt']}: {where}{best}", markup=False, highlight=False)
