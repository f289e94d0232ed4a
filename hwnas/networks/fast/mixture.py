"""A node's weighted sum over candidates by the compiled kernels, exact, with gradients.

    y = sum over terms k of w[k] * factor[k] * norm_k(z[k])

A term's z is a tensor (norm or not), or what a chain of ReLU, depthwise and pointwise convolutions makes of one. Batch
norms without learnt factors are no pass of their own: they are a scale and a shift a channel in the sum behind them, or
in the ReLU of the next block. Nor is average pooling, which is linear: the sum of all that is pooled is pooled once.
Only the z are kept for the gradient; what a block computes in between is computed again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.fast.kernels import Block as Sizes
from hwnas.networks.fast.kernels import Gradient, Norm, Plain, kernels


@dataclass(frozen=True)
class Block:
    """ReLU, depthwise convolution (or none), pointwise convolution; a batch norm follows."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.BatchNorm2d

    @property
    def weights(self) -> list[Tensor]:
        return [conv.weight for conv in (self.depthwise, self.pointwise) if conv is not None]

    def sizes(self, x: Tensor) -> Sizes:
        n, channels, height, width = x.shape
        stride, dilation, kernel = 1, 1, 0
        if self.depthwise is not None:
            stride, dilation = self.depthwise.stride[0], self.depthwise.dilation[0]
            kernel = self.depthwise.kernel_size[0]
        out = ((size + stride - 1) // stride for size in (height, width))
        return Sizes(n, height, width, channels, kernel, stride, dilation, *out, self.pointwise.out_channels)


@dataclass(frozen=True)
class Term:
    """One summand: a tensor [N, C, H, W], the blocks it goes through, the norm behind (that of the last block).

    One without blocks and norm may be ``pooled``: the 3x3 means of its pixels, a border of one pixel not counted.
    """

    value: Tensor
    blocks: tuple[Block, ...] = ()
    norm: nn.BatchNorm2d | None = None
    pooled: bool = False

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        own = [self.norm] if self.norm is not None and not self.blocks else []
        return [block.norm for block in self.blocks] + own

    @property
    def normed(self) -> bool:
        """Whether a norm is the last that it goes through."""
        return bool(self.blocks) or self.norm is not None


KINDS = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def usable(x: Tensor) -> bool:
    """Whether the kernels are there and are for this tensor."""
    return x.device.type == "cpu" and x.dtype in KINDS and kernels().library is not None


def mix(terms: Sequence[Term], weights: Tensor, factors: Tensor | None = None) -> Tensor:
    """The sum of ``terms``, weighed by ``weights`` [K] and, image by image, by ``factors`` [K, N].

    Norms take the batch's statistics and add them to their running ones. All terms have one shape, and those with a
    norm come first.
    """
    normed = [term.normed for term in terms]
    assert normed == sorted(normed, reverse=True)
    kept = {id(term.value): term.value for term in terms}
    types = {value.dtype for value in kept.values()}
    if torch.bfloat16 in types and (len(types) > 1 or any(term.blocks for term in terms)):
        kept = {key: value.float() for key, value in kept.items()}  # blocks know no bfloat16
    places = {key: place for place, key in enumerate(kept)}
    plan = [(places[id(term.value)], term.blocks, term.norm, term.pooled) for term in terms]
    tracked = [norm.num_batches_tracked for term in terms for norm in term.norms]
    if counts := [count for count in tracked if count is not None]:
        torch._foreach_add_(counts, 1)
    learnt = [weight for term in terms for block in term.blocks for weight in block.weights]
    return _Mix.apply(plan, len(kept), factors, weights, *kept.values(), *learnt)


@dataclass(frozen=True)
class _Step:
    """A block that has run, its tensors by their numbers among those that were saved."""

    sizes: Sizes
    x: int
    before: tuple[int, int] | None  # mean and 1 / deviation of a norm in front of the block
    depthwise: int | None
    pointwise: int
    z: int


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: list, count: int, factors: Tensor | None, weights: Tensor, *tensors: Tensor) -> Tensor:
        saved: list[Tensor] = [_rows(value) for value in tensors[:count]] + list(tensors[count:])
        dtype = saved[0].dtype
        small = torch.float32 if dtype == torch.bfloat16 else dtype
        place, blocks, *_ = plan[0]
        channels = blocks[-1].pointwise.out_channels if blocks else saved[place].shape[1]
        mean, rstd = torch.zeros(len(plan), channels, dtype=small), torch.ones(len(plan), channels, dtype=small)
        learnt = iter(range(count, len(tensors)))
        chains, outputs = [], []
        for k, (place, blocks, norm, _) in enumerate(plan):
            chain, x, before = [], place, None
            for number, block in enumerate(blocks):
                sizes = block.sizes(saved[x])
                depthwise = next(learnt) if block.depthwise is not None else None
                step = _Step(sizes, x, before, depthwise, next(learnt), len(saved))
                last = number == len(blocks) - 1
                after = [] if last else [torch.empty(sizes.out_channels, dtype=small) for _ in range(2)]
                where = (_row(mean, k), _row(rstd, k)) if last else map(_at, after)
                saved.append(_block_forward(step, saved, norm_of(block.norm, *where)))
                if not last:
                    before = len(saved), len(saved) + 1
                    saved += after
                x = step.z
                chain.append(step)
            if norm is not None and not blocks:
                _statistics(saved[x], norm_of(norm, _row(mean, k), _row(rstd, k)))
            chains.append((place, chain))
            outputs.append(x)
        w, factors = weights.detach().to(small), None if factors is None else factors.to(small)
        scale = w[:, None] * rstd
        pooled = [int(row[3]) for row in plan]
        y = _weighted_sum([saved[z] for z in outputs], factors, pooled, scale, -scale * mean)
        ctx.save_for_backward(w, factors, mean, rstd, *saved)
        ctx.chains, ctx.outputs, ctx.count, ctx.dtype = chains, outputs, count, weights.dtype
        ctx.normed = sum(bool(blocks) or norm is not None for _, blocks, norm, _ in plan)
        ctx.plain = _by_place([(k, plan[k][0], pooled[k]) for k in range(ctx.normed, len(plan))])
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _require_first_order()
        w, factors, mean, rstd, *saved = ctx.saved_tensors
        g = _rows(g.to(saved[ctx.outputs[0]].dtype))
        found: list[Tensor | None] = [None] * len(saved)
        dw = torch.empty_like(w)
        if ctx.plain:
            dw[ctx.normed :] = _plain_gradients(ctx.plain, w, factors, saved, g, found)
        if normed := ctx.normed:
            w, mean, rstd = w[:normed], mean[:normed], rstd[:normed]
            slope = _slopes([saved[z] for z in ctx.outputs[:normed]], factors, mean, g)
            dw[:normed] = (rstd * slope[:, 1]).sum(dim=1)
            scales = _through_norm(w[:, None], mean, rstd, slope, g.shape[0] * g.shape[2] * g.shape[3])
            direct: list[tuple[_Source, int]] = []  # gradients of what no block is in front of, and where they go
            teach = any(ctx.needs_input_grad[4 + ctx.count :])
            for k, (place, chain) in enumerate(ctx.chains[:normed]):
                source = _Source(g, saved[ctx.outputs[k]], factors, *scales, k)
                for step in reversed(chain):
                    source = _block_backward(step, source, saved, found, teach)
                if not chain:
                    direct.append((source, place))
            _gradients(direct, found)
        return None, None, None, dw.to(ctx.dtype), *found[: len(ctx.needs_input_grad) - 4]


