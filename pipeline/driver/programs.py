"""Programs of the training package: waited for as a process or a Kubernetes Job, with their exit codes as errors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, PipelineError, VerificationError
from pipeline.driver.kube_job import run_program_job

# A container that a signal ended reports 128 plus its number.
_FIRST_SIGNAL_CODE = 129
# How long a program may take to store its state.
_GRACE_S = 60.0


def run_program(config: RunConfig, module: str, *options: str) -> None:
    """Run a program of the training package and wait for it.

    On Kubernetes it is a Job with GPUs; elsewhere a process of this machine.

    Args:
        config: handed over as `--config` in a file of its own; bounds the time.
        module: what `python -m` runs, such as `pipeline.training`.
        options: its other options.

    Raises:
        ConfigError: torch is not installed, or the program refused its configuration or data.
        VerificationError: its results do not verify, or it ended with an unknown code.
        ClusterError: its Job did not start or was lost; quotes Kubernetes.
        PipelineError: it failed for reasons outside the data, or ran longer than `training.timeout_s`.
    """
    if config.cluster.on_kubernetes:
        _raise_for(module, run_program_job(config, module, options))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        run_module(module, ("--config", str(path), *options), config.training.timeout_s)


def run_module(module: str, options: Sequence[str], timeout_s: float) -> None:
    """Run a program of the training package as a process of this machine; errors as `run_program`.

    Args:
        module: what `python -m` runs.
        options: its options.
        timeout_s: how long it is waited for.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"{module} needs torch: install darkhaloscope with its extra train")
    command = [sys.executable, "-m", module, *options]
    with subprocess.Popen(command) as program:
        try:
            code = program.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(program)
            raise PipelineError(f"{module} did not finish within {timeout_s:g} s") from error
        except BaseException:
            _end(program)
            raise
    _raise_for(module, code)


def _raise_for(module: str, code: int) -> None:
    if code:
        kinds: dict[int, type[PipelineError]] = {2: ConfigError, 3: VerificationError}
        is_outside = code < 0 or code >= _FIRST_SIGNAL_CODE or code == PipelineError.exit_code
        kind = kinds.get(code, PipelineError if is_outside else VerificationError)
        raise kind(f"{module} failed with exit code {code}; its messages are above")


def _end(program: subprocess.Popen[bytes]) -> None:
    """Tell a program to end, so that it can store its state; end it if it does not."""
    program.terminate()
    try:
        program.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        program.kill()
