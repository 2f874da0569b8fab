"""The exception tree; the exit code of `dhs` is that of the exception that ended it.

PipelineError
|-- ConfigError            2   the configuration cannot mean what it says; never retried
|-- ContractError          2   data does not satisfy its schema; never retried
|   `-- PlanChangedError   2   another plan already lives under this run name
|-- VerificationError      3   output was read back and is not what the receipts say
|   `-- GateError          3   a gate failed, errored or had too few samples
|-- StorageError          75   a read or write failed for reasons outside the data; retriable
|-- ClusterError          75   workers or scheduler were lost; retriable
|-- StoppedError          75   the program was told to end; started again it goes on where it was
|-- RunBusyError          75   another driver is at work on the run; retriable
`-- BrickError                 one brick cannot be used; becomes a recorded reject reason
    |-- BrickMissingError      a file of the brick does not exist
    `-- BrickCorruptError      a file of the brick exists and cannot be decoded
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 75


class ConfigError(PipelineError):
    """The configuration cannot mean what it says."""

    exit_code = 2


class ContractError(PipelineError):
    """Data does not satisfy its schema."""

    exit_code = 2


class PlanChangedError(ContractError):
    """Another plan already lives under this run name."""


class VerificationError(PipelineError):
    """Output was read back and is not what the receipts say."""

    exit_code = 3


class GateError(VerificationError):
    """A gate failed, errored, or had too few samples."""


class StorageError(PipelineError):
    """A read or write failed for reasons outside the data."""


class ClusterError(PipelineError):
    """Workers or scheduler were lost."""


class StoppedError(PipelineError):
    """The program was told to end; started again it goes on where it was."""


class RunBusyError(PipelineError):
    """Another driver is at work on the run."""


class BrickError(PipelineError):
    """One brick cannot be used; its rows carry the reason, the run goes on."""


class BrickMissingError(BrickError):
    """A file of the brick does not exist."""


class BrickCorruptError(BrickError):
    """A file of the brick exists and cannot be decoded."""
