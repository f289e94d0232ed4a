"""Gradient estimators, compared with enumeration, finite differences or closed forms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hwnas.compute.seeds import Purpose
from hwnas.networks.mixed_cell import Mixed
from hwnas.recipe import read_recipe
from hwnas.search.axes import BatchResult
from hwnas.search.distribution import Draw, DrawContext, one_hot
from hwnas.search.evaluation import batch_statistics
from hwnas.search.lagrangian import relative_costs
from hwnas.search.methods.advantagenas import Advantage
from hwnas.search.methods.darts import Unrolled
from hwnas.search.methods.drnas import DirichletEdges, DirichletKL
from hwnas.search.methods.enas import Controller, Reinforce
from hwnas.search.search import Search
from hwnas.spaces import SPACES, CellInstance
from support.searches import make_search

NB201 = SPACES["nasbench201"]
THREE = ("none", "skip_connect", "nor_conv_1x1")  # of nasbench201's five operations these
OTHERS = tuple(op for op in NB201.operations if op not in THREE)


def searching(method: str, space: str = "nasbench201", **changes: object) -> Search:
    """Return a new search of a method, with logits and weights in float64, without warm-up and penalty."""
    folder = "short" if space == "nasbench201" else space
    quiet = {"batch_size": 8, "logits_warm_up": 0.0, "penalty.mode": "fixed", "penalty.weight": 0.0}
    search = make_search(space, read_recipe(f"{folder}/{method}", {**quiet, **changes}))
    search.supernet.double().train()
    target = search.targets[0]
    target.distribution.double()
    for number, values in enumerate(target.logits.values()):
        generator = torch.Generator().manual_seed(number)
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    search.targets[0].optimizer.optimizer.param_groups[0]["params"] = target.parameters  # type: ignore[union-attr]
    return search


def without_steps(search: Search) -> Search:
    """Let the logits' steps do nothing, so that gradients can be read."""
    search.current_step.step_logits = lambda target: None  # type: ignore[method-assign]
    return search


def finite_difference(function: Callable[[], float], values: Tensor, index: tuple[int, ...], step: float) -> float:
    both = []
    for sign in (1, -1):
        with torch.no_grad():
            values[index] += sign * step
        both.append(function())
        with torch.no_grad():
            values[index] -= sign * step
    return (both[0] - both[1]) / (2 * step)


def finite_differences(function: Callable[[], float], values: Tensor, step: float) -> np.ndarray:
    """Return the finite difference by every entry of ``values``."""
    found = np.zeros(values.shape)
    for index in np.ndindex(*values.shape):
        found[index] = finite_difference(function, values, index, step)
    return found


# AdvantageNAS, on a loss that is linear in every edge's output: a polynomial of the gates without squares.


