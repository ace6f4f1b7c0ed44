"""Writing shards with Apache Beam: the same bytes, on any runner.

Each element of the pipeline is one shard. A worker opens the source itself (its path must be
valid there), checks that its fingerprint is the planned one, writes the shard and notes it in the
ledger of the output folder. The process that runs the pipeline publishes the manifest.
"""

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.write_plan import ShardTask
from tenfold.data.sources.base import SourceChanged, SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.writing.shard_writer import WriteJob, write_shard

_OUR_ERROR = re.compile(r"(?:errors\.JobError|base\.SourceChanged|errors\.UserError): ([^\n]*)")


@dataclass(frozen=True)
class SourceSpec:
    """The arguments with which a remote worker opens the source, and its fingerprint."""

    spec: Any
    options: SourceOptions | None
    fingerprint: str


def write_with_beam(
    job: WriteJob, source: SourceSpec, tasks: Sequence[ShardTask], arguments: Sequence[str]
) -> None:
    """Write the shards of `tasks` in an Apache Beam pipeline.

    Args:
      job: the write; its source is opened anew on each worker.
      source: the source, which must be given by name.
      tasks: the shards to write.
      arguments: Beam's own options, as ``--runner=DirectRunner``.

    Raises:
      UserError: Beam is not installed, its options are wrong, or the source is no name.
      JobError: the pipeline failed.
    """
    specs = source.spec.values() if isinstance(source.spec, Mapping) else [source.spec]
    if not all(isinstance(spec, str) for spec in specs):
        raise UserError(
            "engine 'beam' needs a source given by name, because each worker opens it itself: "
            "give a path, a URL or module:function"
        )
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--engine=beam needs Apache Beam: pip install 'tenfold[beam]'") from error
    # Beam logs a traceback for every error, which is raised below as one line.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    try:
        options = PipelineOptions(list(arguments))
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(list(tasks))
                | "Spread" >> beam.Reshuffle()
                | "Write" >> beam.ParDo(_make_writer(beam, job, source))
            )
    except SystemExit as error:  # raised by Beam's parser for unknown options
        raise UserError(
            f"Apache Beam refuses these options: {' '.join(arguments)}: see its message above"
        ) from error
    except Exception as error:
        raise _unwrap(error) from error


def _unwrap(error: Exception) -> JobError:
    """Return the JobError or UserError inside a runner's error as a JobError, else all of it."""
    ours = _OUR_ERROR.findall(str(error))
    if isinstance(error, (JobError, UserError)):
        return JobError(re.sub(r" \[while running .*", "", str(error), flags=re.DOTALL))
    if ours:
        return JobError(re.sub(r" \[while running .*", "", ours[-1]))
    return JobError(f"the Beam pipeline failed: {type(error).__name__}: {error}")


def _make_writer(beam: Any, job: WriteJob, source: SourceSpec) -> Any:
    """Return the DoFn; its class is defined here because Beam is imported on use."""

    class WriteShard(beam.DoFn):
        """Writes the shard of each element; counts records and bytes in Beam's metrics."""

        def __init__(self) -> None:
            self._job = replace(job, source=None)  # type: ignore[arg-type]

        def setup(self) -> None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tenfold-")
            opened = open_source(source.spec, Path(self._scratch.name), source.options)
            if opened.stats.fingerprint != source.fingerprint:
                raise SourceChanged(
                    f"source '{source.spec}' differs on this worker from the planned one: "
                    "every worker must see the same files"
                )
            self._ready = replace(self._job, source=opened)

        def process(self, task: ShardTask) -> None:
            records = beam.metrics.Metrics.counter("tenfold", "records")
            num_bytes = beam.metrics.Metrics.counter("tenfold", "bytes")

            def report(more_records: int, more_bytes: int) -> None:
                records.inc(more_records)
                num_bytes.inc(more_bytes)

            write_shard(self._ready, task, report)

        def teardown(self) -> None:
            if hasattr(self, "_scratch"):
                self._scratch.cleanup()

    return WriteShard()
