"""In which numbers a training computes."""

from __future__ import annotations

from pathlib import Path

BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
CPU_INFO = Path("/proc/cpuinfo")


def bfloat16_flag(cpu_info: Path = CPU_INFO) -> str | None:
    """What lets this processor multiply in bfloat16, by the system's name; None where it cannot, or does not say."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((flag for flag in BFLOAT16_FLAGS if flag in flags), None)


def choose_precision(asked: str) -> tuple[str, str]:
    """float32 or bf16 for what was asked, and why."""
    if asked != "auto":
        return asked, "as asked"
    flag = bfloat16_flag()
    if flag:
        return "bf16", f"the processor has {flag}"
    return "float32", f"the processor has neither {' nor '.join(BFLOAT16_FLAGS)}"
