"""A headless Chromium, driven by its DevTools protocol over two pipes: nothing but the browser is needed."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any, NamedTuple

import pytest

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "--mute-audio")
_FLAGS += ("--disable-background-networking", "--disable-sync", "--disable-component-update")


class Seen(NamedTuple):
  """What a page is like: its picture, its width and the window's in pixels, and what the browser complained of."""

  picture: bytes
  width: int
  window: int
  complaints: list[str]


class Browser:
  """Opens pages. To be closed; a context manager does that."""

  def __init__(self, profile: pathlib.Path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
      pytest.skip("no Chromium on this machine")
    theirs_in, self._out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It reads commands from 3 and writes answers to 4.
    command = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
    self._process = subprocess.Popen(
      ["bash", "-c", command, "bash", program, *_FLAGS, f"--user-data-dir={profile}"],
      pass_fds=(theirs_in, theirs_out),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    self._in, self._rest = ours_in, b""
    self._count, self._events = 0, []

  def __enter__(self) -> "Browser":
    return self

  def __exit__(self, *_: object) -> None:
    self._send("Browser.close")
    self._process.wait(timeout=20)
    os.close(self._out)
    os.close(self._in)

  def look(self, path: pathlib.Path, width: int, dark: bool = False) -> Seen:
    """Opens a file in a window of this width."""
    target = self._call("Target.createTarget", url="about:blank")["targetId"]
    session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    self._events.clear()

    def call(method: str, **parameters: Any) -> dict[str, Any]:
      return self._call(method, session, **parameters)

    for domain in ("Page", "Runtime", "Log"):
      call(f"{domain}.enable")
    call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    call(
      "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    )
    call("Page.navigate", url=path.absolute().as_uri())
    while not any(event["method"] == "Page.loadEventFired" for event in self._events):
      self._read()
    script = "JSON.stringify([document.documentElement.scrollWidth, window.innerWidth])"
    found, window = json.loads(call("Runtime.evaluate", expression=script)["result"]["value"])
    picture = call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
    complaints = [
      json.dumps(event["params"])
      for event in self._events
      if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    self._call("Target.closeTarget", targetId=target)
    return Seen(base64.b64decode(picture), found, window, complaints)

  def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
    number = self._send(method, session, **parameters)
    while True:
      answer = self._read()
      if answer.get("id") == number:
        assert "error" not in answer, answer
        return answer["result"]

  def _send(self, method: str, session: str | None = None, **parameters: Any) -> int:
    self._count += 1
    message = {"id": self._count, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
    os.write(self._out, json.dumps(message).encode() + b"\0")
    return self._count

  def _read(self) -> dict[str, Any]:
    while b"\0" not in self._rest:
      more = os.read(self._in, 1 << 20)
      assert more, "Chromium has gone"
      self._rest += more
    text, _, self._rest = self._rest.partition(b"\0")
    message = json.loads(text)
    if "method" in message:
      self._events.append(message)
    return message
