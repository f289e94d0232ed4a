"""Names of the files in a run's folder, and the ids of its targets."""

from __future__ import annotations

from collections.abc import Collection

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import names_devices

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
PROFILE = "profile"
PICTURES = ("targets.png", "search.png")
# In the folder of a target:
ARCHITECTURE = "architecture.json"
DERIVATIONS = "derivations.json"
VERIFICATION = "verification.json"
PROXY = "proxy"  # the folder of the network of the search's sizes, where the target network has others
QUANTIZATION = "quantization.json"
WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}  # by the name that recipes give the weights


def table_file(devices: Collection[str], device: str) -> str:
    """Return the path, in a run for ``devices``, of the latency table of one of them."""
    return "table.json" if len(devices) == 1 else f"tables/{device}.json"


def target_id(devices: Collection[str], device: str, budget_text: str) -> str:
    """Return the id of a target, which is also the name of its folder: ``moderate``, or ``phone_moderate``.

    ``devices`` are those of the whole run. A budget that names devices needs no device in front of it.
    """
    names_its_device = len(devices) == 1 or names_devices(budget_text)
    return Budget(budget_text, {}).name if names_its_device else f"{device}_{Budget(budget_text, {}).name}"
