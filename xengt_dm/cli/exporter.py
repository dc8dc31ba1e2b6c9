"""``xengt-dm exporter``: the metrics of this host's daemons, for Prometheus."""

from __future__ import annotations

import ipaddress
import signal
import threading
from pathlib import Path
from types import FrameType

import click

from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.errors import HostError
from xengt_dm.log.log import configure, get_logger

DEFAULT_ADDRESS = "127.0.0.1:9917"
#: Of IPv6 and of IPv4, on a socket that takes both.
ANY_ADDRESS = "[::]"
PORT_MAX = 0xFFFF


class Address(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """ADDR:PORT, with brackets around an IPv6 address. ``:PORT`` is every address of the host."""

    name = "addr:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Returns (address, port) of ADDR:PORT; reports a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        if colon and not host:
            host = ANY_ADDRESS
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            good = (ipaddress.ip_address(bare).version == 6) == (bare != host) and port.isascii() and port.isdecimal()
        except ValueError:
            good = False
        if not good or len(port) > len(str(PORT_MAX)) or int(port) > PORT_MAX:
            like = f"give them like {DEFAULT_ADDRESS} or [::1]:9917, with a port up to {PORT_MAX}"
            self.fail(f"{value!r} is no address and port; {like}", param, ctx)
        return bare, int(port)


@click.command("exporter")
@click.option(
    "--listen",
    "address",
    type=Address(),
    default=DEFAULT_ADDRESS,
    show_default=True,
    help="Where to serve /metrics; `:PORT` is every address of this host, port 0 is any free one.",
)
@click.option("--once", is_flag=True, help="Print the metrics and end.")
@run_dir_option
def command(address: tuple[str, int], once: bool, base: Path) -> None:
    """Serve the metrics of all daemons of this host to Prometheus, until SIGTERM or SIGINT.

    A host needs one exporter. It reads the stats page that each daemon has in its run directory, and needs permission
    for nothing else. A page that cannot be used is left out and counted.
    """
    from xengt_dm.stats.exporter import Server, text  # what it imports takes long

    if once:
        click.echo(text(base), nl=False)
        return
    configure(domid=None)
    host, port = address
    try:
        server = Server(base, address)
    except OSError as error:
        raise HostError(f"listen on {host} port {port}", None, error.errno or 0) from error
    with server:

        def stop(number: int, frame: FrameType | None) -> None:
            threading.Thread(target=server.shutdown).start()  # it waits for the loop, which runs in this thread

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        get_logger().info("exporter.serving", address=host, port=server.server_port, run_dir=str(base))
        server.serve_forever()
        get_logger().info("exporter.stopping")
