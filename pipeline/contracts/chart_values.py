"""Values of the Helm chart. values.yaml, its JSON schema and the chart's README are written from this."""

from __future__ import annotations

import json
from typing import Annotated, Any

import yaml
from pydantic import Field
from pydantic.fields import FieldInfo

from pipeline.contracts.chart_components import (
    Accounts,
    AwsValues,
    ChartSection,
    ClusterValues,
    DashboardIngress,
    Driver,
    Images,
    Labels,
    NetworkPolicies,
    Objects,
    Program,
    Prometheus,
    Rbac,
    Scheduler,
    Scratch,
    Spot,
    Toggle,
    Worker,
)
from pipeline.contracts.config import RunConfig

# Column at which a comment of values.yaml is wrapped.
_WIDTH = 110


class ChartValues(ChartSection):
    """Everything that `helm install` can be told."""

    config: str | RunConfig | None = Field(
        default=None, description="the run configuration, needed: --set-file config=FILE, or the same as a mapping"
    )
    fullname_override: Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]{0,48}[a-z0-9])?)?$")] = Field(
        default="", description="name of every object instead of the release's, at most 50 characters"
    )
    image: Images = Field(default=Images(), description="images, by digest where it matters")
    cluster: ClusterValues = Field(default=ClusterValues(), description="how the driver obtains its scheduler")
    aws: AwsValues = Field(default=AwsValues(), description="region and keys of the store")
    service_accounts: Accounts = Field(default=Accounts(), description="accounts of the pods")
    rbac: Rbac = Field(default=Rbac(), description="rights of the driver")
    network_policy: NetworkPolicies = Field(default=NetworkPolicies(), description="who may talk to whom")
    spot: Spot = Field(default=Spot(), description="interruptible nodes for workers")
    driver: Driver = Field(default=Driver(), description="the Job that is the run")
    scheduler: Scheduler = Field(default=Scheduler(), description="the Dask scheduler")
    worker: Worker = Field(default=Worker(), description="the Dask workers")
    program: Program = Field(default=Program(), description="the programs of the network")
    scratch: Scratch = Field(default=Scratch(), description="sizes of the writable volumes")
    pod_disruption_budget: Toggle = Field(default=Toggle(), description="keep node drains away from the driver")
    prometheus: Prometheus = Field(default=Prometheus(), description="metrics")
    ingress: DashboardIngress = Field(default=DashboardIngress(), description="the dashboard from outside")
    extra_env: Objects = Field(default=[], description="further environment variables of every container")
    extra_volumes: Objects = Field(
        default=[], description="further volumes of driver, workers, programs and `helm test`"
    )
    extra_volume_mounts: Objects = Field(default=[], description="where those volumes are mounted")
    extra_labels: Labels = Field(
        default={}, description="labels of every pod, such as owner and project for cost reports"
    )


def values_schema() -> dict[str, Any]:
    """The JSON schema of values.yaml (draft 2020-12); `config` is a text or a run configuration.

    Helm merges given values over the defaults before it validates, so no key is required.
    """
    schema = ChartValues.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Values of the chart darkhaloscope"
    return schema


def values_schema_text() -> str:
    """What values.schema.json holds."""
    return json.dumps(values_schema(), indent=1) + "\n"


def values_text() -> str:
    """What values.yaml holds: every default with its meaning above it."""
    head = "# Written from pipeline/contracts/chart_values.py by make docs; values.schema.json refuses unknown keys.\n"
    return head + "\n".join(_section_lines(ChartValues(), 0)) + "\n"


def values_table() -> list[tuple[str, str, str]]:
    """Every value as (dotted key, default as YAML, meaning), in the order of values.yaml."""
    return _rows(ChartValues(), "")


def _fields(section: ChartSection) -> list[tuple[str, FieldInfo, Any]]:
    fields = type(section).model_fields.items()
    return [(str(field.alias), field, getattr(section, name)) for name, field in fields]


def _section_lines(section: ChartSection, depth: int) -> list[str]:
    lines = []
    for key, field, value in _fields(section):
        indent = "  " * depth
        lines += [f"{indent}# {part}" for part in _wrapped(f"-- {field.description}", _WIDTH - len(indent))]
        if isinstance(value, ChartSection):
            lines += [f"{indent}{key}:", *_section_lines(value, depth + 1)]
        else:
            lines.append(f"{indent}{key}: {_inline(value)}")
    return lines


def _rows(section: ChartSection, prefix: str) -> list[tuple[str, str, str]]:
    rows = []
    for key, field, value in _fields(section):
        if isinstance(value, ChartSection):
            rows += _rows(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, _inline(value), str(field.description)))
    return rows


def _inline(value: object) -> str:
    """A default on one line, as YAML."""
    if isinstance(value, str):
        return json.dumps(value)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]
