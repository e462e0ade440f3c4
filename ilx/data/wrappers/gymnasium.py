"""A Gymnasium environment that records what is played in it."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilx.data.record import Recorder
from ilx.data.wrappers import playing
from ilx.types import Tree

try:
  import gymnasium
  from gymnasium import spaces
except ModuleNotFoundError as error:
  raise ModuleNotFoundError(f'{error}; recording from Gymnasium needs it: pip install "ilx[gym]"') from None


class RecordEpisodes(gymnasium.Wrapper):
  """Records every episode that is played, by a human or a policy, as the RLDS dataset ``<directory>/<name>/<version>``.

  ``close`` publishes the dataset. Until then episodes are in a journal beside it: a kill loses no more than the one
  being played, and the same call goes on behind the last finished one. So does leaving a ``with`` block by an
  exception, which publishes nothing.

  Fields: observations and actions as their spaces nest them (a ``Tuple``'s by number: "0", "1"...), ``Text`` as text;
  "info" and "frame" if asked for. A termination is terminal, a truncation is not. Discounts are 1, and 0 on
  termination. float64 actions are rounded to float32 before they are played, so that playing what is stored shows the
  same. ``episode_metadata["seed"]`` is the one given to ``reset``; -1: none.

  Example::

    with RecordEpisodes(gymnasium.make("CartPole-v1"), "~/data", name="my-cartpole") as env:
      play(env)
    episodes = ilx.data.load("~/data/my-cartpole")

  Attributes:
    recorder: of the dataset; its ``num_episodes`` counts those of an earlier, killed run too.
    episode_metadata: of the episode being played and those that follow, such as the player's name; the same keys
      in all. May be changed until an episode's end.
  """

  def __init__(
    self,
    env: gymnasium.Env,
    directory: str | os.PathLike,
    *,
    name: str,
    version: str = "1.0.0",
    split: str = "train",
    metadata: Mapping[str, Any] | None = None,
    info_keys: Sequence[str] = (),
    frames: bool = False,
    image_format: str | None = None,
    keep_abandoned: bool = True,
  ):
    """Opens the recording.

    Args:
      env: one environment, not a vector of them.
      directory: the folder of datasets, such as ``ilx.data.root()``.
      name: see ``Recorder``.
      version: see ``Recorder``.
      split: see ``Recorder``.
      metadata: entries of ``metadata.json`` beside, or instead of, "env_id", "env_kwargs", "action_low" and
        "action_high" or "num_actions", "recorded_with", and returns and counts.
      info_keys: entries of ``info`` that become fields "info/<key>", beside the observation they came with. All steps
        must give them; where a reset does not, its value is 0 or empty text.
      frames: whether pictures that the environment renders (``render_mode="rgb_array"``) become the field "frame".
      image_format: "png" or "jpeg": encodes pictures in observations too; frames are "jpeg" by default.
      keep_abandoned: whether an episode that ``reset`` or ``close`` cuts is recorded, as ended by a time limit.

    Raises:
      TypeError: where ``env`` is no environment.
      ValueError: for a space that has no place in a dataset, options that make no sense, or an unfinished recording
        of another environment.
      FileExistsError, RuntimeError: see ``Recorder``.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
      raise TypeError("RecordEpisodes: records one environment; wrap each of a vector's before they are stacked")
    super().__init__(env)
    _check(env.observation_space, "observation")
    _check(env.action_space, "action")
    if frames and env.render_mode != "rgb_array":
      raise ValueError(f'RecordEpisodes: frames need render_mode="rgb_array"; the environment has {env.render_mode!r}')
    about = _about(env, dict(metadata or {}))
    self._frames = (image_format or "jpeg") if frames else None
    self._info_keys = tuple(info_keys)
    self._open, self._seed = True, -1
    self.recorder = Recorder(
      directory, name=name, version=version, split=split, metadata=about, image_format=image_format
    )
    try:
      identity = {key: about.get(key) for key in ("env_id", "env_kwargs")}
      self._playing = playing.Playing(self.recorder, identity, keep_abandoned)
    except BaseException:
      self.recorder.suspend()
      raise
    self.episode_metadata: dict[str, Any] = {}

  def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """Begins an episode; one that is being played is left.

    Raises:
      ValueError: for a seed that does not fit in the episode's metadata, int64.
    """
    if seed is not None and not -(2**63) <= seed < 2**63:
      raise ValueError(f"RecordEpisodes.reset: seed={seed} does not fit in 64 bits; choose a smaller one")
    self._abandon()
    observation, info = self.env.reset(seed=seed, options=options)
    self._playing.begin(_named(self.env.observation_space, observation), self._extras(info))
    self._seed = -1 if seed is None else seed
    return observation, info

  def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
    """Plays one step, and records the episode where it ends.

    Raises:
      RuntimeError: where no episode is being played.
      ValueError, OSError: where the finished episode cannot be recorded; earlier ones are not touched.
    """
    if not self._playing.is_playing:
      raise RuntimeError("RecordEpisodes.step: no episode is being played; reset first (Autoreset goes around this)")
    action = _rounded(self.env.action_space, action)
    played = _named(self.env.action_space, action)
    try:
      observation, reward, terminated, truncated, info = self.env.step(action)
      if missing := [key for key in self._info_keys if key not in info]:
        raise ValueError(f"RecordEpisodes: info has no {missing[0]!r} at this step; there: {', '.join(map(str, info))}")
      following = _named(self.env.observation_space, observation), self._extras(info)
    except BaseException:
      self._playing.drop()  # a step is missing from it now
      raise
    self._playing.metadata = self._of_episode()
    self._playing.step(
      played,
      reward,
      0.0 if terminated else 1.0,
      *following,
      last=bool(terminated or truncated),
      terminal=bool(terminated),
    )
    return observation, reward, terminated, truncated, info

  def close(self) -> None:
    """Publishes the dataset and closes the environment; without any episode there is nothing to publish.

    Raises:
      ValueError, OSError: as ``Recorder.close``; the journal stays.
    """
    self._close(publish=True)

  def __exit__(self, kind: Any, *rest: Any) -> bool:
    """Closes; an exception keeps the journal and publishes nothing."""
    self._close(publish=kind is None)
    return False

  def _close(self, *, publish: bool) -> None:
    try:
      if self._open:
        self._open = False
        self._playing.metadata = self._of_episode()
        self._playing.close(publish=publish)
    finally:
      self.env.close()

  def _abandon(self) -> None:
    if self._playing.is_playing:
      self._playing.metadata = self._of_episode()
      self._playing.abandon()

  def _of_episode(self) -> dict[str, Any]:
    return {"seed": self._seed, **self.episode_metadata}

  def _extras(self, info: Mapping[str, Any]) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if self._info_keys:
      extras["info"] = {key: playing.copied(info[key]) for key in self._info_keys if key in info}
    if self._frames:
      extras["frame"] = playing.Picture(self.env.render(), self._frames)
    return extras


def _check(space: spaces.Space, name: str) -> None:
  """Raises ValueError for a space whose values have no place in a dataset; names it."""
  if isinstance(space, spaces.Dict | spaces.Tuple):
    for key, child in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
      if "/" in str(key):
        raise ValueError(f"RecordEpisodes: {name} has the key {key!r}; keys are strings without '/'")
      _check(child, f"{name}/{key}")
  elif not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete | spaces.Text):
    raise ValueError(f"RecordEpisodes: {name} is a {type(space).__name__}, whose values are of no fixed size")


