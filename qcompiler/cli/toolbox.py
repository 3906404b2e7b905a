"""``qcompiler VERB``: the toolbox. A verb's module is imported when the verb is used or listed."""

from __future__ import annotations

import importlib

import click

__all__ = ["main"]

_VERBS = ("bench", "diff", "inspect", "passes", "profile", "replay", "sensitivity", "targets")


class _Verbs(click.Group):
    """A group that finds the verb ``x`` as ``command`` in ``qcompiler.cli.verb_x``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs."""
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, or nothing."""
        del ctx
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"qcompiler.cli.verb_{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb in the message."""
        from qcompiler.errors import nearest

        if args and not args[0].startswith("-") and args[0] not in _VERBS:
            hint = nearest(args[0], _VERBS) or f"verbs: {', '.join(_VERBS)}"
            ctx.fail(f"there is no verb '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qcompiler", prog_name="qcompiler")
def main() -> None:
    """Look at models, compare them, list what the compiler knows. To compile, use qcompile."""
