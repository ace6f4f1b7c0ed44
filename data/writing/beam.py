"""Writing shards with Apache Beam: the same shards, on whatever runs the pipeline.

Each element is one shard. A worker opens the source for itself (its path must mean the same
there), checks that it is the one that was planned for, and writes the shard and its receipt
to the output folder; the manifest is published by the process that runs the pipeline.
"""

import logging
import re
import tempfile
from collections.abc import Sequence
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
    """A source as a remote worker opens it again."""

    spec: Any
    options: SourceOptions | None
    fingerprint: str


def write_with_beam(
    job: WriteJob, source: SourceSpec, tasks: Sequence[ShardTask], arguments: Sequence[str]
) -> None:
    """Writes the shards of `tasks` in a pipeline with Beam's own `arguments` (``--runner=…``).

    Raises:
      UserError: Beam is not installed, its arguments are wrong, or the source cannot travel.
      JobError: the pipeline failed.
    """
    if not isinstance(source.spec, str):
        raise UserError("engine 'beam' needs a source by name: workers open it for themselves")
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--engine=beam needs Apache Beam: pip install 'tenfold[beam]'") from error
    # It logs a traceback for every error, which we raise as one line.
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
    except SystemExit as error:  # Beam's parser of options ends the process
        raise UserError(f"Beam does not take these options: {' '.join(arguments)}") from error
    except Exception as error:
        raise _told(error) from error


def _told(error: Exception) -> JobError:
    """Returns our own error out of what a runner made of it."""
    ours = _OUR_ERROR.findall(str(error))
    if isinstance(error, (JobError, UserError)):
        return JobError(re.sub(r" \[while running .*", "", str(error), flags=re.DOTALL))
    if ours:
        return JobError(re.sub(r" \[while running .*", "", ours[-1]))
    return JobError(f"the Beam pipeline failed: {type(error).__name__}: {error}")


def _make_writer(beam: Any, job: WriteJob, source: SourceSpec) -> Any:
    """Returns the DoFn; its class is made here because Beam is imported only when used."""

    class WriteShard(beam.DoFn):
        """Writes one shard per element; counts records and bytes in Beam's metrics."""

        def __init__(self) -> None:
            self._job = replace(job, source=None)  # type: ignore[arg-type]

        def setup(self) -> None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tenfold-")
            opened = open_source(source.spec, Path(self._scratch.name), source.options)
            if opened.stats.fingerprint != source.fingerprint:
                raise SourceChanged(
                    f"{source.spec} is not, on this worker, what it was when it was planned"
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
