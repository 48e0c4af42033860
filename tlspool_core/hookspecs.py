"""The hooks of the entry-point group `tlspool`.

Theory of operation
-------------------
Hooks only register: each returns a list of objects of one interface (see `interfaces`), once, when the plugin is loaded.  A plugin
is a module (or object) named by an entry point in the group `tlspool`; it marks its functions with `hookimpl`, may set
`TLSPOOL_API = 1`, and implements as many hooks as it has kinds of things to offer.  Hooks may gain arguments in later versions,
never lose or reorder them; an implementation may take fewer.

A hook is called when the program starts, with the privileges of that program, before it listens.  An exception quarantines this
one plugin; `tlspool plugins` then shows it with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from tlspool_core.interfaces import Aaa, CliCommand, ConfigBackend, CredentialType, KeyStore, Predicate

GROUP = "tlspool"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def tlspool_register_credential_types() -> Sequence[CredentialType]:  # type: ignore[empty-body]
    """Ways to authenticate, each with a name that is unique among all plugins.

    Example: ``return [X509Type()]``. Used by plugins/x509. Since API 1.
    """


@hookspec
def tlspool_register_key_stores() -> Sequence[KeyStore]:  # type: ignore[empty-body]
    """Stores of private keys, each with the URI schemes that it serves.

    Example: ``return [Pkcs11Store()]``. Used by plugins/pkcs11. Since API 1.
    """


@hookspec
def tlspool_register_config_backends() -> Sequence[ConfigBackend]:  # type: ignore[empty-body]
    """Places to keep localid, disclose and trust; configuration selects one by name.

    Example: ``return [LmdbBackend()]``. Used by plugins/lmdb. Since API 1.
    """


@hookspec
def tlspool_register_aaa() -> Sequence[Aaa]:  # type: ignore[empty-body]
    """Authorisation and accounting; only those that configuration names are asked, all of them must permit.

    Example: ``return [RadiusAaa()]``. Used by plugins/radius. Since API 1.
    """


@hookspec
def tlspool_register_predicates() -> Sequence[Predicate]:  # type: ignore[empty-body]
    """Predicates of validation expressions beyond those that credential types bring with them.

    Example: ``return [DirectoryPredicate()]``. Since API 1.
    """


@hookspec
def tlspool_register_cli_commands() -> Sequence[CliCommand]:  # type: ignore[empty-body]
    """Commands under `tlspool`; a name that the program has already is refused.

    Example: ``return [TokenCommands()]``. Used by plugins/pkcs11. Since API 1.
    """
