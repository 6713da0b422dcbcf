"""The lab: `python -m xray.lab`, a page in the browser to type into."""

import logging
import secrets
import webbrowser
from pathlib import Path

from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.options import Precision

PHANTOMS = ("phantom", "phantom-registers")


def main(
    weights: str = "phantom",
    precision: Precision = "float32",
    host: str = "127.0.0.1",
    port: int = 8188,
    out: Path = Path("outputs/lab"),
    browser: bool = True,
) -> None:
    """Open the lab in a browser.

    Args:
        weights: a model's name, or its folder or file.
        precision: of the numbers.
        host: the address to serve; any other than 127.0.0.1 lets the network in that has the link.
        port: 0 takes a free one.
        out: the folder for the films.
        browser: open the page.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(
            f"the lab wants {error.name}; type: pip install -r requirements-lab.txt"
        ) from None
    sd = script.load_model(weights, precision)  # it keeps TensorFlow quiet, so before the others
    from xray.lab.runner import Runner
    from xray.lab.server import make_app

    out.mkdir(parents=True, exist_ok=True)
    token, listener = secrets.token_urlsafe(24), listening(host, port)
    port = listener.getsockname()[1]
    others = [name for name in PHANTOMS if name != weights] if weights in PHANTOMS else []
    app = make_app(Runner(sd, out, others), token, host, port)
    link = f"http://{host}:{port}/?token={token}"
    print(f"the lab is open at {link}\nfilms go to {out}; Ctrl-C closes it", flush=True)
    if browser:
        webbrowser.open(link)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    server.run(sockets=[listener])


def listening(host: str, port: int):
    """A socket that takes who comes. Raises UsageError where the port is taken."""
    import socket

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # who opens the link at once waits until it is served
    except OSError as error:
        raise UsageError(f"cannot serve {host}:{port} ({error.strerror}); try --port 0") from None
    return listener


if __name__ == "__main__":
    script.run(main)
