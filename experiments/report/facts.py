"""What a result says: scores beside the references, in the words and numbers that report and terminal share."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.report import heldout, text
from experiments.report.run import interval, number, numbers

REFERENCES = ("expert", "data", "random")


class Score(NamedTuple):
  """One row of the comparison.

  Attributes:
    kind: policy, expert, data or random.
    value: mean return per episode, None if not known.
    band: its 95 % confidence interval, if known.
    normalized: 0 for the random policy, 100 for the expert; None if either is not known.
  """

  kind: str
  value: float | None
  band: tuple[float, float] | None
  normalized: float | None


def scores(result: Mapping[str, Any]) -> list[Score]:
  """Policy, expert, data and random policy, in this order."""
  expert, random = number(result.get("expert_return")), number(result.get("random_return"))

  def normalized(value: float | None) -> float | None:
    if value is None or expert is None or random is None or expert == random:
      return None
    return 100 * (value - random) / (expert - random)

  policy = number(result.get("return_mean"))
  rows = [Score("policy", policy, interval(result.get("return_ci95")), normalized(policy))]
  for kind in REFERENCES:
    value = number(result.get(f"{kind}_return"))
    rows.append(Score(kind, value, None, normalized(value)))
  return rows


def decimals(result: Mapping[str, Any]) -> int:
  """Decimals that the returns of the comparison are printed with, everywhere alike."""
  return text.decimals_for(score.value for score in scores(result) if score.value is not None)


def success(result: Mapping[str, Any]) -> str:
  """``43.0 % of the episodes``; empty where the environment does not tell."""
  rate = number(result.get("success_rate"))
  return "" if rate is None else f"{text.fixed(100 * rate, 1)} % of the episodes"


def asked_for(result: Mapping[str, Any]) -> str:
  """``a return of 3,074``; empty of policies that are not asked for any."""
  asked = number(result.get("target_return"))
  return "" if asked is None else f"a return of {text.fixed(asked, decimals(result))}"


def verdict(result: Mapping[str, Any]) -> str:
  """One sentence: where the policy's mean return lies beside the expert's."""
  policy, expert, data, random = scores(result)
  if policy.value is None:
    return heldout.verdict(result) or unscored(result)
  other = expert if expert.value is not None else data
  if other.value is None:
    return "Neither the expert's nor the data's return is known, so the return has nothing to be measured against."
  name = "expert" if other is expert else "data"
  places = decimals(result)
  gap = policy.value - other.value
  share = f" ({100 * abs(gap) / other.value:.1f} %)" if other.value > 0 else ""
  if text.fixed(gap, places) == text.fixed(0.0, places):
    sentence = f"The policy's mean return equals the {name}'s"
  else:
    side = "below" if gap < 0 else "above"
    sentence = f"The policy's mean return is {text.fixed(abs(gap), places)}{share} {side} the {name}'s"
  if policy.band and gap:
    inside = policy.band[0] <= other.value <= policy.band[1]
    sentence += f", which its 95 % interval {'includes' if inside else 'excludes'}"
  if other is data:
    sentence += ". The expert's return is not known"
  if random.value is not None and policy.value <= random.value:
    sentence += ". That is no better than a random policy"
  return sentence + "."


def seeds(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """The parts of the seeds of a run of several; empty for a run of one."""
  parts = result.get("per_seed")
  return [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []


def seed_words(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
  """``seed 3``, ``seeds 0 to 9``; empty where it is not known."""
  first, count = (result.get(key, config.get(key)) for key in ("seed", "seeds"))
  if first is None:
    return ""
  if not isinstance(first, int) or not isinstance(count, int) or count <= 1:
    return f"seed {first}"
  return f"seeds {first} to {first + count - 1}"


def values(result: Mapping[str, Any], key: str) -> list[float]:
  """The finite numbers of a list of the result, such as its returns; of several seeds those of all."""
  return [x for part in seeds(result) or [result] for x in numbers(part.get(key))]


def plays(result: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> bool:
  """Whether there is an environment, as far as is known: without one, "env_id" is None in the result."""
  return result.get("env_id", "") is not None and (config or {}).get("env_id") != "none"


def played_in(result: Mapping[str, Any]) -> str | None:
  """``Hopper-v5``, ``Hopper-v5 {"frame_skip": 2}``, ``no environment``; None where the result does not tell."""
  if "env_id" not in result:
    return None
  if result["env_id"] is None:
    return "no environment"
  options = result.get("env_kwargs")
  return f"{result['env_id']}{f' {json.dumps(options, sort_keys=True)}' if options else ''}"


def unscored(result: Mapping[str, Any]) -> str:
  """Why there is no score."""
  if plays(result):
    return "The policy's return is not recorded."
  loss = number(result.get("loss"))
  last = f" The loss came to {text.significant(loss)}." if loss is not None else ""
  return f"Nothing was scored: there is no environment, and no episode was held out.{last}"


def name(value: Any) -> str:
  """The name of an agent or dataset, given as a string or as a config section with the key ``name``."""
  if isinstance(value, Mapping):
    value = value.get("name")
  return str(value) if value not in (None, "") else ""


def heading(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
  """``BC on halfcheetah-expert``."""
  return f"{agent(result, config)} on {data(result, config)}"


def agent(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
  """``BC``, ``td3_bc``."""
  found = name(result.get("agent")) or name(config.get("agent")) or "policy"
  return found.upper() if found.isalpha() and len(found) <= 4 else found


def data(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
  """The names of the datasets without the folders they are in."""
  found = name(result.get("dataset")) or name(config.get("dataset")) or "unnamed data"
  return text.short_datasets(found)


def versioned(dataset: str, versions: Mapping[str, str]) -> str:
  """``game/1.0.1``, ``a/1.0.0=0.7,b/2.0.0=0.3``: a config's words on data, every dataset with the version it has."""
  if not versions:
    return dataset
  pieces = [dataset] if dataset in versions else dataset.split(",")
  return ",".join(_versioned(piece.strip(), versions) for piece in pieces)


def _versioned(piece: str, versions: Mapping[str, str]) -> str:
  name, mark, share = (piece, "", "") if piece in versions or "=" not in piece else piece.rpartition("=")
  version = versions.get(name)
  is_named = version is None or name.rstrip("/").rpartition("/")[2] == version
  return f"{name}{'' if is_named else f'/{version}'}{mark}{share}"


def learnt_from(result: Mapping[str, Any]) -> str | None:
  """``game/1.0.1``; None where the result does not tell."""
  dataset, versions = result.get("dataset"), result.get("dataset_versions")
  return versioned(dataset, versions) if isinstance(dataset, str) and isinstance(versions, Mapping) else None


def finite(values: Any) -> list[float]:
  """The finite ones of ``values``."""
  return [v for v in values if math.isfinite(v)]
