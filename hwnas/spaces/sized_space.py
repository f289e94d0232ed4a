"""A search space at one size: its network, and the name of that network in tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hwnas.errors import HwnasError
from hwnas.spaces.space import Network, SearchSpace, Setting


@dataclass(frozen=True)
class SizedSpace:
    """A search space and the sizes of its network. Two are equal when space and sizes are."""

    space: SearchSpace
    setting: Setting

    @classmethod
    def named(cls, space: SearchSpace, name: str | None = None, **changes: int | None) -> SizedSpace:
        """Return a space at one of its named settings, by default the one that searches use.

        ``changes`` replace some of the sizes; None leaves one as it is. Raises HwnasError for an unknown name.
        """
        return cls(space, space.setting(name or space.search_setting, **changes))

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[type[SizedSpace], tuple[SearchSpace, Setting]]:
        """Pickle without the network, which is built again."""
        return type(self), (self.space, self.setting)

    @cached_property
    def network(self) -> Network:
        """The network of the space at these sizes.

        Raises HwnasError when the image is too small to be halved as often as the network halves it.
        """
        network = self.space.build_network(self.setting)
        if any(min(w.height, w.width) < w.stride for w in network.workloads()):
            raise HwnasError(
                f"a {self.setting.height}x{self.setting.width} image is too small for space {self.space.name}",
                "give larger images, with ?size=32 after the data's name or with --input",
            )
        return network

    @cached_property
    def key(self) -> str:
        """The name of the network in latency tables: ``nasbench201/16x5/3x32x32/10``."""
        s = self.setting
        stem, norm = ("" if s.stem == "cifar" else f"/{s.stem}"), "/pool-norm" * s.pool_norm
        sizes = f"{s.channels}x{s.depth}/{s.image_channels}x{s.height}x{s.width}/{s.classes}"
        return f"{self.space.key}/{sizes}{stem}{norm}"

    def resized(self, **changes: Any) -> SizedSpace:
        """Return the same space with some fields of its setting changed."""
        return replace(self, setting=replace(self.setting, **changes))

    def describe(self) -> str:
        """Return the space's name and its sizes, for people."""
        return f"{self.space.name}, {self.setting.describe()}"