def _by_place(plain: list[tuple[int, int, int]]) -> list[tuple[int, list[int | None]]]:
    """Terms (number, place, pooled) by their places: of each at most one that is not pooled, and one that is."""
    found: list[tuple[int, list[int | None]]] = []
    for k, place, pooled in plain:
        free = next((pair for other, pair in found if other == place and pair[pooled] is None), None)
        if free is None:
            free = [None, None]
            found.append((place, free))
        free[pooled] = k
    return found


@dataclass(frozen=True)
class _Source:
    """The gradient of a z as a * factor * g + b * z + c, from one row of factors [K, N], and of a, b and c [K, C]."""

    g: Tensor
    z: Tensor
    factors: Tensor | None
    a: Tensor
    b: Tensor
    c: Tensor
    row: int = 0

    def struct(self) -> Gradient:
        rest = (_row(v, self.row) for v in (self.factors, self.a, self.b, self.c))
        return Gradient(_at(self.g), _at(self.z), _stride(self.g), _stride(self.z), *rest)


def _through_norm(
    weight: Tensor | float, mean: Tensor, rstd: Tensor, slope: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and c of the gradient in front of a batch norm weighed by ``weight``, from the sums of what comes back."""
    a = weight * rstd
    b = -a * rstd * rstd * slope[..., 1, :] / count
    return a, b, -a * slope[..., 0, :] / count - b * mean


def norm_of(norm: nn.BatchNorm2d, mean: int, rstd: int) -> Any:
    """A batch norm for the kernels, with where its statistics go; its batch is counted already."""
    momentum = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)  # type: ignore[arg-type]
    running = _at(norm.running_mean), _at(norm.running_var)
    return ctypes.byref(Norm(mean, rstd, *running, norm.eps, momentum))


def _block_forward(step: _Step, saved: list[Tensor], norm: Any) -> Tensor:
    x, s = saved[step.x], step.sizes
    z = _empty(x, s.out_channels, s.out_height, s.out_width)
    before = [saved[v] for v in step.before] if step.before else [None, None]
    depthwise = None if step.depthwise is None else saved[step.depthwise]
    kernel = map(_at, (*before, depthwise, saved[step.pointwise]))
    _call("block_forward", x.dtype, _at(x), _stride(x), *kernel, ctypes.byref(s), _at(z), norm)
    return z


def _block_backward(
    step: _Step, source: _Source, saved: list[Tensor], found: list[Tensor | None], teach: bool
) -> _Source:
    """Puts the gradients into ``found``; where a norm is in front, returns what its block has to start from."""
    x, s = saved[step.x], step.sizes
    before = [saved[v] for v in step.before] if step.before else [None, None]
    slope = None if step.before is None else torch.empty(2, s.channels, dtype=x.dtype)
    weights = [None if n is None else saved[n] for n in (step.depthwise, step.pointwise)]
    taught = [torch.empty_like(v) if teach and v is not None else None for v in weights]
    add = step.before is None and found[step.x] is not None
    gx = found[step.x] if add else _empty(x, *x.shape[1:])
    start: Any = ctypes.byref(source.struct())
    _call(
        *("block_backward", x.dtype, start, _at(x), _stride(x), *map(_at, (*before, *weights))),
        *(ctypes.byref(s), _at(gx), int(add), *map(_at, (slope, *taught))),
    )
    for number, value in zip((step.depthwise, step.pointwise), taught, strict=True):
        if number is not None:
            found[number] = value
    assert gx is not None
    if slope is None:
        found[step.x] = gx
        return source
    mean, rstd = before
    assert mean is not None
    assert rstd is not None
    a, b, c = _through_norm(1.0, mean, rstd, slope, s.images * s.height * s.width)
    return _Source(gx, x, None, a, b, c)


def _statistics(z: Tensor, norm: Any) -> None:
    _call("statistics", z.dtype, _at(z), _stride(z), *_images(z), norm)


def _weighted_sum(
    terms: list[Tensor], factors: Tensor | None, pooled: list[int], scale: Tensor, shift: Tensor
) -> Tensor:
    y = _empty(terms[0], *terms[0].shape[1:])
    which = (ctypes.c_long * len(pooled))(*pooled)
    _call("weighted_sum", y.dtype, *_arrays(terms, factors), which, _at(scale), _at(shift), *_sizes(y), _at(y))
    return y


def _slopes(terms: list[Tensor], factors: Tensor | None, mean: Tensor, g: Tensor) -> Tensor:
    """[K, 2, C]: the sums of g, and of g * (z - mean), the factors included."""
    slope = mean.new_empty(len(terms), 2, g.shape[1])
    where = _at(mean), _at(g), _stride(g)
    _call("slopes", g.dtype, *_arrays(terms, factors), *where, *_images(g), _at(slope))
    return slope


def _gradients(sources: list[tuple[_Source, int]], found: list[Tensor | None]) -> None:
    """Puts, or adds, the gradients of the z into ``found``, at the places that go with them."""
    if not sources:
        return
    count, z = len(sources), sources[0][0].z
    from_ = (Gradient * count)(*(source.struct() for source, _ in sources))
    taken = [_taken(found, place, source.z) for source, place in sources]
    out = (ctypes.c_void_p * count)(*(_at(gx) for gx, _ in taken))
    add = (ctypes.c_long * count)(*(add for _, add in taken))
    _call("gradients", z.dtype, count, from_, out, add, *_images(z))


def _plain_gradients(
    plain: list[tuple[int, list[int | None]]],
    w: Tensor,
    factors: Tensor | None,
    saved: list[Tensor],
    g: Tensor,
    found: list[Tensor | None],
) -> Tensor:
    """Puts the gradients of terms without norms into ``found``; those of their weights, in the terms' order."""
    rows, weights = [], w.tolist()
    for place, pair in plain:
        gx, add = _taken(found, place, saved[place])
        factor = [0 if k is None else _row(factors, k) for k in pair]
        which, weight = [int(k is not None) for k in pair], [0.0 if k is None else weights[k] for k in pair]
        where = _at(saved[place]), _at(gx), _stride(saved[place])
        rows.append(Plain(*where, add, tuple(which), tuple(weight), tuple(factor)))
    dot = w.new_empty(len(plain), 2)
    terms = len(plain), (Plain * len(plain))(*rows)
    _call("plain_gradients", g.dtype, *terms, _at(g), _stride(g), *_sizes(g), _at(dot))
    order = [(k, row, j) for row, (_, pair) in enumerate(plain) for j, k in enumerate(pair) if k is not None]
    return dot.flatten()[[2 * row + j for _, row, j in sorted(order)]]


def _taken(found: list[Tensor | None], place: int, like: Tensor) -> tuple[Tensor, int]:
    """The gradient at a place, made if there is none yet, and whether there was."""
    gx = found[place]
    if gx is not None:
        return gx, 1
    gx = found[place] = _empty(like, *like.shape[1:])
    return gx, 0


class _Branches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, straight: int, rectified: int) -> tuple[Tensor, ...]:
        x = _rows(x)
        ctx.save_for_backward(x)
        ctx.straight = straight
        ctx.set_materialize_grads(False)
        y = x.relu() if rectified else x
        return *(x.detach() for _ in range(straight)), *(y.detach() for _ in range(rectified))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        _require_first_order()
        (x,) = ctx.saved_tensors
        straight, rectified = (
            [_rows(g) for g in some if g is not None] for some in (gradients[: ctx.straight], gradients[ctx.straight :])
        )
        terms = straight + rectified
        if len(terms) < 2 and not rectified:
            return terms[0] if terms else None, None, None
        gx = _empty(x, *x.shape[1:])
        count, where, strides, _ = _arrays(terms, None)
        rest = len(rectified), _at(x), _stride(x), *_images(x), _at(gx)
        _call("gather", x.dtype, count, where, strides, *rest)
        return gx, None, None


