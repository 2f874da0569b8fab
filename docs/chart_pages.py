"""What is written from the model of the chart's values: values.yaml, values.schema.json and the chart's README.

python docs/chart_pages.py            write them
python docs/chart_pages.py --check    exit code 1 and the names of those that are not in step
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.contracts.chart_values import values_schema_text, values_table, values_text

CHART = Path(__file__).parents[1] / "helm" / "darkhaloscope"
_HEAD = (CHART / "README.head.md").read_text(encoding="utf-8")


def chart_files() -> dict[Path, str]:
    """Path to content of every generated file of the chart."""
    return {
        CHART / "values.yaml": values_text(),
        CHART / "values.schema.json": values_schema_text(),
        CHART / "README.md": readme(),
    }


def readme() -> str:
    """The chart's README: README.head.md, then a table of all values."""
    rows = [f"| `{key}` | `{default}` | {_cell(meaning)} |" for key, default, meaning in values_table()]
    return _HEAD + "\n".join(["| value | default | meaning |", "|---|---|---|", *rows]) + "\n"


def stale_files() -> list[Path]:
    """Generated files that do not hold what the model says."""
    return [path for path, text in chart_files().items() if not path.is_file() or path.read_text("utf-8") != text]


def write_chart_files() -> None:
    """Write every generated file of the chart."""
    for path, text in chart_files().items():
        path.write_text(text, encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        write_chart_files()
    elif stale := stale_files():
        sys.exit(", ".join(path.name for path in stale) + ": not in step with chart_values.py; run docs/chart_pages.py")