class Toy:
    """L(Z) = sum of c[e, k] Z[e, k] + sum over pairs of edges of Z[e] M Z[f]; ``none`` may contribute nothing."""

    def __init__(self, none_gives_nothing: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        self.alone = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        self.pairs = 0.3 * torch.randn(6, 5, 6, 5, generator=generator, dtype=torch.float64)
        for e in range(6):
            self.pairs[e, :, : e + 1] = 0
        if none_gives_nothing:
            none = NB201.operations.index("none")
            self.alone[:, none] = 0
            self.pairs[:, none] = 0
            self.pairs[:, :, :, none] = 0

    def __call__(self, z: Tensor) -> Tensor:
        return (self.alone * z).sum() + torch.einsum("ek,ekfl,fl->", z, self.pairs, z)


def estimates(search: Search, toy: Toy, before: Callable[[], None]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probability [N] and the estimator's gradient [N, 6, 5] of every architecture over three operations,
    and the exact gradient of the expected loss, the derivative of the sum of P(Z) L(Z).
    """
    target = without_steps(search).targets[0]
    search.current_step.task_loss = lambda target, draw, part: BatchResult(toy(draw.mixture["cell"]), 0)  # type: ignore[method-assign]
    columns = [NB201.operations.index(op) for op in THREE]
    logits = target.logits["cell"]
    p = torch.softmax(logits[:, columns], dim=1)
    chosen = torch.tensor(list(product(range(3), repeat=6)))
    probability = p[torch.arange(6), chosen].prod(dim=1)
    z = torch.nn.functional.one_hot(torch.tensor(columns)[chosen], 5).double()
    expected = (probability * torch.stack([toy(one) for one in z])).sum()
    exact = torch.autograd.grad(expected, logits)[0]
    found = []
    for one in z:
        search.current_step.draw = lambda target, purpose, one=one: Draw({"cell": one}, {"cell": one.argmax(-1)})  # type: ignore
        logits.grad = None
        before()
        search.learning._logits_step(search.current_step, target)
        found.append(logits.grad)
    assert abs(float(probability.sum().detach()) - 1) < 1e-12
    return probability.detach(), torch.stack(found), exact


@pytest.mark.parametrize("baseline", ["none", "edge"])
def test_advantage_estimates_the_gradient_without_bias(baseline: str) -> None:
    """A baseline that does not depend on the draw adds no bias."""
    search = searching("advantagenas", without=OTHERS)
    search.learning = Advantage(baseline=baseline)  # type: ignore[arg-type]
    means = torch.linspace(-1, 1, 6, dtype=torch.float64)

    def before() -> None:
        search.targets[0].memory["advantage_cell"] = means.clone()

    probability, found, exact = estimates(search, Toy(none_gives_nothing=True), before)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(torch.einsum("n,nek->ek", probability, found), exact, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_advantage_varies_less_than_the_score_function() -> None:
    """The score function gets the exact mean loss as its baseline, the limit of a moving average."""
    toy, totals = Toy(none_gives_nothing=False), {}
    for credit in ("edge", "loss"):
        search = searching("advantagenas", without=OTHERS)
        search.learning = Advantage(credit=credit)  # type: ignore[arg-type]
        memory = search.targets[0].memory
        p = search.targets[0].distribution.probabilities()["cell"].detach()
        mean = toy(p)  # E[L], for edges are independent and no product has an edge twice

        def before(memory: dict[str, Tensor] = memory, mean: Tensor = mean) -> None:
            memory["loss"] = mean

        probability, found, exact = estimates(search, toy, before)
        average = torch.einsum("n,nek->ek", probability, found)
        torch.testing.assert_close(average, exact, atol=1e-12, rtol=0)  # both are unbiased
        totals[credit] = float((probability[:, None, None] * (found - average) ** 2).sum())
    assert totals["edge"] < 0.5 * totals["loss"]


def test_the_score_function_remembers_the_mean_loss() -> None:
    search = without_steps(searching("advantagenas"))
    search.learning = Advantage(credit="loss")
    losses = iter([3.0, 5.0, 1.0])
    search.current_step.task_loss = lambda target, draw, part: BatchResult(  # type: ignore[method-assign]
        next(losses) + 0 * draw.mixture["cell"].sum(), 0
    )
    for mean in (3.0, 3.0 + 0.05 * 2, 3.1 + 0.05 * (1 - 3.1)):
        search.learning._logits_step(search.current_step, search.targets[0])
        assert float(search.targets[0].memory["loss"].detach()) == pytest.approx(mean)


@pytest.mark.slow
@pytest.mark.parametrize("space", sorted(SPACES))
def test_the_advantage_of_an_edge_is_the_slope_of_its_gate(space: str) -> None:
    """In the real supernet, the logits' gradient over a - p is the finite difference of the loss by the gate."""
    search = without_steps(searching("advantagenas", space))
    target = search.targets[0]
    draw = search.current_step.draw(target, Purpose.LOGITS_DRAW)
    search.learning._logits_step(search.current_step, target)

    def loss() -> float:
        with torch.no_grad():
            return float(search.current_step.task_loss(target, draw, "logits").task)

    p, checked = target.distribution.probabilities(), 0
    for kind, a in draw.mixture.items():
        by_edge = target.logits[kind].grad / (a - p[kind]).detach()
        for e, k in enumerate(a.argmax(dim=-1).tolist()):
            expected = finite_difference(loss, a, (e, k), 1e-6)
            allowed = target.distribution.allowed(kind)[e]
            assert by_edge[e, allowed].tolist() == pytest.approx([expected] * int(allowed.sum()), rel=1e-4, abs=1e-8)
            checked += abs(expected) > 1e-4
    assert checked > 3


def test_a_drawn_none_gets_the_worst_credit_of_its_edge() -> None:
    """Compare with moving averages of the slopes, each updated when its operation was drawn, computed by hand."""
    search = without_steps(searching("advantagenas", without=()))
    search.learning = Advantage(zero_credit=True)
    target, toy, none = search.targets[0], Toy(none_gives_nothing=True), NB201.operations.index("none")
    search.current_step.task_loss = lambda target, draw, part: BatchResult(toy(draw.mixture["cell"]), 0)  # type: ignore[method-assign]
    p = target.distribution.probabilities()["cell"].detach()
    table = np.zeros((6, 5))
    generator = torch.Generator().manual_seed(1)
    seen = 0
    for _ in range(12):
        a = torch.nn.functional.one_hot(torch.randint(5, (6,), generator=generator), 5).double()
        search.current_step.draw = lambda target, purpose, a=a: Draw({"cell": a}, {"cell": a.argmax(-1)})  # type: ignore
        target.logits["cell"].grad = None
        search.learning._logits_step(search.current_step, target)
        slopes = finite_differences(lambda a=a: float(toy(a)), a, 1e-3)  # type: ignore[misc]
        for e, k in enumerate(a.argmax(dim=-1).tolist()):
            table[e, k] += 0.05 * (slopes[e, k] - table[e, k])
            credit = max(table[e, o] for o in range(5) if o != none) if k == none else slopes[e, k]
            seen += k == none
            got = target.logits["cell"].grad[e]
            assert got.tolist() == pytest.approx((credit * (a - p)[e]).tolist(), abs=1e-7)
    assert seen > 5


# DARTS.


def test_first_order_is_the_gradient_of_the_validation_loss() -> None:
    """Compare with finite differences at fixed weights; the step of the weights reads other images."""
    search = without_steps(searching("darts"))
    target = search.targets[0]

    def loss() -> float:
        with torch.no_grad():
            p = torch.softmax(target.logits["cell"], dim=-1)
            images, classes = search.data.train_batch(0, 8, search.recipe.seed, search.batches["logits"].subset)
            return float(
                torch.nn.functional.cross_entropy(search.supernet(images.double(), {"cell": Mixed(p)}), classes)
            )

    logits = target.logits["cell"]
    expected = finite_differences(loss, logits, 1e-6)
    search.current_step.weights_step = lambda target: None  # type: ignore
    search.learning.learn(search.current_step, target)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-4, atol=1e-8)
    assert not set(search.batches["logits"].subset.tolist()) & set(search.batches["weights"].subset.tolist())  # type: ignore[union-attr]


def test_second_order_is_the_gradient_through_a_step_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with L_val(w - xi (momentum + grad + decay w), alpha), written here and differentiated twice by autograd.

    The method's finite difference uses a short step here: the published one, meant for float32, is long.
    """
    monkeypatch.setattr("hwnas.search.methods.darts.LENGTH", 1e-6)
    search = searching("darts-second")
    for _ in range(3):  # so that there is momentum
        search.take_step()
    target, settings = search.targets[0], search.recipe.weights
    without_steps(search)
    logits, weights = target.logits["cell"], list(search.supernet.parameters())
    kept = {name: value.clone() for name, value in search.supernet.named_parameters()}
    momentum = [search.supernet_state.weights.optimizer.state[w]["momentum_buffer"].clone() for w in weights]
    rate = search.supernet_state.weights.optimizer.param_groups[0]["lr"]

    def cross_entropy(part: str, parameters: dict[str, Tensor] | None = None) -> Tensor:
        images, classes = search.data.train_batch(search.step, 8, search.recipe.seed, search.batches[part].subset)
        inputs = images.double(), {"cell": Mixed(torch.softmax(logits, dim=-1))}
        scores = torch.func.functional_call(search.supernet, parameters or {}, inputs)
        return torch.nn.functional.cross_entropy(scores, classes)

    slopes = torch.autograd.grad(cross_entropy("weights"), weights, create_graph=True)
    ahead = {
        name: w.detach() - rate * (settings.momentum * m + slope + settings.weight_decay * w.detach())
        for (name, w), slope, m in zip(search.supernet.named_parameters(), slopes, momentum, strict=True)
    }
    exact = torch.autograd.grad(cross_entropy("logits", ahead), logits)[0]
    search.current_step.zero_grad(target)
    assert isinstance(search.learning, Unrolled)
    search.learning._gradients(search.current_step, target)
    assert all(torch.equal(value, kept[name]) for name, value in search.supernet.named_parameters())
    first = torch.autograd.grad(cross_entropy("logits"), logits)[0]
    beyond = torch.linalg.vector_norm(exact - first)
    assert beyond > 0.02 * torch.linalg.vector_norm(exact)  # the second order is no rounding error
    assert torch.linalg.vector_norm(logits.grad - exact) < 1e-5 * beyond


# ENAS.


def forced(monkeypatch: pytest.MonkeyPatch, sequences: Tensor) -> None:
    """Let the controller choose ``sequences`` [N, E], whatever its probabilities."""
    steps = iter(range(10**9))

    def multinomial(p: Tensor, number: int, generator: torch.Generator) -> Tensor:
        return sequences[:, next(steps) % sequences.shape[1]][:, None]

    monkeypatch.setattr(torch, "multinomial", multinomial)


TWO = [NB201.operations.index(op) for op in ("skip_connect", "nor_conv_3x3")]
SEQUENCES = torch.tensor(list(product(TWO, repeat=6)))
NOT_TWO = tuple(op for o, op in enumerate(NB201.operations) if o not in TWO)


def test_reinforce_estimates_the_gradient_of_the_expected_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expectation over all 64 sequences of the gradient of a step with one sequence is minus the finite difference
    of E[R], where R includes the cost of the architecture, as in the module's equation.
    """
    search = without_steps(searching("enas", without=NOT_TWO, **{"penalty.weight": 0.7}))
    search.learning = Reinforce(samples=1)
    target = search.targets[0]
    controller = target.distribution
    assert isinstance(controller, Controller)
    for parameter in controller.parameters():  # from ones that tell operations apart
        parameter.data = 10 * parameter.data
    right = np.random.default_rng(0).integers(0, 9, len(SEQUENCES))
    number = {tuple(s): n for n, s in enumerate(SEQUENCES.tolist())}
    search.current_step.task_loss = lambda target, draw, part: BatchResult(  # type: ignore[method-assign]
        torch.zeros(()), int(right[number[tuple(draw.chosen["cell"].tolist())]])
    )
    forced(monkeypatch, SEQUENCES)

    def probabilities() -> Tensor:
        with torch.no_grad():
            return controller.sample(len(SEQUENCES), torch.Generator())[2].exp()

    with torch.no_grad():
        p = controller.sample(len(SEQUENCES), torch.Generator())[1]["cell"]
    entropy = -(p.clamp_min(1e-30).log() * p).sum(dim=(1, 2))
    relative = [
        float(relative_costs({"cell": one_hot(s, p)}, target.expected, target.objective.penalised)[0])
        for s in SEQUENCES
    ]
    rewards = torch.tensor(right / 8 - 0.7 * (np.array(relative) - 1)) + 1e-4 * entropy
    assert np.ptp(relative) > 0.1
    weight = probabilities()
    assert float(weight.sum()) == pytest.approx(1, abs=1e-12)

    estimate = {name: torch.zeros_like(value) for name, value in controller.named_parameters()}
    for n in range(len(SEQUENCES)):
        forced(monkeypatch, SEQUENCES[n : n + 1])
        target.memory["reward"] = torch.tensor(0.25)
        search.learning._controller_step(search.current_step, target)
        for name, value in controller.named_parameters():
            estimate[name] += weight[n] * value.grad  # type: ignore[operator]
        assert float(target.memory["reward"]) == pytest.approx(0.25 + 0.01 * (float(rewards[n]) - 0.25), abs=1e-6)
    forced(monkeypatch, SEQUENCES)
    places = {"head.bias": (TWO[0],), "lstm.weight_hh": (40, 7), "lstm.bias_ih": (70,), "embedding.weight": (TWO[1], 5)}
    for name, index in places.items():
        parameter = controller.get_parameter(name)
        exact = finite_difference(lambda: float((probabilities() * rewards).sum()), parameter, index, 1e-5)
        assert float(estimate[name][index]) == pytest.approx(-exact, rel=1e-4, abs=1e-8)
        assert abs(exact) > 1e-7


@pytest.mark.parametrize(("space", "inputs"), [("nasbench201", None), ("nasbench201", 1), ("darts", 2)])
def test_log_probability_of_the_controller_is_the_product_of_its_conditionals(space: str, inputs: int | None) -> None:
    recipe = read_recipe("short/enas", {"inputs_per_node": inputs})
    controller = Controller(SPACES[space], recipe, torch.Generator().manual_seed(0)).double()
    for parameter in controller.parameters():
        parameter.data = 10 * parameter.data
    with torch.no_grad():
        chosen, conditional, log_p = controller.sample(200, torch.Generator().manual_seed(0))
    total = np.zeros(200)
    for kind, cell in SPACES[space].cells.items():
        p = conditional[kind].numpy()
        np.testing.assert_allclose(p.sum(axis=2), 1)
        total += np.log(np.take_along_axis(p, chosen[kind].numpy()[:, :, None], axis=2)).sum(axis=(1, 2))
        used = chosen[kind].numpy() != SPACES[space].operations.index("none")
        if inputs is not None:
            for node in cell.inner_nodes:
                assert (used[:, cell.edges_into(node)].sum(axis=1) == inputs).all()
    np.testing.assert_allclose(log_p.numpy(), total, rtol=1e-9)


# GDAS.


def test_straight_through_is_one_hot_with_the_gradient_of_the_relaxed_sample() -> None:
    search = searching("gdas")
    distribution = search.targets[0].distribution
    logits, temperature = search.targets[0].logits["cell"], 2.5
    worth = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draw = distribution.draw(DrawContext(torch.Generator().manual_seed(4), temperature))
    z = draw.mixture["cell"]
    torch.testing.assert_close(z.detach(), one_hot(draw.chosen["cell"], z), atol=1e-15, rtol=0)  # type: ignore[index]
    (worth * z).sum().backward()
    uniform = torch.rand(6, 5, generator=torch.Generator().manual_seed(4)).double()

    def soft() -> float:
        scores = (
            logits.detach() - torch.logsumexp(logits.detach(), 1, True) - torch.log(-torch.log(uniform))
        ) / temperature
        assert torch.equal(scores.argmax(dim=1), draw.chosen["cell"])  # type: ignore[index]
        return float((worth * torch.softmax(scores, dim=1)).sum())

    expected = finite_differences(soft, logits.data, 1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-6, atol=1e-9)


class Ones(nn.Module):
    """An operation with an output of ones."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(self.operation(x))


@pytest.mark.parametrize("space", sorted(SPACES))
def test_ghosts_learn_as_if_their_outputs_were_ones(space: str) -> None:
    """The gradient of an operation that does not run is that of one that runs and outputs ones, also where ``none`` was
    drawn; the loss and the gradients of operations that run do not change.
    """
    search = searching("gdas", space)
    supernet, target = search.supernet, search.targets[0]
    kind, none = next(iter(search.space.cells)), search.space.operations.index("none")
    chosen = target.distribution.draw(DrawContext(torch.Generator().manual_seed(0), 1.0)).chosen
    assert chosen is not None
    chosen[kind][1] = none
    weights = {k: one_hot(c, target.logits[k]).requires_grad_() for k, c in chosen.items()}
    images, classes = search.data.train_batch(0, 8, 0)

    def loss(active: dict[str, list[list[int]]], ghosts: bool) -> Tensor:
        mixture = {k: Mixed(w, active[k], ghosts=ghosts) for k, w in weights.items()}
        return torch.nn.functional.cross_entropy(supernet(images.double(), mixture), classes)

    alone = {k: [[o] for o in c.tolist()] for k, c in chosen.items()}
    plain, haunted = loss(alone, False), loss(alone, True)
    torch.testing.assert_close(haunted, plain, atol=1e-12, rtol=0)
    slopes = torch.autograd.grad(haunted, weights[kind])[0]
    before = torch.autograd.grad(plain, weights[kind])[0]
    both = {k: [row.copy() for row in rows] for k, rows in alone.items()}
    for e, k in enumerate(chosen[kind].tolist()):
        other = next(o for o in range(len(search.space.operations)) if o not in (k, none))
        both[kind][e].append(other)
        for part, cell in zip(supernet.network.parts, supernet.parts, strict=True):
            if isinstance(part, CellInstance) and part.kind == kind:
                op = search.space.operations[other]
                cell.edges[e][op] = Ones(cell.candidate(e, op))  # type: ignore[index,operator]
    expected = torch.autograd.grad(loss(both, False), weights[kind])[0]
    for e, (k, other) in enumerate(both[kind]):
        assert float(slopes[e, k]) == pytest.approx(float(before[e, k]), abs=1e-12)
        others = [o for o in range(len(search.space.operations)) if o != k]
        assert slopes[e, others].tolist() == pytest.approx([float(expected[e, other])] * len(others), abs=1e-10)
    assert (slopes.abs().sum(dim=1) > 1e-9).all()


# DrNAS.

ETA = torch.tensor([1.2, -0.4, 0.3, 0.0, 2.0], dtype=torch.float64)


def dirichlet(rows: int, eta: Tensor = ETA) -> DirichletEdges:
    """Return the same Dirichlet distribution on ``rows`` edges."""
    edges = DirichletEdges(NB201, read_recipe("short/drnas", {}), torch.Generator())
    edges.logits["cell"] = torch.nn.Parameter(eta.repeat(rows, 1))
    edges.allowed_cell = edges.allowed_cell[:1].expand(rows, -1).clone()
    return edges


def test_the_pathwise_gradient_of_dirichlet_samples_is_that_of_the_expectation() -> None:
    """Compare for a quadratic f, whose expectation follows from the first and second moments in closed form."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    linear = torch.randn(5, generator=generator, dtype=torch.float64)
    eta = ETA.clone().requires_grad_()
    beta = torch.where(eta > 0, eta + 1, eta.exp())  # elu + 1
    mean = beta / beta.sum()
    covariance = (torch.diag(mean) - torch.outer(mean, mean)) / (beta.sum() + 1)
    expectation = ((covariance + torch.outer(mean, mean)) * square).sum() + mean @ linear
    exact = torch.autograd.grad(expectation, eta)[0]
    edges = dirichlet(60_000)
    theta = edges.draw(DrawContext(torch.Generator().manual_seed(1))).mixture["cell"]
    f = torch.einsum("nk,kl,nl->n", theta, square, theta) + theta @ linear
    slopes = torch.autograd.grad(f.sum(), edges.logits["cell"])[0]
    error = slopes.std(dim=0) / len(slopes) ** 0.5
    assert ((slopes.mean(dim=0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 10 * error).any()
    f, within = f.detach(), 4 * float(f.detach().std()) / len(f) ** 0.5
    assert float(f.mean()) == pytest.approx(float(expectation.detach()), abs=within)


def test_the_distance_of_a_dirichlet_distribution_from_the_uniform_one() -> None:
    """KL(Dir(beta) || Dir(1)) = -entropy(Dir(beta)) - log Gamma(K), the entropy by scipy."""
    edges = dirichlet(6)
    logits = edges.logits["cell"]

    def kl() -> float:
        rows = [stats.dirichlet(np.where(eta > 0, eta + 1, np.exp(eta))) for eta in logits.detach().numpy()]
        return sum(-row.entropy() - np.log(24) for row in rows)

    value = DirichletKL(weight=0.3)(edges, 0.5)
    value.backward()
    assert value.item() == pytest.approx(0.3 * kl())
    for k in range(5):
        expected = 0.3 * finite_difference(kl, logits.data, (2, k), 1e-6)
        assert float(logits.grad[2, k]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert DirichletKL()(dirichlet(6, torch.zeros(5, dtype=torch.float64)), 0.0).item() == pytest.approx(0, abs=1e-12)


def test_pruned_operations_are_never_drawn_and_the_others_sum_to_one() -> None:
    """The remaining entries of a Dirichlet sample, scaled, are a Dirichlet sample."""
    edges = dirichlet(5000)
    edges.prune(3)
    left = sorted(np.argsort(ETA.numpy())[-3:].tolist())
    theta = edges.draw(DrawContext(torch.Generator().manual_seed(2))).mixture["cell"].detach()
    assert (theta > 0).all(dim=0).nonzero().flatten().tolist() == left
    assert not theta[:, [k for k in range(5) if k not in left]].any()
    torch.testing.assert_close(theta.sum(dim=1), torch.ones(5000, dtype=torch.float64))
    beta = np.where(ETA > 0, ETA + 1, ETA.exp())[left]
    for number, k in enumerate(left):
        other = beta.sum() - beta[number]
        assert stats.kstest(theta[:, k].numpy(), stats.beta(beta[number], other).cdf).pvalue > 1e-3
    p = edges.probabilities()["cell"].detach()[0]
    np.testing.assert_allclose(p[left].numpy(), beta / beta.sum())
    assert int((p > 0).sum()) == 3


def test_validation_statistics_do_not_disturb_the_estimators() -> None:
    """Losses in training and with validation's batch statistics are equal."""
    search = searching("darts")
    target = search.targets[0]
    with torch.no_grad(), batch_statistics(search.supernet):
        judged = float(search.current_step.logits_loss(target)[0])
    with torch.no_grad():
        assert float(search.current_step.logits_loss(target)[0]) == judged