def branches(x: Tensor, straight: int, rectified: int) -> tuple[list[Tensor], list[Tensor]]:
    """x [N, C, H, W], and its ReLU, as often as asked, each for one reader: their gradients are added in one pass."""
    found = list(_Branches.apply(x, straight, rectified))
    return found[:straight], found[straight:]


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: bool, stride: int) -> Tensor:
        x = _rows(x)
        size = [(length + stride - 1) // stride for length in x.shape[2:]]
        y = _empty(x, x.shape[1], *size)
        ctx.save_for_backward(x)
        ctx.options = int(most), stride
        _call("pool_forward", x.dtype, int(most), _at(x), _stride(x), *_sizes(x), stride, *size, _at(y))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _require_first_order()
        (x,), (most, stride) = ctx.saved_tensors, ctx.options
        g, gx = _rows(g), _empty(x, *x.shape[1:])
        images = _at(x), _stride(x), _at(g), _stride(g)
        _call("pool_backward", x.dtype, most, *images, *_sizes(x), stride, *g.shape[2:], _at(gx))
        return gx, None, None


def pool(x: Tensor, layer: nn.MaxPool2d | nn.AvgPool2d) -> Tensor:
    """3x3 pooling with a border of one pixel that does not count."""
    return _Pool.apply(x, isinstance(layer, nn.MaxPool2d), layer.stride)


def _require_first_order() -> None:
    """Gradients of gradients would be silently wrong."""
    if torch.is_grad_enabled():
        raise HwnasError("compiled kernels have no second derivatives", "use --kernels torch")


def _call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    getattr(kernels().library, f"{name}_{KINDS[dtype]}")(*arguments, torch.get_num_threads())


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _row(tensor: Tensor | None, number: int) -> int:
    """Where a row of a contiguous one begins."""
    return 0 if tensor is None else tensor.data_ptr() + number * tensor.stride(0) * tensor.element_size()


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    size = like.shape[0], channels, height, width
    return torch.empty(size, dtype=like.dtype, memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    """Channels last, where pixels may lie further apart than their channels take (a slice of a wider tensor)."""
    _, channels, height, width = x.shape
    image, channel, line, pixel = x.stride()
    dense = channel == 1 and pixel >= channels and line == width * pixel and image == height * line
    return x if dense else torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last).copy_(x)


def _stride(x: Tensor) -> int:
    return x.stride(3)


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    n, channels, height, width = x.shape
    return n, height, width, channels


def _images(x: Tensor) -> tuple[int, int, int]:
    n, channels, height, width = x.shape
    return n, height * width, channels


def _arrays(terms: list[Tensor], factors: Tensor | None) -> tuple[Any, ...]:
    """How many, and where they, their rows and their factors are."""
    count = len(terms)
    where = (ctypes.c_void_p * count)(*map(_at, terms))
    strides = (ctypes.c_long * count)(*map(_stride, terms))
    rows = (ctypes.c_void_p * count)(*(_row(factors, k) for k in range(count)))
    return count, where, strides, rows
