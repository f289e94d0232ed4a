"""Start the training of a network, or a search, from a file of pretrained weights, and record what fits."""

from __future__ import annotations

from pathlib import Path

from hwnas.files import sha256_of_file, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.networks.pretrained import Fit, load_pretrained, read_weights
from hwnas.text import plural
from hwnas.validation import Record

PRETRAINED = "pretrained.json"


class PretrainedFile(Record):
    """``pretrained.json``: how a file of pretrained weights fits a network or, of a search, the supernet.

    ``naming`` is the library whose names the file's tensors have. ``fits`` has the file's layer for every layer of the
    network that fits, ``unfit`` the reason for every one that started from random weights, ``unused`` the file's other
    tensors. A candidate of the supernet can take a part of a layer: the sizes follow the layer's name.
    ``loaded_params`` of the network's ``params`` parameters are from the file.
    """

    weights: str
    sha256: str
    naming: str
    loaded_params: int
    params: int
    fits: dict[str, str]
    unfit: dict[str, str]
    unused: list[str]

    def describe(self) -> str:
        """Return the summary in one line: how many layers and parameters fit, and the first that does not."""
        fitting, layers = len(self.fits), len(self.fits) + len(self.unfit)
        share = self.loaded_params / self.params
        text = (
            f"{self.weights} fits {fitting} of {layers} layers, {share:.1%} of the parameters ({self.naming}'s names)"
        )
        if not self.unfit:
            return text
        layer, reason = next(iter(self.unfit.items()))
        more = f", and of {plural(len(self.unfit) - 1, 'other layer')}" if len(self.unfit) > 1 else ""
        return f"{text}; random weights of {layer} ({reason}){more}"


def start_from(child: ChildNetwork, weights: Path) -> PretrainedFile:
    """Load what fits of a file of weights into ``child``. Raises HwnasError where nothing does."""
    return record_of(load_pretrained(child, read_weights(weights), str(weights)), weights)


def record_of(fit: Fit, weights: Path) -> PretrainedFile:
    """Return the record of a file that fits so."""
    return PretrainedFile(
        weights=str(weights),
        sha256=sha256_of_file(weights),
        naming=fit.naming,
        loaded_params=fit.params,
        params=fit.total,
        fits=dict(fit.fits),
        unfit=dict(fit.unfit),
        unused=list(fit.unused),
    )


def write_pretrained(found: PretrainedFile, folder: Path) -> None:
    """Write ``pretrained.json`` into a folder."""
    write_json(folder / PRETRAINED, found.to_json())
