"""Playing a policy in EnvPool, beside EnvPool stepped with the same actions again and again."""

import jax
import numpy as np

import ilx
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Row
from ilx.evaluation import environments

ENV_ID = "HalfCheetah-v5"
NUM_ENVS = 64


def run(quick: bool) -> list[Row]:
  """Environment steps a second of `ilx.evaluate` with a policy of 2x256 units."""
  limit = {"max_episode_steps": 30 if quick else 500}
  agent = ilx.agents.bc(environments.spec(ENV_ID))
  spec = environments.spec(ENV_ID)
  observation = np.zeros((NUM_ENVS, *spec.observation.shape), np.float32)
  batch = ilx.Transition(observation, np.zeros((NUM_ENVS, spec.action.size), np.float32), None, None, observation)
  params = agent.init(jax.random.key(0), batch).params
  env = environments.make(ENV_ID, NUM_ENVS, 0, **limit)
  first = environments.observe(env.reset()[0])
  step = ilx.Step(first, np.zeros(NUM_ENVS, np.float32), np.ones(NUM_ENVS, bool))
  action = np.asarray(agent.act(params, (), step, None)[0])

  def evaluate() -> float:
    result = ilx.evaluate(agent, params, ENV_ID, episodes=NUM_ENVS, num_envs=NUM_ENVS, env_kwargs=limit)
    return float(result.env_steps)

  def raw() -> float:
    env = environments.make(ENV_ID, NUM_ENVS, 0, **limit)
    env.reset()
    for _ in range(limit["max_episode_steps"]):
      env.step(action)
    return float(NUM_ENVS * limit["max_episode_steps"])

  evaluate()
  times = measure.interleave({"evaluate": evaluate, "raw": raw}, 2 if quick else 7)
  note = f"{NUM_ENVS} slots, making them included"
  return [measure.row(f"evaluate, {ENV_ID}", times["evaluate"], "steps/s", "EnvPool alone", times["raw"], note=note)]
