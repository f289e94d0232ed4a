"""``python serve.py SOCKET``: hwnas, already imported; it forks for every command that ``hwnas`` beside it hands over.

Importing torch and the rest takes three seconds, and the documentation has some eighty commands.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import matplotlib.pyplot  # noqa: F401
import onnxruntime  # noqa: F401
import sklearn.datasets  # noqa: F401

import hwnas.report.page
import hwnas.runs.quantize
import hwnas.runs.search
import hwnas.runs.train  # noqa: F401
from hwnas.cli import main


def run(connection: socket.socket) -> None:
    """Do one command, in the folder, with the variables and on the files of who asks; answer with its exit code."""
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(message)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.argv = ["hwnas", *asked["arguments"]]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                run(connection)
            connection.close()
            while True:  # those that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
