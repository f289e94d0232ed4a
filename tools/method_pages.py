"""Generate the pages in docs/methods, one for each method, and their index.

The sources are docstrings, recipes and the results of a benchmark. After a change in any of them run
``python -m tools.method_pages``; with ``--check`` it names the outdated pages and exits with 1. The wheel has no pages.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass

from hwnas.benchmark.records import read_summary
from hwnas.benchmark.schema import Summary
from hwnas.benchmark.summary import FOOTNOTE, method_table, summary_title
from hwnas.files import write_text
from hwnas.recipe import CHAIN, Choice, Recipe, known_recipes, read_recipe, recipe_of
from hwnas.search import choices
from hwnas.search.choices import CHOICES
from hwnas.search.methods import CHAIN_METHODS, METHODS, module_of, register_builtin
from tools.format_page import default_words, type_words

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "methods"
SUMMARY = ROOT / "benchmarks" / "results" / "nasbench201" / "summary.json"
RECIPES = ("nasbench201", "darts", "darts-extended", "short")
# Changes of a method's short recipe with which its page is tested, where it takes long with few images, too.
AS_TESTED = {"svge": "autoencoder: {width: 8, graphs: 200, epochs: 1}"}
BY_HAND = {"adding-a-method.md", "pruning.md"}
CHAIN_SET_UP = """\
cat > my_chain.yaml <<END
name: my_chain
stem: [{op: conv_bn_relu6_3x3, channels: 8}]
candidates: {k3_e2: {kernel: 3, expand: 2}, k5_e3: {kernel: 5, expand: 3}}
stages: [{channels: 8, layers: 5, stride: 2, activation: relu6, skips: last, least: 2}]
head: [{op: pool_linear}]
settings: {small: {height: 16, width: 16, stem: cifar}}
END
printf 'base: chain/bignas\\nselection: {name: evolution, population: 3, generations: 2, parents: 2}\\n' > few.yaml
hwnas profile --space my_chain.yaml --device cpu --rounds 6 --fit-networks 2 --report-networks 2 --accept-noise \\
  --out my_chain_table.json"""
MADE = "Written by `python -m tools.method_pages`; do not edit."
INDENTED = re.compile(r"^ {4}.*\n(?:\n* {4}.*\n)*", re.MULTILINE)
# Settings that distinguish methods with the same choices.
BESIDES = ("partial_channels", "stages", "shared_features", "shared_blocks", "without")


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    register_builtin()
    measured = read_summary(SUMMARY, "remove it") if SUMMARY.exists() else None
    assert measured is None or isinstance(measured, Summary)
    texts = {f"{method}.md": method_page(method, measured) for method in (*METHODS, *CHAIN_METHODS)}
    return {"README.md": index_page(measured), **texts}


def out_of_date(wanted: Mapping[str, str]) -> list[str]:
    """Return the names of pages that are missing, differ from those wanted, or are not wanted."""
    there = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.md") if file.name not in BY_HAND}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def method_page(method: str, measured: Summary | None) -> str:
    in_chains = method in CHAIN_METHODS
    recipes = {folder: _recipe(f"{folder}/{method}") for folder in ((CHAIN,) if in_chains else RECIPES)}
    relatives = [other for other in METHODS if other != method and METHODS[other] == METHODS.get(method)]
    return joined(
        f"# {method}",
        MADE,
        f"Described together with {', '.join(f'[{other}]({other}.md)' for other in relatives)}." if relatives else "",
        markdown(module_of(method)),
        f"Code: [`{_file_of(module_of(method))}`](../../{_file_of(module_of(method))}).",
        "## Choices",
        "The recipes compose these choices ([all choices](README.md#choices)):",
        *_choices(recipes.values()),
        "## Recipes",
        "Settings that a recipe leaves out have their default (`hwnas/recipe.py`)."
        + ("" if in_chains else " `short` is for up to an hour on a few cores."),
        _settings(recipes),
        "\n".join(_remarks(method)),
        "## How to run it",
        *(_how_to_run_in_a_chain(method) if in_chains else _how_to_run(method)),
        *([] if in_chains else ["## Measured", *_measured(measured, method)]),
    )


def index_page(measured: Summary | None) -> str:
    return joined(
        "# Search methods",
        MADE,
        "A method is a recipe that composes named choices for one search loop (`hwnas/search/search.py`). The table "
        "lists the recipes for NAS-Bench-201 (`configs/search/nasbench201`).",
        _index(METHODS, "nasbench201"),
        "For [chains of layers](../how-to/own-space.md#a-chain-of-layers) alone (`configs/search/chain`):",
        _index(CHAIN_METHODS, CHAIN),
        "`hwnas search --method NAME` selects the recipe for the space and the images; each page names it. With every "
        "method the final network is within its budget. [How to add a method](adding-a-method.md).",
        "## Choices",
        *_all_choices(),
        "## Measured",
        *_measured(measured),
    )


# Parts of the pages.


def _index(methods: Iterable[str], folder: str) -> str:
    """Return a table of methods with the choices of their recipes in a folder."""
    recipes = {method: _recipe(f"{folder}/{method}") for method in methods}
    axes = [axis for axis in CHOICES if any(getattr(recipe, axis) for recipe in recipes.values())]
    rows = []
    for method, recipe in recipes.items():
        title, paper = _title(module_of(method))
        written = [code(choice_words(getattr(recipe, axis))) for axis in axes]
        besides = [code(name) for name in BESIDES if getattr(recipe, name) != Recipe.model_fields[name].default]
        rows.append([f"[{method}]({method}.md)", paper, *written, ", ".join(besides) or "-", title])
    return table(["method", "paper", *axes, "other settings", "title"], rows)


def markdown(documented: ModuleType | Callable[..., Any]) -> str:
    """Return a docstring as Markdown: indented blocks get fences; ``x`` becomes `x`."""
    text = (inspect.getdoc(documented) or "").replace("``", "`")
    return INDENTED.sub(lambda found: fenced("text", dedent(found[0]).rstrip("\n")) + "\n", text + "\n").rstrip("\n")


def _title(module: ModuleType) -> tuple[str, str]:
    """Return the title in the first line of a method's docstring, and the paper that it names."""
    first = markdown(module).splitlines()[0].rstrip(".")
    found = re.search(r" \(([^()]+ \d{4})\)", first)
    return (first.replace(found[0], "", 1), found[1]) if found else (first, "-")


