"""``hwnas table push``, ``pull``, ``list``, ``page`` and ``keygen``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson
from hwnas.cli.output import open_table, show_json, show_table, warn_of_table
from hwnas.errors import HwnasError
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.sharing.listing import Listed

ShelfAddress = Annotated[str, typer.Argument(help="A shelf: a folder, or a URL such as https://…, s3://… or hf://….")]


@command(table_app, "push", "hwnas table push cpu.json s3://bucket/tables")
def table_push(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    shelf: ShelfAddress,
    name: Annotated[str | None, typer.Option(help="Name of the table on the shelf; default: the file's name.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another table with that name.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(envvar="HWNAS_SIGNING_KEY", help="Sign it with this private key, made by hwnas table keygen."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a latency table on a shelf, a folder or URL that holds tables by name."""
    from hwnas.sharing.push import push
    from hwnas.sharing.signing import read_key

    done = push(table, shelf, name, replace, read_key(key) if key else None)
    for warning in done.warnings:
        print(f"hwnas: warning: {warning}", file=sys.stderr)
    open_table(table)  # for its warnings
    record = done.record
    if as_json:
        show_json({"shelf": done.registry, "state": done.state, "record": record.model_dump(mode="json")})
        return
    signed = f", signed by {record.signature.key}" if record.signature else ", unsigned"
    print(f"{record.name}: {done.state} on {done.registry}{signed}, sha256 {record.table_sha256}")
    print(f"next: hwnas table pull {quoted(record.name)} {quoted(done.registry)}")


@command(table_app, "pull", "hwnas table pull cpu s3://bucket/tables --out cpu.json")
def table_pull(
    name: Annotated[str, typer.Argument(help="Name of the table on the shelf.")],
    shelf: ShelfAddress,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: NAME.json on your own shelf.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A public key or its file: accept only tables that it signed. Repeat it for more keys."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file with other content.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a latency table from a shelf and verify its bytes and its signature."""
    from hwnas.sharing.pull import pull
    from hwnas.sharing.signing import trusted_keys
    from hwnas.text import printable

    done = pull(name, shelf, trusted_keys(trust or []), out, force)
    for remark in filter(None, (done.remark, done.index_remark)):
        print(f"hwnas: {remark}", file=sys.stderr)
    warn_of_table(done.file, done.table)
    if as_json:
        record = done.record.model_dump(mode="json")
        trusted = {"trusted": not done.remark, "index_trusted": not (done.remark or done.index_remark)}
        show_json({"table": str(done.file), "state": done.state, **trusted, "record": record})
        return
    print(f"{done.file}: {done.state}; {done.table.provenance} on {printable(done.table.describe())}")
    print(f"next: hwnas table show {quoted(done.file)}")


@command(table_app, "keygen", "hwnas table keygen signing.pem")
def table_keygen(
    file: Annotated[Path, typer.Argument(help="The private key file to write; the public key goes to FILE.pub.")],
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys: a private one to sign tables with, a public one that others check them with."""
    from hwnas.sharing.signing import keys_folder, make_keys

    public = make_keys(file)
    if as_json:
        show_json({"private_key": str(file), "public_key": f"{file}.pub", "public": public})
        return
    print(f"{file}: the private key, keep it secret; {file}.pub: the public key, for others")
    print(f"public key: {public}")
    print(f"to trust it, copy {file.name}.pub to {keys_folder()}, or give --trust {public} to hwnas table pull")
    print(f"next: hwnas table push cpu.json SHELF --key {quoted(file)}")


@command(table_app, "list", "hwnas table list --shelf s3://bucket/tables")
def table_list(
    shelf: Annotated[
        list[str] | None, typer.Option(help="A folder or URL to list as well; repeat it for more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the tables that come with hwnas, those on your own shelf, and those on the given shelves.

    A table serves every command about its target networks: the searched space at these sizes, on its device.
    """
    from hwnas.files import shipped
    from hwnas.sharing.listing import list_tables
    from hwnas.sharing.pull import user_registry
    from hwnas.sharing.transport import without_password
    from hwnas.tables.io import SHIPPED

    own = user_registry()
    places = [
        ("with hwnas", str(shipped("latency_tables")), False),
        ("your shelf", own, "://" in own),  # it may not exist yet
        *(("", address, True) for address in shelf or []),
    ]
    shown: list[dict[str, Any]] = []
    failed: list[HwnasError] = []
    for title, address, must_be_there in places:
        where = without_password(address)
        listed: list[Listed] = []
        problem = ""
        try:
            if must_be_there or Path(address).expanduser().exists():
                listed = list_tables(address)
        except HwnasError as error:
            failed.append(error)
            problem = error.problem
        shown.append({"shelf": where, "error": problem, "tables": [_as_json(table) for table in listed]})
        if not as_json and not problem:
            with_hwnas = address == str(shipped("latency_tables"))
            _show(f"{title}: {where}" if title else where, listed, SHIPPED * with_hwnas)
            if with_hwnas:
                print("to use one: hwnas search --table shipped:NAME --budget moderate --data DATA --out runs/a\n")
    if as_json:
        show_json({"shelves": shown})
    for other in failed[:-1]:
        print(f"hwnas: warning: {other}", file=sys.stderr)
    if failed:
        raise failed[-1]


@command(table_app, "page", "hwnas table page s3://bucket/tables --out TABLES.md")
def table_page(
    shelf: ShelfAddress,
    out: Annotated[Path, typer.Option(help="The Markdown file to write.")],
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Latency tables",
    as_json: AsJson = False,
) -> None:
    """Write a Markdown page that lists the tables of a shelf: device, runtime, networks, accuracy, date."""
    from hwnas.files import write_text
    from hwnas.sharing.listing import list_tables
    from hwnas.sharing.page import registry_page

    listed = list_tables(shelf)
    write_text(out, registry_page(title, listed))
    if as_json:
        show_json({"page": str(out), "tables": len(listed)})
        return
    print(f"{out}: {len(listed)} tables")


def _as_json(table: Listed) -> dict[str, Any]:
    return {
        "name": table.name,
        "error": table.error,
        "description": table.description.model_dump(mode="json") if table.description else None,
        "record": table.record.model_dump(mode="json", exclude={"description"}) if table.record else None,
    }


def _show(title: str, listed: list[Listed], before_name: str) -> None:
    from hwnas.sharing.page import describe_runtime
    from hwnas.tables.network_key import describe_key
    from hwnas.text import printable

    if not listed:
        print(f"{printable(title)}: no tables\n")
        return
    columns = ["name", "device", "runtime", "target networks", "provenance", "date", "mean error, tau"]
    rows = []
    for table in listed:
        if what := table.description:
            quality = [
                f"{known.mape:.1f} % {'-' if known.kendall_tau is None else f'{known.kendall_tau:.3f}'}"
                if (known := what.quality.get(network))
                else "unknown"
                for network in what.networks
            ]
            noisy = ["made on a noisy machine"] if what.noisy else []
            cells = [
                *(
                    before_name + table.name,
                    what.device,
                    describe_runtime(what),
                    "; ".join(map(describe_key, what.networks)),
                    what.provenance,
                    what.date[:10],
                ),
                ", ".join(quality + noisy),
            ]
            rows.append([printable(cell) for cell in cells])
    show_table(printable(title), columns, rows)
    for table in listed:
        if table.error:
            print(f"cannot be read: {printable(table.name)}: {table.error}")
