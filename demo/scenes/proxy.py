"""The proxy: a browser, or curl, visits a site with the credential in the token, and not without the token."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path

from demo.setting import JOHN, TOKEN, Setting
from demo.stage import DOMAIN, DemoFailed, Stage, free_port

TITLE = "A token that opens the web: plugged in, pulled out, plugged in again"
SITE = f"members.{DOMAIN}"
MACHINE = "machine"
PROXY = """\
listen = "127.0.0.1:{port}"
authority = "{authority}"

[[destination]]
match = ["*.{domain}"]
localid = "{john}"
connect = "127.0.0.1:{site}"
"""
POOL = """
[credential.x509]
issuing_key = "{key}"
issuing_certificate = "{authority}"
"""


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    (token,) = (stage.home / "tokens").iterdir()  # there is one so far: john's
    authority = _authority(stage)
    port = _start(setting, authority)
    curl = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--proxy",
        f"http://127.0.0.1:{port}",
        "--cacert",
        str(authority),
    ]
    url = f"https://{SITE}/"

    stage.say("curl knows neither key nor token, only the proxy:")
    _expect("Hello, john" in (page := stage.command([*curl, url])), page)
    stage.show(page)

    stage.say("While a page goes on and on, the token is pulled out:")
    stage.show(_pulled_during(stage, [*curl, "--no-buffer", f"{url}clock"], token))
    stage.wait_for("the pool knows", lambda: "not there" in stage.command([*curl, url], quiet=True))
    page = stage.command([*curl, "--include", "--header", "Accept: text/html", url])
    _expect("503" in page and "<h1>Your key is not there.</h1>" in page, page)
    stage.say("What a browser is shown now, also under the name of the site, which its certificate holds:")
    stage.show("\n".join(line for line in page.splitlines() if line.startswith(("HTTP/1.1 503", "Proxy-Status", "<h1>", "<p>"))))

    _drawer(token).rename(token)
    stage.say("And it is plugged in again:")
    stage.wait_for("the token is back", lambda: "Hello, john" in stage.command([*curl, url], quiet=True))
    stage.show(stage.command([*curl, url]))
    if "KEEP" in stage.environment:
        stage.say(f"Try a browser with --proxy-pac-url=http://127.0.0.1:{port}/proxy.pac and {authority} among its authorities.")
        return
    stage.stop("proxy")
    stage.stop("site")


def _authority(stage: Stage) -> Path:
    """The proxy's authority; its key is in a token of its own, which stays when a person pulls hers."""
    pin_file = stage.home / "pin"
    stage.command(
        [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            MACHINE,
            "--pin",
            pin_file.read_text(),
            "--so-pin",
            secrets.token_hex(8),
        ],
        quiet=True,
    )
    stage.command([sys.executable, "-m", "demo.token", stage.module, MACHINE, str(pin_file), "proxy", "50"], quiet=True)
    key, file = f"pkcs11:token={MACHINE};id=%50;type=private", stage.home / "proxy-authority.crt"
    stage.say(f"Another token, {MACHINE!r}, stays where it is. It certifies sites towards the browser, of this one domain only:")
    stage.show(stage.tlspool("x509", "authority", "--key", key, "--domain", DOMAIN, str(file)))
    with stage.config.open("a") as config:
        config.write(POOL.format(key=key, authority=file))
    for name, process in stage.processes:
        if name == "pool":
            process.send_signal(signal.SIGHUP)
    stage.wait_for("the pool has read its configuration anew", lambda: "read anew" in stage.tail("pool", 1000))
    return file


def _start(setting: Setting, authority: Path) -> int:
    """Start the site and the proxy; the proxy's port."""
    stage = setting.stage
    certificate, key = setting.authority.software_identity(stage.home, "site", SITE, "server")
    site, port = free_port(), free_port()
    stage.start("site", [sys.executable, "-m", "demo.site", str(site), str(certificate), str(key), str(setting.authority_file)])
    file = stage.home / "proxy.toml"
    file.write_text(PROXY.format(port=port, authority=authority, domain=DOMAIN, john=JOHN, site=site))
    stage.show("$ tlspool proxy proxy.toml")
    stage.start("proxy", ["tlspool", "proxy", str(file)])
    for each in (site, port):
        stage.wait_port(each)
    return port


def _drawer(token: Path) -> Path:
    return token.parent.parent / f"drawer-of-{TOKEN}"


def _pulled_during(stage: Stage, command: list[str], token: Path) -> str:
    """What curl has to say about a transfer in the middle of which the token goes."""
    with subprocess.Popen(command, env=stage.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as transfer:
        assert transfer.stdout is not None
        text = b"".join(transfer.stdout.readline() for _ in range(2))
        token.rename(_drawer(token))
        text += transfer.communicate(timeout=20)[0]
    _expect(transfer.returncode == 18, text.decode())  # a partial file
    return text.decode()


def _expect(condition: bool, output: str) -> None:
    if not condition:
        raise DemoFailed(f"this was not expected:\n{output}")