def _file_of(module: ModuleType) -> str:
    return Path(inspect.getfile(module)).relative_to(ROOT).as_posix()


def _choices(recipes: Iterable[Recipe]) -> Iterator[str]:
    """Yield every choice of these recipes with its docstring, and its options."""
    recipes = list(recipes)
    for axis, known in CHOICES.items():
        named = dict.fromkeys(choice.name for recipe in recipes if (choice := getattr(recipe, axis)))
        for name in named:
            yield f"**{axis}: `{name}`.** {markdown(known[name])}"
            yield "\n".join(f"- `{option}`: {words}" for option, words in options_of(known[name]).items())


def _all_choices() -> Iterator[str]:
    """Yield every choice that comes with hwnas, by its axis; not those of plugins."""
    for axis, meaning in re.findall(r"^(\w+)  +(.+)$", markdown(choices), re.MULTILINE):
        yield f"**{axis}**: {meaning}"
        known = {
            name: choice for name, choice in sorted(CHOICES[axis].items()) if choice.__module__.startswith("hwnas.")
        }
        yield "\n".join(f"- `{name}`: {_first_sentence(choice)}" for name, choice in known.items())


def _first_sentence(choice: Callable[..., Any]) -> str:
    return re.split(r"(?<=\.)\s", markdown(choice))[0].replace("\n", " ")


def options_of(choice: Callable[..., Any]) -> dict[str, str]:
    """Return the types of a choice's options in words: ``{"engines": "integer ≥ 1, by default 1"}``."""
    if not is_pydantic_dataclass(choice):  # type: ignore[arg-type]
        return {}
    fields = TypeAdapter(choice).json_schema().get("properties", {})
    return {name: f"{type_words(field)}, by default {default_words(field)}" for name, field in fields.items()}


def _settings(recipes: Mapping[str, Recipe]) -> str:
    """Return a table with a column for each recipe: the choices, and every setting that one of them gives."""
    whole = {folder: _flat(recipe.model_dump(exclude={"method"})) for folder, recipe in recipes.items()}
    given = {name for recipe in recipes.values() for name in _flat(_set(recipe))}
    given |= {name for values in whole.values() for name in CHOICES if values[name] != "-"}
    names = [name for name in dict.fromkeys(name for values in whole.values() for name in values) if name in given]
    rows = [[code(name), *(value_words(values.get(name)) for values in whole.values())] for name in names]
    return table(["setting", *(f"`{folder}`" for folder in recipes)], rows)


@cache
def _recipe(name: str) -> Recipe:
    return read_recipe(name, {})


