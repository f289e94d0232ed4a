"""Generate the JSON Schema of a run's files and the page docs/reference/run-folder.md from the models of hwnas.runs.

After a change of a model run ``python -m tools.run_folder_page``; a test fails until then.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hwnas.files import write_text
from hwnas.finalists.record import FinalistsFile
from hwnas.runs import schema
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.pretrained import PretrainedFile
from hwnas.search.epoch_row import EpochRow
from hwnas.training.step_table import StepTable
from hwnas.training.training_row import TrainingRow

ROOT = Path(__file__).parents[1]
PAGE_FILE = ROOT / "docs" / "reference" / "run-folder.md"
FILES: dict[str, type[BaseModel]] = {
    "manifest.json": Manifest,
    "summary.json": schema.Summary,
    "metrics.jsonl": EpochRow,
    "finalists.json": FinalistsFile,
    "profile/steps.json": StepTable,
    "TARGET/architecture.json": schema.ArchitectureFile,
    "TARGET/derivations.json": schema.Derivation,
    "TARGET/training.jsonl": TrainingRow,
    "TARGET/pretrained.json": PretrainedFile,
    "TARGET/verification.json": schema.Verification,
    "TARGET/quantization.json": schema.QuantizationRow,
}
INTRODUCTION = """\
# The files of a run

Written by `python -m tools.run_folder_page`; do not edit.

`hwnas search --out runs/a` creates a folder. All files are written atomically, and name what they were made from by its
hash. `hwnas report runs/a` shows them on one page.

| file | content |
|---|---|
| `manifest.json` | settings, seeds, versions, hashes of all inputs |
| `table.json` | the latency table; with several devices `tables/NAME.json` |
| `space.yaml` | a copy of your own space |
| `metrics.jsonl` | a row for each epoch and target: accuracy, E[C], lambda, entropy, architecture |
| `finalists.json`, `finalists/` | the trainings of finalists, by which architectures were chosen |
| `summary.json` | costs, latencies and accuracies of the final networks |
| `targets.png`, `search.png` | latency against accuracy or perplexity; E[C]/budget and lambda over the epochs |
| `checkpoint.pt` | the state of the search, from which an interrupted run resumes |
| `profile/` | with `--profile`: `steps.json`, where the time of a few search steps goes, and their traces |

Each target has an id and a folder of that name: its budget, such as `moderate`, or with several devices
`phone_moderate`. The rows of `metrics.jsonl` and `summary.json` have the id in `target`. Older runs
have no such field; there the id follows from device and budget.

| file in `TARGET/` | content |
|---|---|
| `architecture.json` | space, architecture, costs, budget, hash of the table |
| `network.onnx` | opset 18 or its tables', dynamic batch; labels and more in its metadata, which may say "untrained" |
| `network_float16.onnx` | the same in half precision, for a table of it ([how](../how-to/accelerators.md)) |
| `network_int8.onnx`, `quantization.json` | the same in 8-bit integers, and the difference ([how](../how-to/int8.md)) |
| `network_int8.tflite` | the same for LiteRT |
| `network.tflite`, `network.pte`, … | the network in [other formats](../how-to/other-formats.md) |
| `cells/*.onnx` | each searched cell alone |
| `network.py` | of [your own backbone](../how-to/wrap-a-backbone.md): builds the plain torch module, without hwnas |
| `weights.safetensors`, `best.safetensors` | the last weights, and the best by validation accuracy |
| `derivations.json` | the architectures that were derived and, with `--verify`, timed |
| `training.jsonl` | a row for each epoch of the network's own training |
| `pretrained.json` | which layers a file of `--weights` fits; that of a search is in the run's folder |
| `verification.json` | predicted and measured latencies |
| `proxy/` | weights and training of the same cells at the search network's sizes, where the target's are others |

## Fields

Accuracies are shares from 0 to 1, latencies are in milliseconds. Fields marked "optional" are written where they apply.
Programs should ignore fields that they do not know. The models are in `hwnas/runs/schema.py` and
`hwnas/runs/manifest_schema.py`; the JSON Schema of all files is `hwnas/runs/run-folder.schema.json`.
"""


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) with a definition for every file, and for the objects in these."""
    models = list(dict.fromkeys(FILES.values()))
    _, definitions = models_json_schema([(model, "serialization") for model in models])
    files = {file: {"$ref": f"#/$defs/{model.__name__}"} for file, model in FILES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The files of a run; those that end in .jsonl, and derivations.json, hold rows of the type, "
        "profile/steps.json one object of it for each kind of step, by name",
        "properties": files,
        **definitions,
    }


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def page_text() -> str:
    """Return the page: the introduction, then a section for every file and every object in them."""
    definitions = json_schema()["$defs"]
    titles = {model.__name__: f"`{file}`" for file, model in FILES.items()}
    models = [model.__name__ for model in FILES.values()]
    others = sorted(definitions.keys() - set(models))
    sections = [_section(titles.get(name, f"`{name}`"), name, definitions[name]) for name in [*models, *others]]
    return "\n".join([INTRODUCTION, *sections])


def _section(title: str, name: str, definition: dict[str, Any]) -> str:
    text = inspect.cleandoc(definition.get("description", name)).replace("``", "`")
    text = re.sub(r"^`[\w.]+`[:;] (\w)", lambda found: found[1].upper(), text)  # the title names the file
    required = definition.get("required", [])
    lines = [f"### {title}\n", text, "\n| field | type | |", "|---|---|---|"]
    for field, content in definition.get("properties", {}).items():
        lines.append(f"| `{field}` | {_type(content)} | {'' if field in required else 'optional'} |")
    return "\n".join(lines) + "\n"


def _type(field: dict[str, Any]) -> str:
    """Return the type of a field in words."""
    if "$ref" in field:
        return f"{field['$ref'].rsplit('/', 1)[1]}"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        values = field.get("additionalProperties", True)
        return "object" if isinstance(values, bool) else f"object of {_type(values)} by name"
    return {"string": "text", "number": "number", "integer": "integer", "boolean": "true or false"}.get(
        field.get("type", ""), str(field.get("type", "any"))
    )


def main() -> None:
    write_text(schema.SCHEMA_FILE, schema_text())
    write_text(PAGE_FILE, page_text())


if __name__ == "__main__":
    main()
