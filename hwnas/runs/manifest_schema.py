"""Schema of ``manifest.json``. Imports no torch.

After a change here run ``python -m tools.run_folder_page``, which writes the JSON Schema and its page.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from hwnas.budgets.text import split_device, targets_of
from hwnas.recipe import Kernels, Precision
from hwnas.runs.folder import target_id
from hwnas.validation import Record


class Selection(Record):
    """The way in which the search selects its final architecture."""

    name: str


class SearchRecipe(Record):
    """The recipe of the search; the fields that readers use are declared (hwnas.recipe has all of them)."""

    method: str
    epochs: int
    seed: int
    inputs_per_node: int | None = None
    selection: Selection = Selection(name="probable")
    precision: Precision = "float32"
    kernels: Kernels = "torch"
    finalists: dict[str, Any] | None = None


class SearchInputs(Record):
    """Everything that decides what a search computes; ``Manifest.digest`` is the hash of this.

    ``setting`` are the sizes of the target network, ``search_setting`` those of the search network where they differ.
    ``data`` are the images of the search, ``target_data`` those of ``--target-data``. ``tables`` are the hashes of the
    latency tables by device name, ``plugin`` the hash of the user's Python file, ``space_definition`` the hash and the
    location of a user's own space.
    """

    space: str
    space_definition: dict[str, Any] | None = None
    setting: dict[str, Any]
    search_setting: dict[str, Any] | None = None
    tables: dict[str, str] = Field(min_length=1)
    data: str
    data_fingerprint: str
    target_data: str | None = None
    target_data_fingerprint: str | None = None
    budgets: list[str]
    recipe: SearchRecipe
    verify: bool
    plugin: str | None = None
    pretrained: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_one_table(cls, content: Any) -> Any:
        """Return the content of a manifest from before searches for several devices, which has no ``tables``."""
        if isinstance(content, dict) and "tables" not in content and isinstance(content.get("table_sha256"), str):
            return {**content, "tables": {"": content["table_sha256"]}}
        return content

    @model_validator(mode="after")
    def _check_devices(self) -> SearchInputs:
        for budget in self.budgets:
            for limit in budget.split(","):
                if (device := split_device(limit)[1]) is not None and device not in self.tables:
                    raise ValueError(f"budget {budget} names device {device}, which has no table")
        return self


class Manifest(SearchInputs):
    """``manifest.json``: the inputs of a run, and the versions and the device that computed it."""

    digest: str
    versions: dict[str, str]
    started: str
    computed: dict[str, str] = Field(default_factory=dict)

    def target_ids(self) -> list[str]:
        """Return the ids of the targets in their order."""
        return [self.target_id(devices[0], budget) for devices, budget in targets_of(self.tables, self.budgets)]

    def target_id(self, device: str, budget_text: str) -> str:
        return target_id(self.tables, device, budget_text)
