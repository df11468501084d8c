"""Package cli is the command `shoal`: it finds, calls, listens to and runs services."""

from __future__ import annotations

import click

from shoal.cli._command import Program

_COMMANDS = {
    "services": "shoal.cli.discovery:services",
    "describe": "shoal.cli.discovery:describe",
    "call": "shoal.cli.calls:call",
    "stream": "shoal.cli.calls:stream",
    "publish": "shoal.cli.events:publish",
    "subscribe": "shoal.cli.events:subscribe",
    "health": "shoal.cli.nodes:health",
    "stats": "shoal.cli.nodes:stats",
    "new": "shoal.cli.project:new",
    "run": "shoal.cli.project:run",
    "plugins": "shoal.cli.about:plugins",
    "completion": "shoal.cli.about:completion",
    "version": "shoal.cli.about:version",
    "list": "shoal.cli.discovery:list_group",
    "get": "shoal.cli.discovery:get_group",
}

_SHOWN = (
    "registry registry_address broker broker_address transport selector profile"
    " client_request_timeout tls tls_ca_file log_level"
).split()


def _tell_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from shoal.cli.about import shoal_version

        click.echo(f"shoal {shoal_version()}")
        context.exit()


@click.group(
    cls=Program,
    commands=_COMMANDS,
    shown=_SHOWN,
    epilog="Every flag of a service and every MICRO_* variable is understood, before or after the"
    " command, with dashes or underscores.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version,
    help="Show the version and exit.",
)  # fmt: skip
def cli() -> None:
    """Find, call, listen to and run services that speak Go Micro's protocols."""


def main() -> None:
    """Run the command of this process."""
    cli(prog_name="shoal")
