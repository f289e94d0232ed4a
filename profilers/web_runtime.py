"""Find the files of onnxruntime-web that a page loads. Standard library only."""

import os
from pathlib import Path

# By provider, the smallest first: the first of WebAssembly has nothing else, and a smaller binary.
SCRIPTS = {"wasm": ("ort.wasm.min.js", "ort.min.js"), "webgpu": ("ort.webgpu.min.js", "ort.all.min.js")}
TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def runtime_files(provider):
    """Return path in the page's address -> file: the script ``ort.js`` and what it loads from ``ort/``.

    They are in the folder that HWNAS_ONNXRUNTIME_WEB names, else in the nearest that npm created: in the current
    folder, those above it and the home folder. Raises FileNotFoundError, with what to do, when there are none.
    """
    named = os.environ.get("HWNAS_ONNXRUNTIME_WEB")
    folders = [Path.cwd(), *Path.cwd().parents, Path.home()]
    for folder in [Path(named)] if named else [folder / "node_modules/onnxruntime-web/dist" for folder in folders]:
        for name in SCRIPTS[provider]:
            if (folder / name).exists():
                loaded = {"ort/" + file.name: file for file in folder.glob("ort-wasm-*") if file.suffix in TYPES}
                return dict(loaded, **{"ort.js": folder / name})
    where = f"in HWNAS_ONNXRUNTIME_WEB={named}" if named else "here"
    raise FileNotFoundError(f"there is no onnxruntime-web {where}: run npm install onnxruntime-web in your home folder")
