"""A dm_env environment that records what is played in it."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ilx.data.record import Recorder
from ilx.data.wrappers import playing

try:
  import dm_env
  from dm_env import specs
except ModuleNotFoundError as error:
  raise ModuleNotFoundError(f'{error}; recording from dm_env needs it: pip install "ilx[gym]"') from None


class RecordEpisodes(dm_env.Environment):
  """Records every episode that is played as the RLDS dataset ``<directory>/<name>/<version>``.

  ``close`` publishes the dataset. Until then episodes are in a journal beside it: a kill loses no more than the one
  being played, and the same call goes on behind the last finished one. So does leaving a ``with`` block by an
  exception, which publishes nothing.

  Fields: observations and actions as their specs nest them (lists and tuples by number: "0", "1"...), strings as text,
  and "frame" if asked for. Discounts are the environment's; a last step with discount 0 is terminal, one with another
  (a truncation) is not. float64 actions are rounded to float32 before they are played, so that playing what is
  stored shows the same. Anything else that the environment has (``physics``, ``task``) is reached through this one.

  Example::

    with RecordEpisodes(environment, "~/data", name="my-cartpole", metadata={"env_id": "dm_cartpole"}) as recorded:
      play(recorded)
    episodes = ilx.data.load("~/data/my-cartpole")

  Attributes:
    recorder: of the dataset; its ``num_episodes`` counts those of an earlier, killed run too.
    episode_metadata: of the episode being played and those that follow, such as the player's name; the same keys
      in all. May be changed until an episode's end.
  """

  def __init__(
    self,
    environment: dm_env.Environment,
    directory: str | os.PathLike,
    *,
    name: str,
    version: str = "1.0.0",
    split: str = "train",
    metadata: Mapping[str, Any] | None = None,
    frame: Callable[[], np.ndarray] | None = None,
    image_format: str | None = None,
    keep_abandoned: bool = True,
  ):
    """Opens the recording.

    Args:
      environment: what is played.
      directory: the folder of datasets, such as ``ilx.data.root()``.
      name: see ``Recorder``.
      version: see ``Recorder``.
      split: see ``Recorder``.
      metadata: entries of ``metadata.json`` beside, or instead of, "action_low" and "action_high" or "num_actions",
        and returns and counts. Should have "env_id", which dm_env does not tell.
      frame: gives a picture, uint8 ``[height, width, 3]``, of the environment as it is; becomes the field "frame".
      image_format: "png" or "jpeg": encodes pictures in observations too; frames are "jpeg" by default.
      keep_abandoned: whether an episode that ``reset`` or ``close`` cuts is recorded, as ended by a time limit.

    Raises:
      ValueError: for options that make no sense, or an unfinished recording of another environment.
      FileExistsError, RuntimeError: see ``Recorder``.
    """
    self._environment = environment
    self._action_spec = environment.action_spec()
    self._frame, self._frame_format = frame, image_format or "jpeg"
    self._open = True
    about = _about(self._action_spec) | dict(metadata or {})
    self.recorder = Recorder(
      directory, name=name, version=version, split=split, metadata=about, image_format=image_format
    )
    try:
      self._playing = playing.Playing(self.recorder, {"env_id": about.get("env_id")}, keep_abandoned)
    except BaseException:
      self.recorder.suspend()
      raise

  @property
  def episode_metadata(self) -> dict[str, Any]:
    """See the class."""
    return self._playing.metadata

  @episode_metadata.setter
  def episode_metadata(self, metadata: Mapping[str, Any]) -> None:
    self._playing.metadata = dict(metadata)

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode; one that is being played is left."""
    self._playing.abandon()
    return self._begin(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Plays one step, and records the episode where it ends; begins one where none is being played.

    Raises:
      ValueError, OSError: where the finished episode cannot be recorded; earlier ones are not touched.
    """
    action = _rounded(self._action_spec, action)
    played = playing.copied(action)
    try:
      now = self._environment.step(action)
      if now.first():
        self._playing.abandon()
        return self._begin(now)
      if not self._playing.is_playing:
        raise RuntimeError("RecordEpisodes.step: the environment goes on with an episode that was not seen to begin")
      following = playing.copied(now.observation), self._extras()
    except BaseException:
      self._playing.drop()  # a step is missing from it now
      raise
    terminal = now.last() and playing.scalar(now.discount, "discount") == 0.0
    self._playing.step(played, now.reward, now.discount, *following, last=now.last(), terminal=terminal)
    return now

  def observation_spec(self) -> Any:
    """The environment's."""
    return self._environment.observation_spec()

  def action_spec(self) -> Any:
    """The environment's."""
    return self._environment.action_spec()

  def reward_spec(self) -> Any:
    """The environment's."""
    return self._environment.reward_spec()

  def discount_spec(self) -> Any:
    """The environment's."""
    return self._environment.discount_spec()

  def close(self) -> None:
    """Publishes the dataset and closes the environment; without any episode there is nothing to publish.

    Raises:
      ValueError, OSError: as ``Recorder.close``; the journal stays.
    """
    self._close(publish=True)

  def __exit__(self, kind: Any, *rest: Any) -> None:
    """Closes; an exception keeps the journal and publishes nothing."""
    self._close(publish=kind is None)

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_"):
      raise AttributeError(name)
    return getattr(self._environment, name)

  def _close(self, *, publish: bool) -> None:
    try:
      if self._open:
        self._open = False
        self._playing.close(publish=publish)
    finally:
      self._environment.close()

  def _begin(self, first: dm_env.TimeStep) -> dm_env.TimeStep:
    self._playing.begin(playing.copied(first.observation), self._extras())
    return first

  def _extras(self) -> dict[str, Any]:
    return {"frame": playing.Picture(self._frame(), self._frame_format)} if self._frame else {}


def _rounded(spec: Any, action: Any) -> Any:
  """The action with what is float64 in it rounded to float32."""
  if isinstance(spec, Mapping):
    return {key: _rounded(child, action[key]) for key, child in spec.items()}
  if isinstance(spec, list | tuple):
    return [_rounded(child, item) for child, item in zip(spec, action, strict=True)]
  if isinstance(spec, specs.BoundedArray):
    return playing.rounded(action, spec.minimum, spec.maximum)
  return playing.rounded(action)


def _about(spec: Any) -> dict[str, Any]:
  """What ``metadata.json`` says of the actions; of lists as of dicts, by number."""
  if isinstance(spec, Mapping):
    return playing.parted({str(key): _about(child) for key, child in spec.items()})
  if isinstance(spec, list | tuple):
    return playing.parted({str(index): _about(child) for index, child in enumerate(spec)})
  if isinstance(spec, specs.DiscreteArray):
    return {"num_actions": int(spec.num_values)}
  if isinstance(spec, specs.BoundedArray) and spec.dtype.kind == "f":
    return playing.bounds(np.broadcast_to(spec.minimum, spec.shape), np.broadcast_to(spec.maximum, spec.shape))
  return {}
