"""`tlspool serve`: the daemon in the foreground, as service managers and people want it."""

from __future__ import annotations

from pathlib import Path

import click

from tlspool_core.interfaces import ConfigError
from tlspool_core.pool.config import ConfigurationError, default_path, load_config
from tlspool_core.pool.listeners import ListenError
from tlspool_core.pool.privileges import PrivilegeError
from tlspool_core.registry import RequiredPluginMissing


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file (TOML).")
@click.option("--check", is_flag=True, help="Only check the configuration.")
def serve(path: Path | None, check: bool) -> None:
    """Run the TLS Pool in the foreground.

    Without --config: tlspool.toml in $XDG_CONFIG_HOME/tlspool, as root /etc/tlspool/tlspool.toml, else defaults that suit a
    person's own session.
    """
    path = path or default_path()
    try:
        if check:
            config = load_config(path)
            from tlspool_core.pool.engine import named_settings
            from tlspool_core.pool.plugins import PluginSet

            plugins = PluginSet(config)
            plugins.configure(config)
            named_settings(config, plugins.registry.credential_types.values())
            click.echo(f"{config.name}: the configuration is good")
            return
        from tlspool_core.pool.daemon import serve as run  # the daemon's modules are not needed for a check

        status = run(path)
    except (ConfigurationError, ListenError, PrivilegeError, ConfigError, RequiredPluginMissing) as error:
        raise click.ClickException(str(error)) from None
    if status:
        raise SystemExit(status)
