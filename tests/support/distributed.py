"""The work of one of several processes: some steps of searches, a child's training, a whole search."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from hwnas.budgets.budget import parse_budget
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.runs.request import SearchRequest, SearchSizes
from hwnas.runs.search import run_search
from hwnas.runs.train import train_run
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import read_table
from hwnas.training.child import Trainer
from hwnas.training.distillation import Teacher
from hwnas.training.processes import Processes, join_process_group, process_group
from hwnas.training.recipe import read_training
from support.searches import COSTS, FEW, PLAIN, PREVIEWS, chain_searching
from support.spaces import SMALL
from support.training import DATA, recipe_of, tiny_child

# One method for each way to run the supernet, to learn and to select. Processes see nothing else of a method: all draw
# the same architectures, and distributions and regularisers compute without the others.
SEARCHES = [
    ("nasbench201", "snas"),  # all operations, one batch for weights and logits
    ("nasbench201", "pc-darts"),  # all operations of some channels, alternating batches
    ("nasbench201", "darts-second"),  # unrolled steps
    ("nasbench201", "idarts"),  # implicit gradients
    ("nasbench201", "balenas"),  # a posterior of the logits, with a precision
    ("nasbench201", "zarts"),  # updates tried on copies of the weights
    ("nasbench201", "drnas-progressive"),  # a Dirichlet distribution, in stages
    ("nasbench201", "gdas"),  # one operation an edge, with gradients of the logits
    ("nasbench201", "advantagenas"),  # one operation an edge, the advantage of each
    ("nasbench201", "enas"),  # rewards; the best of some draws
    ("nasbench201", "single-path"),  # weights alone; evolution
    ("nasbench201", "svge"),  # proposals in a latent space, those of rank 0
    ("darts", "entrannas-dst"),  # some operations an edge; two kinds of cells
    ("chain", "bignas"),  # several members a step, which learn scores
]
EVOLVE = ("single-path", "bignas")
LATENT = {
    "selection": {"name": "latent", "evaluations": 4, "start": 2, "batch": 2},
    "autoencoder": {"width": 4, "latent": 3, "graphs": 200, "epochs": 1},
}
STEPS = 2


def searching(space: str, method: str, processes: Processes) -> Search:
    """Build a search in float64, where rounding errors are negligible, that trains everything from the start.

    15 images are shared unevenly.
    """
    changes = {
        "batch_size": 15,
        "logits_warm_up": 0.0,
        "penalty.warm_up": 0.0,
        **PLAIN,
        "drop_path": 0.2,
        **({"learning": {"name": "reinforce", "samples": 2, "every": 2}} if method == "enas" else {}),
        **({"selection": {"name": "best_of", "samples": 2}} if method in ("enas", "random") else {}),
        **({"selection": {"name": "evolution", "population": 3, "generations": 2}} if method in EVOLVE else {}),
        **(LATENT if method == "svge" else {}),
    }
    if space == "chain":
        search = chain_searching(f"chain/{method}", processes=processes, **changes)
        search.supernet.double()
        return search
    recipe = read_recipe(f"{'short' if space == 'nasbench201' else space}/{method}", changes)
    goal = Objective("table", parse_budget("moderate", PREVIEWS[space]), COSTS[space])
    search = Search(SizedSpace(SPACES[space], SMALL[space]), [goal], FEW, recipe, processes)
    search.supernet.double()
    search.targets[0].distribution.double()
    return search


def some_steps(space: str, method: str, processes: Processes) -> dict[str, Any]:
    """Return the state after some steps, with the row of the epoch and the final architecture."""
    search = searching(space, method, processes)
    for _ in range(STEPS):
        search.take_step()
    state = {**search.state(), "sums": [dict(t.sums.state()) for t in search.targets]}
    search.supernet.float()  # as the images that judge it are; the state stays as it was
    (row,) = search.epoch_report()
    return {**state, "row": row.to_json(), "chosen": search.space.format(search.evaluator.choose(search.targets[0]))}


def do_share(folder: Path, table: Path) -> None:
    """Do the work of one process: some steps of every search, a child's training, and a whole search in a folder."""
    with join_process_group():
        processes = process_group()
        states = {f"{space} {method}": some_steps(space, method, processes) for space, method in SEARCHES}
        torch.save(states, folder / f"{processes.rank}.pt")
        torch.save(a_child(processes), folder / f"child{processes.rank}.pt")
        rows = run_search(request_for(table), folder / f"run{processes.rank}", Progress(quiet=True))
        assert bool(rows) == processes.is_rank_zero
        if processes.is_rank_zero:
            shutil.copytree(folder / "run0", folder / "trained")
        processes.total(0)  # the others wait
        assert bool(trained(folder / "trained")) == processes.is_rank_zero


def a_child(processes: Processes) -> dict[str, Any]:
    """Return the state after one epoch of training a child with every option; 7 images are divided unevenly."""
    changes = {"batch_size": 7, "ema": 0.7, "optimizer.lr": 1e-3, "distillation": {"teacher": "tiny"}}
    module = tiny_child(seed=5).eval().requires_grad_(False)
    teacher = Teacher("tiny", "0" * 64, lambda images: module(images))
    trainer = Trainer(tiny_child(), DATA, recipe_of(**changes), processes, teacher)
    while not trainer.history:
        trainer.take_step()
    return trainer.state()


def trained(run: Path) -> list[dict[str, Any]]:
    recipe = read_training("quick", {"epochs": 2, "batch_size": 99})
    return train_run(run, "quick", recipe, None, Progress(quiet=True))


def request_for(table: Path, epochs: int = 2) -> SearchRequest:
    """Return a search whose search network is smaller than its target network."""
    recipe = read_recipe("snas-short", {"epochs": epochs, "child.epochs": 0, "batch_size": 99, **PLAIN})
    space, sizes = SPACES["nasbench201"], SMALL["nasbench201"]
    return SearchRequest(
        SizedSpace(space, sizes),
        {"table": read_table(table)},
        "digits?size=16",
        ["moderate"],
        recipe,
        verify=False,
        search_sizes=SearchSizes(channels=3),
    )
