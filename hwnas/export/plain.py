"""Write a network of a user's own backbone as a Python file that builds it without hwnas."""

from __future__ import annotations

from pathlib import Path

from hwnas.files import write_text
from hwnas.networks.child import ChildNetwork
from hwnas.networks.plain import plain_network, running_layers
from hwnas.spaces.backbone import PREFIX, BackboneSpace

PLAIN_FILE = "network.py"
TEMPLATE = '''\
"""A network of {spec} as plain torch; hwnas is not needed.

``network()`` returns it with the weights in {weights}, beside this file.
"""

# {text}

from collections import OrderedDict
from pathlib import Path

from {module} import {name} as declaration
from safetensors.torch import load_file
from torch import nn

WEIGHTS = Path(__file__).with_name({weights!r})
LAYERS = {{  # by name: the layer of the declaration, the arguments of its function, its tensors in the file
{layers}
}}


def network(trained: bool = True) -> nn.Module:
    build = {{layer["name"]: layer["build"] for layer in declaration["layers"]}}
    layers = OrderedDict((name, build[layer](**arguments)) for name, (layer, arguments, _) in LAYERS.items())
    tensors = load_file(WEIGHTS) if trained else {{}}
    for name, (_, _, prefix) in LAYERS.items() if trained else ():
        own = {{key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}}
        layers[name].load_state_dict(own)
    return {assembled}
'''


def write_plain(child: ChildNetwork, folder: Path, weights: str) -> None:
    """Write ``network.py`` into a folder, next to the file ``weights`` of the child's state; only for a backbone.

    Raises HwnasError as plain_network does.
    """
    space = child.sized.space
    if not isinstance(space, BackboneSpace):
        return
    plain_network(child)  # checks that it computes the same
    module, _, name = space.spec.removeprefix(PREFIX).partition(":")
    rows = (
        f"    {layer!r}: ({found.declared!r}, {dict(found.arguments)!r}, {found.prefix!r}),"
        for layer, found in running_layers(child).items()
    )
    text = TEMPLATE.format(
        text=space.format(child.architecture),
        spec=space.spec,
        weights=weights,
        module=module,
        name=name,
        layers="\n".join(rows),
        assembled="nn.Sequential(layers)" if space.layout.assemble is None else 'declaration["assemble"](layers)',
    )
    write_text(folder / PLAIN_FILE, text)
