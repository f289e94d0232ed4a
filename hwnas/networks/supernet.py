"""The supernet: every candidate on every edge, mixed by the architecture's one-hot (or relaxed) variables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildCell, ChildNetwork, tie_words
from hwnas.networks.drop_path import DropPath
from hwnas.networks.dropout import Dropout
from hwnas.networks.mixed_cell import Mixed, MixedCell, narrow
from hwnas.networks.recurrent_cell import RecurrentEvaluation
from hwnas.networks.shared_blocks import Sharing, state_of
from hwnas.networks.steps import over_words, values_of
from hwnas.operations import build_operation
from hwnas.spaces import Architecture, CellInstance, FixedModule, Network, SearchSpace, SizedSpace


class Supernet(nn.Module):
    """All architectures of a sized space at once: images [N, C, H, W] -> scores [N, classes].

    A supernet of words is words [N, T] -> scores [N * T, vocabulary] (hwnas.networks.steps).

    ``partial``, ``shared``, ``sharing`` and ``affine`` are those of its cells. Raises HwnasError when ``partial`` does
    not divide the channels.
    """

    def __init__(
        self,
        sized: SizedSpace,
        partial: int = 1,
        shared: bool = False,
        sharing: Sharing | None = None,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.sized, self.partial, self.shared, self.sharing = sized, partial, shared, sharing
        self.network, space = sized.network, sized.space
        self.parts = nn.ModuleList(
            build_operation(part.workload)
            if isinstance(part, FixedModule)
            else MixedCell(space.cells[part.kind], part, space.operations, partial, shared, sharing, affine)
            for part in self.network.parts
        )
        tie_words(self.parts)
        for cell in self.cells:
            if cell.cell.recurrent:
                cell.evaluation = RecurrentEvaluation

    def forward(
        self,
        x: Tensor,
        mixture: Mapping[str, Mixed],
        instances: Mapping[int, Mixed] | None = None,
        drop: DropPath | Dropout | None = None,
    ) -> Tensor:
        """Return the scores of a batch.

        ``mixture[kind]`` is the mixture of all cells of that kind; ``instances`` replaces it for single parts, by their
        index in the network. ``drop`` applies to the edges of a network of images, and to embeddings and states of one
        of words.
        """
        mixture = {kind: mixed.on(x.device) for kind, mixed in mixture.items()}
        instances = {index: mixed.on(x.device) for index, mixed in (instances or {}).items()}

        path = drop if isinstance(drop, DropPath) else None

        def run(index: int, *inputs: Tensor) -> Tensor:
            part, module = self.network.parts[index], self.parts[index]
            given = () if isinstance(part, FixedModule) else (instances.get(index, mixture[part.kind]),)
            output: Tensor = module(*given, *inputs, drop=path) if given else module(*inputs)
            return output

        if self.network.setting.words:
            return over_words(self.network, run, x, drop)
        return values_of(self.network, run, {-1: x})[len(self.parts) - 1]

    @property
    def cells(self) -> list[MixedCell]:
        return [part for part in self.parts if isinstance(part, MixedCell)]

    @property
    def num_edges(self) -> int:
        """The number of edges in all cells."""
        return sum(len(cell.cell.edges) for cell in self.cells)

    def run_architecture(self, x: Tensor, architecture: Architecture) -> Tensor:
        """Return the scores of one architecture with the supernet's weights; only its operations run."""
        return self(x, only(self.sized.space, architecture))

    def child(self, architecture: Architecture) -> ChildNetwork:
        """Build the child network with this supernet's weights, dead edges left out.

        The child's batch norms have learnable scales and shifts, which start at those of the supernet or, without any,
        at one and zero: the same function. A
        supernet of partial channels has no weights for a child's edges; these keep their initial values.
        """
        child = ChildNetwork(self.sized, architecture, prune=True)
        chosen = dict(zip(self.sized.space.cells, architecture.cells, strict=True))
        for part, source, target in zip(self.network.parts, self.parts, child.parts, strict=True):
            if isinstance(part, FixedModule):
                target.load_state_dict(source.state_dict())
                continue
            assert isinstance(source, MixedCell)
            assert isinstance(target, ChildCell)
            _copy(source.preprocess, target.preprocess)
            operations, coupled = chosen[part.kind], source.cell.coupled
            for e, module in target.edges.items() if self.partial == 1 else ():
                read = tuple(operations[other] for other in coupled.get(int(e), ())[:-1])
                _copy(source.candidate(int(e), operations[int(e)], read), module)
        return child


def only(space: SearchSpace, architecture: Architecture) -> dict[str, Mixed]:
    """Return the mixture that is one architecture."""
    return {
        kind: Mixed(torch.ones(len(chosen), len(space.operations)), [[space.operations.index(op)] for op in chosen])
        for kind, chosen in zip(space.cells, architecture.cells, strict=True)
    }


def require_divisible(network: Network, partial: int) -> None:
    """Raise HwnasError when a supernet with 1/``partial`` of the channels in its mixtures cannot be built."""
    for part in network.parts:
        for candidates in part.candidates if isinstance(part, CellInstance) else ():
            for workload in candidates.values():
                narrow(workload, partial)
                if partial > 1 and workload and workload.in_channels != workload.out_channels:
                    raise HwnasError(
                        "channels cannot bypass a layer that changes their number, as partial channels do",
                        "use a method without partial channels, such as --method snas",
                    )


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy a state. The scales and shifts of batch norms, which a supernet lacks, become one and zero."""
    missing, unexpected = target.load_state_dict(state_of(source), strict=False)
    norms = {name: m for name, m in target.named_modules() if isinstance(m, _BatchNorm)}
    extra = [key for key in missing if key.rpartition(".")[0] not in norms]
    assert not unexpected, unexpected
    assert not extra, extra
    for name in {key.rpartition(".")[0] for key in missing}:
        nn.init.ones_(norms[name].weight)
        nn.init.zeros_(norms[name].bias)
