"""The schedule of a search: pure functions of recipe, step and epoch."""

from __future__ import annotations

import pytest

from hwnas.compute.seeds import Purpose, torch_generator
from hwnas.recipe import Recipe, read_recipe
from hwnas.search.schedule import Schedule

STAGES = [
    {"share": 0.25, "partial_channels": 4, "operations": 5},
    {"share": 0.5, "partial_channels": 2, "operations": 3},
    {"share": 0.25, "partial_channels": 1, "operations": 2},
]


def recipe(**changes: object) -> Recipe:
    return read_recipe("snas-short", {"epochs": 8, "logits_warm_up": 0.0, "penalty.warm_up": 0.0, **changes})


def test_targets_take_turns_and_epochs_follow_from_the_step() -> None:
    schedule = Schedule(recipe(), steps_per_epoch=5, targets=3)
    assert schedule.total_steps == 40
    assert [schedule.target(step) for step in range(5)] == [0, 1, 2, 0, 1]
    assert [schedule.turn(step) for step in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    assert [schedule.epoch(step) for step in (0, 4, 5, 39)] == [0, 0, 1, 7]
    assert [step for step in range(11) if schedule.is_epoch_start(step)] == [0, 5, 10]


def test_temperature_and_progress_are_linear_in_the_epoch() -> None:
    schedule = Schedule(recipe(epochs=4), steps_per_epoch=2, targets=1)
    assert [schedule.temperature(epoch) for epoch in range(4)] == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert [schedule.progress(epoch) for epoch in range(5)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert Schedule(recipe(epochs=1), 2, 1).progress(0) == 0


def test_the_logits_progress_begins_when_they_do() -> None:
    late = Schedule(recipe(epochs=6, logits_warm_up=0.5), steps_per_epoch=2, targets=1)
    assert [late.logits_progress(epoch) for epoch in range(7)] == [0, 0, 0, 0, 0.5, 1, 1]
    at_once = Schedule(recipe(epochs=4, logits_warm_up=0), steps_per_epoch=2, targets=1)
    assert [at_once.logits_progress(e) for e in range(5)] == [at_once.progress(e) for e in range(5)]
    assert Schedule(recipe(epochs=1, logits_warm_up=0), 2, 1).logits_progress(0) == 0


def test_stages_begin_at_their_shares_of_the_epochs() -> None:
    schedule = Schedule(recipe(stages=STAGES), steps_per_epoch=1, targets=1)
    assert schedule.stage_starts == [0, 2, 6]
    assert [schedule.stage(epoch) for epoch in range(8)] == [0, 0, 1, 1, 1, 1, 2, 2]
    short = Schedule(recipe(stages=STAGES, epochs=1), steps_per_epoch=1, targets=1)
    assert [short.stage(epoch) for epoch in range(2)] == [1, 2]  # the first stage rounds to no epoch
    whole = Schedule(recipe(), steps_per_epoch=1, targets=1)
    assert [whole.stage(epoch) for epoch in range(9)] == [0] * 9


def test_logits_wait_for_the_warm_up_of_every_stage() -> None:
    schedule = Schedule(recipe(stages=STAGES, logits_warm_up=0.5), steps_per_epoch=1, targets=1)
    trainable = [schedule.logits_trainable(epoch, schedule.stage(epoch)) for epoch in range(8)]
    assert trainable == [False, True, False, False, True, True, False, True]


def test_lambda_and_damping_begin_after_the_warm_up() -> None:
    changes = {"penalty.warm_up": 0.5, "penalty.damping": 2.0, "penalty.total_rate": 6.0}
    schedule = Schedule(recipe(**changes), steps_per_epoch=5, targets=2)
    assert [schedule.constrains(epoch) for epoch in range(8)] == [False] * 4 + [True] * 4
    assert [schedule.damping(epoch) for epoch in range(8)] == [0.0] * 4 + [2.0] * 4
    assert schedule.dual_rate == pytest.approx(6.0 / 10)  # ten steps of each target are left
    fixed = Schedule(recipe(**{"penalty.mode": "fixed", "penalty.weight": 1.0}), steps_per_epoch=5, targets=1)
    assert not any(fixed.constrains(epoch) for epoch in range(8))
    assert fixed.damping(7) == 0


def test_a_draw_context_has_the_random_numbers_of_its_step_and_purpose() -> None:
    schedule = Schedule(recipe(seed=3), steps_per_epoch=5, targets=1)
    context = schedule.draw_context(12, Purpose.LOGITS_DRAW)
    assert context.generator.initial_seed() == torch_generator(3, Purpose.LOGITS_DRAW, 12).initial_seed()
    assert (context.temperature, context.progress) == (schedule.temperature(2), schedule.progress(2))
    own = torch_generator(0, Purpose.SELECTION)
    assert schedule.draw_context(12, Purpose.SELECTION, own).generator is own
