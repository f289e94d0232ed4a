#!/usr/bin/env python3
"""Time ONNX models with onnxruntime-web (WebAssembly) in headless Chromium.

Needs runner.py, web_runtime.py and browser.html in the same folder.

    python browser.py job.json > times.jsonl

The page, its runtime and the models are served on the loopback interface alone. Times are taken in the page.
"""

import atexit
import glob
import http.server
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import runner
import web_runtime

PATIENCE_S = 60  # for any answer of the page
POLL_S = 20  # until the page is to ask again for a command
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-renderer-backgrounding",
    "--no-first-run",
)


class Browser:
    """A browser with one page, which gets commands and posts answers."""

    def start(self, job):
        try:
            files = web_runtime.runtime_files("wasm")
        except FileNotFoundError as error:
            sys.exit(str(error))
        chromium = find_chromium()
        self.files = {"/" + name: file for name, file in files.items()}
        self.files["/"] = Path(__file__).resolve().with_name("browser.html")
        self.commands, self.answers = queue.Queue(), queue.Queue()
        self.asked, self.received = 0, set()  # the numbers of commands and of answers
        server = Server(("127.0.0.1", 0), Handler)
        server.browser = self
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.open(chromium, f"http://127.0.0.1:{server.server_address[1]}/")
        page = self.answer()
        major = re.search(r"Chrome/(\d+)", page["agent"])
        if not major or not page["version"]:
            sys.exit("{} does not start in {}".format(files["ort.js"], page["agent"]))
        if job["threads"] > 1 and not page["isolated"]:
            sys.exit("{} gives a page one thread only".format(page["agent"]))
        self.clock_ms = page["clock_ms"]
        model = f"{runner.processor_model()}, Chromium {major.group(1)}"
        return {
            "runtime": "onnxruntime-web",
            "version": page["version"],
            "provider": "wasm",
            "options": {"pinned": False},
            "device": {"name": model, "kind": "browser", "model": model},
            "clock_ms": self.clock_ms,
        }

    def load(self, path, job):
        if not os.path.isfile(path):
            sys.exit(f"there is no model {path}")
        self.files["/model"] = Path(path)
        command = {"do": "load", "threads": job["threads"], "batch": job["batch"]}
        return self.ask(dict(command, provider="wasm", clock_ms=self.clock_ms))["model"]

    def values(self, model, job, warmup_ms):
        rules = {name: job[name] for name in ("block_ms", "visit_ms", "min_blocks", "max_blocks")}
        command = {"do": "values", "model": model, "warmup_ms": warmup_ms, "clock_ms": self.clock_ms, **rules}
        return self.ask(command)["times"]

    def threads(self):
        """Return the main thread of every page process: one of them runs the models."""
        session = str(self.keeper.pid)
        processes = [Path(path) for path in glob.glob("/proc/[0-9]*")]
        return [
            int(process.name)
            for process in processes
            if runner.read_text(str(process / "stat")).rpartition(")")[2].split()[3:4] == [session]
            and "--type=renderer" in runner.read_text(str(process / "cmdline"))
        ]

    def ask(self, command):
        self.asked += 1
        self.commands.put(dict(command, number=self.asked))
        return self.answer()

    def receive(self, message):
        """Take an answer, once: the page repeats a message that got no reply."""
        if message["number"] not in self.received:
            self.received.add(message["number"])
            self.answers.put(message["answer"])

    def answer(self):
        try:
            answer = self.answers.get(timeout=PATIENCE_S)
        except queue.Empty:
            sys.exit(f"the page in the browser has not answered for {PATIENCE_S} s")
        if "error" in answer:
            sys.exit(" ".join(answer["error"].split()))
        return answer

    def open(self, chromium, address):
        """Start the browser in a keeper process, which ends it when this program ends, for whatever reason."""
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self.keeper = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--keep", chromium, *FLAGS, *sandbox, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self.close)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        stderr = self.keeper.stdout.read().decode(errors="replace")
        self.answers.put({"error": "the browser ended: " + stderr})

    def close(self):
        self.keeper.stdin.close()
        self.keeper.wait()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignore a broken connection; ``answer`` reports a page that does not answer."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it holds back small answers for 40 ms

    def do_GET(self):
        browser = self.server.browser
        if self.path.startswith("/alive?"):
            self.reply(200, "text/plain")
            try:
                self.rfile.read(1)  # no data comes; it returns when the page dies
            finally:
                browser.answers.put({"error": "the page in the browser died"})
        elif self.path in browser.files:
            file = browser.files[self.path]
            self.reply(200, web_runtime.TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes())
        else:
            self.reply(404, "text/plain", b"")

    def do_POST(self):
        """Receive an answer; reply with the next command, as soon as there is one."""
        if self.path != "/next":
            self.reply(404, "text/plain", b"")
            return
        browser = self.server.browser
        browser.receive(json.loads(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        try:
            command = browser.commands.get(timeout=POLL_S)
        except queue.Empty:
            command = {"do": "wait"}
        self.reply(200, "application/json", json.dumps(command).encode())

    def reply(self, status, kind, content=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        # These two headers allow the page a fine clock, and threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def keep(command):
    """Run a browser with a new profile until it or standard input ends, then remove the profile.

    If the browser ends by itself, print the last line of its standard error.
    """
    folder = tempfile.mkdtemp(prefix="hwnas-browser-")
    log = os.path.join(folder, "stderr")
    folders = dict.fromkeys(("TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), folder)
    try:
        with open(log, "wb") as stderr:
            browser = subprocess.Popen(
                [*command, "--user-data-dir=" + folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=dict(os.environ, **folders),
                preexec_fn=os.setpgrp,
            )
        stopped = threading.Event()

        def end():
            sys.stdin.read()
            stopped.set()
            os.killpg(browser.pid, signal.SIGKILL)

        threading.Thread(target=end, daemon=True).start()
        browser.wait()
        if not stopped.is_set():
            print((runner.read_text(log).strip().splitlines() or ["no message"])[-1])
    finally:
        for _ in range(50):  # the last of its processes may still be writing
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.1)


def find_chromium():
    named = os.environ.get("HWNAS_CHROMIUM")
    for name in [named] if named else BROWSERS:
        if shutil.which(name):
            return shutil.which(name)
    where = f"at HWNAS_CHROMIUM={named}" if named else "here"
    sys.exit(f"there is no Chromium {where}: run apt-get install chromium, or name one in HWNAS_CHROMIUM")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keep"]:
        keep(sys.argv[2:])
    else:
        browser = Browser()
        runner.serve(browser.start, browser.load, browser.values, browser.threads)