def _set(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that a recipe or its base gives."""
    return recipe.model_dump(exclude_unset=True, exclude={"method"})


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names; a choice is one setting."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in CHOICES:
            flat[name] = choice_words(Choice.model_validate(value) if value else None)
        elif isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def _remarks(method: str) -> Iterator[str]:
    """Yield the leading comment of every recipe of a method."""
    for name in sorted(known_recipes(), key=lambda name: ("/" not in name, name)):
        if _recipe(name).method == method:
            file = f"configs/search/{name}.yaml"
            head = re.match(r"(#.*\n)*", (ROOT / file).read_text(encoding="utf-8"))
            assert head
            yield f"- [`{name}`](../../{file}): " + " ".join(line.lstrip("# ") for line in head[0].splitlines())


def _how_to_run(method: str) -> list[str]:
    here, images, darts = (
        code(recipe_of(method, space, data))
        for space, data in (("nasbench201", "digits"), ("nasbench201", "imagefolder"), ("darts", "imagefolder"))
    )
    search = f"hwnas search --method {method} --table cpu.json --data digits --budget moderate --out runs/{method}"
    return [
        "With [a table of your device](../tutorial.md#measure), `cpu.json`:",
        *_as_tested(method),
        fenced("sh", search),
        f"The recipe is then {here}; with images of your own (`--data imagefolder:FOLDER`) it is {images}, with a "
        f"table of the DARTS space {darts}. `--recipe` names another.",
    ]


def _how_to_run_in_a_chain(method: str) -> list[str]:
    search = (
        f"hwnas search --method {method} --space my_chain.yaml --table my_chain_table.json \\\n"
        f"  --data 'digits?size=16' --budget moderate --out runs/{method}"
    )
    few = '"imagefolder:$IMAGES?size=16&train=64&validation=20&test=20"'
    return [
        "With [a chain](../how-to/own-space.md#a-chain-of-layers) of your own or `mobilenetv3`, and a table of it:",
        f"<!-- set-up\n{CHAIN_SET_UP}\n-->",
        f"<!-- as tested\n'digits?size=16' => {few} --recipe few.yaml --epochs 1 --child-epochs 0\n-->",
        fenced("sh", search),
        f"The recipe is then `{CHAIN}/{method}`. `--recipe` names another.",
    ]


def _as_tested(method: str) -> list[str]:
    """Return the comments that make the pages' test search on few images, for one epoch (docs/reference/pages.md)."""
    set_up, recipe = 'cp "$CHECKOUT/tests/support/stand_ins/phone.json" cpu.json', f"short/{method}"
    if changes := AS_TESTED.get(method):
        set_up, recipe = f"{set_up}\nprintf 'base: {recipe}\\n{changes}\\n' > few.yaml", "few.yaml"
    data = f'"imagefolder:$IMAGES?train=64&validation=20&test=20" --recipe {recipe}'
    return [
        f"<!-- set-up\n{set_up}\n-->",
        f"<!-- as tested\n--data digits => --data {data} --epochs 1 --child-epochs 0\n-->",
    ]


def _measured(measured: Summary | None, method: str | None = None) -> list[str]:
    """Return the benchmark's row of a method, or of all methods, and the reference rows."""
    chosen = [row for row in measured.methods if method in (None, row.method)] if measured else []
    if measured is None or not chosen:
        return ["Nothing has been measured yet (`hwnas benchmark nasbench201`)."]
    threads = sorted({number for row in chosen for number in row.threads})
    return [
        f"`hwnas benchmark nasbench201`: {summary_title(measured)}. The accuracies are the published ones of the "
        "fully trained cells, looked up after the searches had ended; regret is the best cell's accuracy minus that "
        "of the cell found, in percentage points. "
        f"Processor threads a search: {', '.join(map(str, threads))}; finished on {measured.finished}. "
        "Interpretation: [benchmarks](../../benchmarks/README.md).",
        table(*method_table(measured.model_copy(update={"methods": chosen}), measured.data_sets)),
        f"{FOOTNOTE[0].upper()}{FOOTNOTE[1:]}.",
    ]


# Markdown.


def choice_words(choice: Choice | None) -> str:
    """Return a choice as ``reinforce, samples 20, every 8``; a dash for None."""
    if choice is None:
        return "-"
    return ", ".join([choice.name, *(f"{name} {value_words(value)}" for name, value in choice.options.items())])


def value_words(value: Any) -> str:
    """Return a setting as a recipe writes it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_words(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        mark = "; " if value and isinstance(value[0], Mapping) else ", "
        return mark.join(map(value_words, value)) or "-"
    return str(value)


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def code(text: str) -> str:
    return text if text == "-" else f"`{text}`"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def joined(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.method_pages", description="Write docs/methods.")
    parser.add_argument("--check", action="store_true", help="name the outdated pages instead of writing them")
    check = parser.parse_args(arguments).check
    texts = pages()
    stale = out_of_date(texts)
    for name in stale:
        if check:
            print(f"docs/methods/{name} is out of date: run python -m tools.method_pages")
        elif name in texts:
            write_text(FOLDER / name, texts[name])
        else:
            (FOLDER / name).unlink()
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
