"""A child network of a user's own backbone as the plain torch module that the user's functions make of its layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import SizedSpace
from hwnas.spaces.backbone import BackboneSpace
from hwnas.spaces.backbone_layout import RunningLayer


def running_layers(child: ChildNetwork) -> dict[str, RunningLayer]:
    """Return the layers of a child network of a backbone that run, by name and in order."""
    space = child.sized.space
    assert isinstance(space, BackboneSpace)
    return space.layout.running(child.network, child.architecture.cells)


def plain_network(child: ChildNetwork) -> nn.Module:
    """Return the plain module of a child network of a backbone: images [N, C, H, W] -> scores [N, classes].

    It shares its layers, with their weights, with the child. Raises HwnasError where the declaration's ``assemble``
    fails, adds weights that are none of the layers' or computes something else than the layers one after another.
    """
    space = child.sized.space
    assert isinstance(space, BackboneSpace)
    modules = {name: child.get_submodule(layer.prefix[:-1]) for name, layer in running_layers(child).items()}
    plain = space.layout.plain(modules)
    plain.train(child.training)
    own = {id(parameter) for parameter in child.parameters()}
    if added := [name for name, parameter in plain.named_parameters() if id(parameter) not in own]:
        raise HwnasError(
            f"space {space.spec}: the module that assemble returns has weights of its own: {added[0]}",
            "let all its weights be those of the layers",
        )
    _require_same(child, plain, space.spec)
    return plain


def require_plain(sized: SizedSpace) -> None:
    """Build the plain network of a backbone's first choices with all layers, and with as few as possible.

    Does nothing for any other space. Raises HwnasError as plain_network does.
    """
    if not isinstance(sized.space, BackboneSpace):
        return
    for number in (0, -1):  # a layer's last choice is to leave it out, where it can be
        words = tuple(layer.offered[number] for layer in sized.space.layout.edges)
        with torch.random.fork_rng(devices=[]):
            plain_network(ChildNetwork(sized, sized.space.architecture((words,)), prune=True))


def _require_same(child: ChildNetwork, plain: nn.Module, spec: str) -> None:
    """Raise HwnasError where two networks with the same layers have different scores of an image."""
    setting, training = child.network.setting, child.training
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, setting.image_channels, setting.height, setting.width, generator=generator)
    device = next(child.parameters()).device
    with torch.no_grad():
        try:
            scores = plain.eval()(image.to(device))
        except Exception as error:
            problem = f"the module that assemble returns fails: {type(error).__name__}: {str(error)[:200]}"
            raise HwnasError(f"space {spec}: {problem}", "let it run the layers one after another") from error
        expected = child.eval()(image.to(device))
    plain.train(training)
    child.train(training)
    if scores.shape != expected.shape or not torch.allclose(scores, expected, rtol=1e-4, atol=1e-5):
        raise HwnasError(
            f"space {spec}: the module that assemble returns computes something else than its layers",
            "let it run the layers one after another, in the order of the declaration",
        )


def names_in_child(child: ChildNetwork) -> dict[str, str]:
    """Return the names that tensors of the plain network of ``child`` have in the child's own state."""
    own = {id(tensor): name for name, tensor in child.state_dict(keep_vars=True).items()}
    plain = plain_network(child).state_dict(keep_vars=True)
    return {name: own[id(tensor)] for name, tensor in plain.items() if id(tensor) in own}


def with_childs_names(child: ChildNetwork, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of the plain network with the names that the tensors have in ``child``; others keep theirs."""
    names = names_in_child(child)
    return {names.get(name, name): tensor for name, tensor in weights.items()}
