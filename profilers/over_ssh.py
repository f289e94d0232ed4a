"""The remote side of ``--device ssh://…``: receive files, run a profiler, end it when the connection ends.

Standard library only. ``hwnas/profiling/connections/ssh.py`` sends the text of this file, then a request as a line of
JSON; the answer is a line with the names of the files that are missing here, and then those files are sent.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

# The prefix of the one line that is not the profiler's. Output of login scripts comes before it.
ANSWER = "hwnas over ssh: "


def main(given):
    request = json.loads(given.readline())
    folder = os.path.join(os.path.expanduser("~"), ".cache", "hwnas", request["id"])
    os.umask(0o077)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    lock = take_over()
    missing = [name for name, (size, digest) in sorted(request["files"].items()) if not is_there(name, size, digest)]
    sys.stdout.write("\n" + ANSWER + json.dumps(missing) + "\n")
    sys.stdout.flush()
    for name in missing:
        receive(given, name, request["files"][name][0])
    if request["remove"]:
        remove(folder)
    elif request["run"]:
        run(request["run"], lock)


def take_over():
    """Lock the folder, and end a profiler that a dropped connection left running: it would disturb the timing.

    The holder of the lock wrote the number of its process group into the file, so no other process can be ended.
    """
    if os.getpid() != os.getsid(0):
        os.setpgid(0, 0)
    lock = open("lock", "a+")  # noqa: SIM115, for as long as this process lives
    for _ in range(100):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # first, so that a process that has just locked it has written its number
            lock.seek(0)
            end_group(lock.read())
        else:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock
    sys.exit("the profiler of an earlier connection does not end")


def end_group(number):
    if number.isdigit() and int(number) > 1:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(number), signal.SIGKILL)


def is_there(name, size, digest):
    try:
        if os.path.getsize(name) != size:
            return False
        with open(name, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == digest
    except OSError:
        return False


def receive(given, name, size):
    """Receive a file; it gets its name when it is complete."""
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name + ".part", "wb") as file:
        while size:
            piece = given.read(min(size, 1 << 20))
            if not piece:
                sys.exit(f"the connection ended before {name} was here")
            file.write(piece)
            size -= len(piece)
    os.replace(name + ".part", name)


def run(program, lock):
    """Run a Python program that prints to the connection; exit with its exit code."""
    threading.Thread(target=end_with_connection, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    code = subprocess.call(
        [sys.executable, *program], stdin=subprocess.DEVNULL, env=environment, pass_fds=[lock.fileno()]
    )
    os._exit(128 - code if code < 0 else min(code, 254))  # ssh itself exits with 255; the thread is not waited for


def end_with_connection():
    """Wait for the end of the connection (no more data is sent), then end the process group."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def remove(folder):
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # another job's folder may be there
        os.rmdir(os.path.dirname(folder))


if __name__ == "__main__":
    main(sys.stdin.buffer)
