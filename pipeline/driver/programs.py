"""Programs of the training package: processes of their own that are waited for, with their exit codes as errors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, PipelineError, VerificationError


def run_program(config: RunConfig, module: str, *options: str) -> None:
    """Run a program of the training package and wait for it.

    Args:
        config: handed over as `--config` in a temporary file; bounds the time.
        module: what `python -m` runs, such as `pipeline.training`.
        options: its other options.

    Raises:
        ConfigError: torch is not installed, or the program refused its configuration or data.
        VerificationError: its results do not verify, or it ended with an unknown code.
        PipelineError: it failed for reasons outside the data, or ran longer than `training.timeout_s`.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"{module} needs torch: install darkhaloscope with its extra train")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        command = [sys.executable, "-m", module, "--config", str(path), *options]
        try:
            code = subprocess.run(command, timeout=config.training.timeout_s, check=False).returncode
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"{module} did not finish within {config.training.timeout_s:g} s") from error
    if code:
        kinds: dict[int, type[PipelineError]] = {2: ConfigError, 3: VerificationError}
        unexpected = PipelineError if code < 0 or code == PipelineError.exit_code else VerificationError
        raise kinds.get(code, unexpected)(f"{module} failed with exit code {code}; its messages are above")