def _named(space: spaces.Space, value: Any) -> Tree:
  """A value of a space as nested dicts of arrays and text of its own."""
  if isinstance(space, spaces.Dict):
    return {str(key): _named(child, value[key]) for key, child in space.items()}
  if isinstance(space, spaces.Tuple):
    return {str(index): _named(child, item) for index, (child, item) in enumerate(zip(space, value, strict=True))}
  if isinstance(space, spaces.Text):
    return str(value)
  # Environments are careless with their types of floats, and a type may not change between episodes.
  return np.array(value, space.dtype if space.dtype.kind == "f" else None)


def _rounded(space: spaces.Space, action: Any) -> Any:
  """The action with what is float64 in it rounded to float32."""
  if isinstance(space, spaces.Dict):
    return {key: _rounded(child, action[key]) for key, child in space.items()}
  if isinstance(space, spaces.Tuple):
    return tuple(_rounded(child, item) for child, item in zip(space, action, strict=True))
  return playing.rounded(action, space.low, space.high) if isinstance(space, spaces.Box) else action


def _about(env: gymnasium.Env, metadata: dict[str, Any]) -> dict[str, Any]:
  """What ``metadata.json`` says of the environment."""
  found: dict[str, Any] = {"recorded_with": {"gymnasium": gymnasium.__version__}}
  if env.spec is not None:
    kwargs = {key: value for key, value in env.spec.kwargs.items() if key != "render_mode"}
    if "env_kwargs" not in metadata:
      for key, value in kwargs.items():
        try:
          json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
          raise ValueError(
            f"RecordEpisodes: the environment's option {key!r} is not JSON ({error}); "
            'say how it was made in metadata={"env_kwargs": ...}'
          ) from None
    limit = env.spec.max_episode_steps
    registered = gymnasium.registry.get(env.spec.id)
    if registered is not None and limit != registered.max_episode_steps:
      kwargs["max_episode_steps"] = limit
    found |= {"env_id": env.spec.id, "env_kwargs": kwargs}
  return found | _bounds(env.action_space) | metadata


def _bounds(space: spaces.Space) -> dict[str, Any]:
  """What ``metadata.json`` says of the actions, parts named as ``_named`` does."""
  if isinstance(space, spaces.Dict):
    return playing.parted({str(key): _bounds(child) for key, child in space.items()})
  if isinstance(space, spaces.Tuple):
    return playing.parted({str(index): _bounds(child) for index, child in enumerate(space)})
  if isinstance(space, spaces.Box) and space.dtype.kind == "f":
    return playing.bounds(space.low, space.high)
  if isinstance(space, spaces.Discrete) and space.start == 0:
    return {"num_actions": int(space.n)}
  if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
    return {"num_actions": [2] * space.shape[0]}
  if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and not np.any(space.start):
    return {"num_actions": space.nvec.tolist()}
  return {}
