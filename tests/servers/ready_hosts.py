"""All hosts of a farm in one program that has loaded labhost, and forks for each command.

argv: the farm's folder. Real hosts do not share one machine's CPUs; those of the tests do.
"""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from tests.servers import host_program


def main(folder: Path) -> None:
    host_program.load()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "hosts"))
        listener.listen(500)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no wait for the children
        while True:
            line = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(line)
            line.close()


def _answer(line: socket.socket) -> None:
    """In a child: run the command in another child, which may exec, and send back its exit status."""
    data, streams, _, _ = socket.recv_fds(line, 256 * 1024, 3)
    if os.fork() == 0:
        line.close()
        _run(data, streams)
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    with contextlib.suppress(OSError):
        line.send(bytes([status if status >= 0 else 255]))
    os._exit(0)


def _run(data: bytes, streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ["SSH_CONNECTION"], os.environ["SSH_ORIGINAL_COMMAND"] = data.decode().split("\0", 1)
    status = 1
    try:
        status = host_program.main()
        sys.stdout.flush()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
