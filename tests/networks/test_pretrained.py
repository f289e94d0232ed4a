"""Files of pretrained weights: layers that fit in part, names that are unknown, files that are no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.pretrained import load_pretrained, read_weights
from hwnas.spaces import SizedSpace, get_space
from support.chains import small_chain


def child_of(text: str, seed: int = 0, **sizes: int) -> ChildNetwork:
    """Build a network of the small chain, with running statistics that are not those of a new one."""
    torch.manual_seed(seed)
    space = small_chain()
    child = ChildNetwork(SizedSpace.named(space, "tiny").resized(**sizes), space.parse(text), prune=True)
    child(torch.randn(4, 3, 16, 16))
    return child


def state_of(child: ChildNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in child.state_dict().items()}


def test_layers_at_the_same_place_of_a_stage_fit_where_all_their_shapes_are_equal() -> None:
    # Layers 0 to 2 are one stage, 3 and 4 another; both k5_e3 and se have 24 channels in the middle.
    source = state_of(child_of("k3_e1 k5_e3 se k5_e3 k5_e3", seed=1))
    child = child_of("k5_e3 se skip k3_e1 k5_e3", classes=7)
    before = state_of(child)
    fit = load_pretrained(child, source, "other.safetensors")
    edges = "parts.1.edges"
    assert fit.fits == {
        "parts.0.0": "parts.0.0",
        f"{edges}.1.layers.0": f"{edges}.1.layers.0",
        f"{edges}.1.layers.7": f"{edges}.1.layers.6",  # squeeze-and-excitation stands before it
        **{f"{edges}.4.layers.{n}": f"{edges}.4.layers.{n}" for n in (0, 3, 6)},
        "parts.2.0": "parts.2.0",
    }
    assert fit.unfit == {
        f"{edges}.0.layers.0": "the file has no such layer",
        f"{edges}.0.layers.3": f"weight is 24x1x5x5, that of {edges}.0.layers.0 8x1x3x3",
        f"{edges}.0.layers.6": f"weight is 8x24x1x1, that of {edges}.0.layers.3 8x8x1x1",
        f"{edges}.1.layers.3": f"weight is 24x1x3x3, that of {edges}.1.layers.3 24x1x5x5",
        f"{edges}.1.layers.6.reduce": "the file has no such layer",
        f"{edges}.1.layers.6.expand": "the file has no such layer",
        f"{edges}.3.layers.0": f"weight is 8x1x3x3, that of {edges}.3.layers.3 24x1x5x5",
        f"{edges}.3.layers.3": f"weight is 16x8x1x1, that of {edges}.3.layers.6 16x24x1x1",
        "parts.3.2": "weight is 7x24, that of parts.3.2 10x24",
    }
    after = state_of(child)
    place = {f"{edges}.1.layers.{n}": f"{edges}.1.layers.{n - 1}" for n in (7, 8)}  # convolution and batch norm
    fitting = {f"{edges}.{layer}.layers.{n}" for layer, ns in ((1, (0, 1, 7, 8)), (4, range(8))) for n in ns}
    for name, tensor in after.items():
        module, _, part = name.rpartition(".")
        fits = module in fitting or module.startswith(("parts.0.", "parts.2."))
        if part != "num_batches_tracked":
            torch.testing.assert_close(tensor, source[f"{place.get(module, module)}.{part}"] if fits else before[name])
    sizes = {name.rpartition(".")[0]: 0 for name in after}
    for name, parameter in child.named_parameters():
        sizes[name.rpartition(".")[0]] += parameter.numel()
    loaded = (
        size for module, size in sizes.items() if module in fitting or module.startswith(("parts.0.", "parts.2."))
    )
    assert fit.params == sum(loaded)


def test_an_operation_of_a_cell_fits_as_a_whole() -> None:
    space = get_space("nasbench201")
    sized = SizedSpace.named(space).resized(channels=4, depth=1)
    texts = [f"|{op}~0|+|none~0|{op}~1|+|none~0|none~1|nor_conv_1x1~2|" for op in ("nor_conv_3x3", "nor_conv_1x1")]
    child, other = (ChildNetwork(sized, space.parse(text), prune=True) for text in texts)
    fit = load_pretrained(child, state_of(other), "other.safetensors")
    assert set(fit.unfit) == {f"parts.{part}.edges.{edge}" for part in (1, 3, 5) for edge in (0, 2)}
    assert {f"parts.{part}.edges.5" for part in (1, 3, 5)} <= set(fit.fits)


def test_a_file_of_which_nothing_fits_is_an_error() -> None:
    child = child_of("k3_e1 skip skip k3_e1 skip")
    with pytest.raises(HwnasError, match=r"none of those that fit this network: conv1.weight, fc.weight") as unknown:
        load_pretrained(child, {"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(2, 2)}, "resnet.pth")
    assert "torchvision" in (unknown.value.fix or "")
    wide = child_of("k3_e1 skip skip k3_e1 skip", channels=32, classes=7)
    with pytest.raises(
        HwnasError, match=r"no layer of wide.pth fits this network: parts.0.0, for one, weight is 8x3x3x3"
    ):
        load_pretrained(child, state_of(wide), "wide.pth")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


def test_files_of_weights_are_read_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = state_of(child_of("k3_e1 skip skip k3_e1 skip"))
    torch.save({"epoch": 3, "state_dict": state}, "checkpoint.pth")
    assert read_weights(Path("checkpoint.pth")).keys() == state.keys()
    torch.save({"weight": Harmful()}, "harmful.pth")
    with pytest.raises(HwnasError, match=r"harmful.pth is no torch file of tensors alone"):
        read_weights(Path("harmful.pth"))
    assert not Path("touched").exists()
    Path("torn.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(HwnasError, match=r"cannot read weights torn.safetensors"):
        read_weights(Path("torn.safetensors"))
    torch.save({"weight": torch.ones(1), "name": "x"}, "mixed.pt")
    with pytest.raises(HwnasError, match=r"mixed.pt holds no dictionary of tensors"):
        read_weights(Path("mixed.pt"))
    with pytest.raises(HwnasError, match=r"there is no file of weights none.pth"):
        read_weights(Path("none.pth"))
