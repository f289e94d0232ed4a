"""Devices and browsers, as pages describe them."""

from __future__ import annotations

import pytest

from hwnas.profiling.connections.page_device import browser_of, gpu_of, system_of


@pytest.mark.parametrize(
    ("agent", "browser", "system"),
    [
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.5 Mobile/15E148 Safari/604.1",
            "Safari 18.5",
            "iOS 18.5",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "CriOS/130.0.6723.90 Mobile/15E148 Safari/604.1",
            "Chrome 130",
            "iOS 17.7",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 "
            "Chrome/122.0.0.0 Mobile Safari/537.36",
            "Samsung Internet 26",
            "Android",
        ),
        ("Mozilla/5.0 (Android 15; Mobile; rv:139.0) Gecko/139.0 Firefox/139.0", "Firefox 139", "Android"),
        (
            "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/108.0.5359.211 "
            "Safari/537.36",
            "Chromium 108",
            "webOS",
        ),
        (
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 8.0) AppleWebKit/537.36 (KHTML, like Gecko) "
            "SamsungBrowser/7.0 Chrome/108.0.5359.1 TV Safari/537.36",
            "Samsung Internet 7",
            "Tizen",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 "
            "Safari/537.36 Edg/137.0.0.0",
            "Edge 137",
            "Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 "
            "Safari/605.1.15",
            "Safari 18.4",
            "macOS",
        ),
        ("Mozilla/5.0 (X11; Linux aarch64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128", "Linux aarch64"),
        ("something else", "unknown browser", "unknown system"),
    ],
)
def test_user_agents(agent: str, browser: str, system: str) -> None:
    assert (browser_of(agent), system_of(agent)) == (browser, system)


@pytest.mark.parametrize(
    ("renderer", "gpu"),
    [
        ("ANGLE (Qualcomm, Adreno (TM) 730, OpenGL ES 3.2)", "Adreno (TM) 730"),
        ("ANGLE (Apple, ANGLE Metal Renderer: Apple M1, Unspecified Version)", "Apple M1"),
        ("Apple GPU", "Apple GPU"),
        ("", ""),
    ],
)
def test_names_of_gpus(renderer: str, gpu: str) -> None:
    assert gpu_of(renderer) == gpu
