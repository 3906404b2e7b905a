"""``qcompiler replay DIR``."""

from __future__ import annotations

from pathlib import Path

import click

from qcompiler.cli.guard import GuardedCommand, NearChoice, traceback_option
from qcompiler.cli.show import as_json_option, pairs, print_json
from qcompiler.driver.options import VERIFY_LEVELS

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("replay", cls=GuardedCommand, short_help="Run again what failed.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--plugin", "plugins", multiple=True, type=_FILE, help="Python file with passes (repeatable).")
@click.option("--verify", type=NearChoice(*VERIFY_LEVELS), default="facts", show_default=True)
@as_json_option
@traceback_option
def command(folder: Path, plugins: tuple[Path, ...], verify: str, as_json: bool, traceback: bool) -> None:
    """Run again what failed: FOLDER is what --repro-dir left. Ends with code 1 while the failure is still there."""
    del traceback
    from qcompiler.driver.plugins import load_plugins
    from qcompiler.errors import QCompilerError, UsageError
    from qcompiler.pipeline.instruments.timing import Timing
    from qcompiler.pipeline.instruments.verify import Verify
    from qcompiler.pipeline.replay import read_manifest, replay

    load_plugins(plugins)
    manifest = read_manifest(folder)
    if not as_json:
        pairs([("pass", str(manifest.get("failed"))), ("error", str(manifest.get("error")))])
        click.echo()
    timing = Timing()
    try:
        replay(folder, [timing, Verify(verify)])  # type: ignore[arg-type]
    except UsageError:
        raise
    except QCompilerError as error:
        if as_json:
            print_json({"failed": manifest.get("failed"), "reproduced": True, "error": str(error)})
        raise
    if as_json:
        print_json({"failed": manifest.get("failed"), "reproduced": False, "passes": timing.rows})
        return
    click.echo(timing.table())
    click.echo("\nthe failure did not show again")
