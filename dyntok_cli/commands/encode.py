"""`dyntok encode`: videos into a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from dyntok_cli import errors
from dyntok_cli.commands.plan import report_plan
from dyntok_cli.configuring import DEMO_MODEL, encode_config
from dyntok_cli.options import ConfigFile, Debug, Inputs, Json, Quiet, with_settings
from dyntok_cli.output import Output
from dyntok_cli.rendering import encode_text, failures_text

if TYPE_CHECKING:
    from dyntok.run import ArrayJob, EncodeReport

FIRST_FAILURES = 10


@with_settings
def encode(
    *,
    inputs: Inputs = None,
    out: Annotated[
        str | None, Option("--out", "-o", metavar="DIR", help="Folder or URL of the store. Required.")
    ] = None,
    config: ConfigFile = None,
    extend: Annotated[
        bool, Option("--extend", help="Encode inputs that the store does not know yet into new shards.")
    ] = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Try failed videos again, in new shards.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be done, as `plan` does.")] = False,
    num_jobs: Annotated[int | None, Option(metavar="N", help="Be one of N jobs that write the store together.")] = None,
    job_index: Annotated[
        int | None, Option(metavar="I", help="Which of them, from 0: encode shards I, I + N, ...")
    ] = None,
    metrics_file: Annotated[
        str | None,
        Option(metavar="PATH.prom", help="Where metrics for Prometheus go, instead of logs/ in the store."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Encode videos into a store, or resume it.

    Running the same command again resumes it. Without INPUT, the store at --out is resumed with its own settings.
    A video that fails does not stop the run: it is listed with its reason, and the exit code is 3.
    """
    from dyntok.errors import UsageError

    output = Output(json=json, quiet=quiet)
    job = array_job(num_jobs, job_index)
    if out is None and not dry_run:
        raise UsageError("no --out was given", hint="add `--out DIR`, the folder or URL of the store to write")
    chosen = encode_config(settings, config, inputs=inputs or [], out=out)
    if chosen.model == DEMO_MODEL:
        output.warn("model demo is the built-in demo encoder, for trying things; no LLM understands its tokens")
    if dry_run or out is None:
        report_plan(output, inputs or [], chosen)
        return

    from dyntok.run import encode as run_encode
    from dyntok_cli.progress import RunProgress

    with RunProgress(output) as observer:
        report = run_encode(
            inputs or [],
            out,
            chosen,
            extend=extend,
            retry_failed=retry_failed,
            job=job,
            metrics_file=metrics_file,
            observer=observer,
        )
    report_encoding(output, report, encode_text(report))


def array_job(num_jobs: int | None, job_index: int | None) -> ArrayJob | None:
    """The job that the flags name. Raises UsageError for one flag without the other, or numbers out of range."""
    from dyntok.errors import UsageError

    if num_jobs is None and job_index is None:
        return None
    if num_jobs is None or job_index is None:
        raise UsageError(
            "--num-jobs and --job-index go together",
            hint="in Slurm: --num-jobs $SLURM_ARRAY_TASK_COUNT --job-index $SLURM_ARRAY_TASK_ID",
        )
    from dyntok.run import ArrayJob

    return ArrayJob(job_index, num_jobs)


def report_encoding(output: Output, report: EncodeReport, text: str, more: dict[str, Any] | None = None) -> None:
    """Print the outcome of a run, and its first failures; exits with 3 if there are any.

    `more` is added to the JSON document.
    """
    document = {**report.to_json(), **(more or {})}
    if not report.failed:
        output.report(document, text)
        return
    failures = failures_text(report.failures[:FIRST_FAILURES], report.failed)
    output.report(document, f"{text}\n\n{failures}")
    output.hint(
        f"`dyntok status {report.out} --failed` lists all failures, "
        f"`dyntok encode --out {report.out} --retry-failed` tries them again"
    )
    raise typer.Exit(errors.FAILED_VIDEOS)
