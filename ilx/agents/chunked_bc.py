"""Action chunking: behaviour cloning of several actions at once (Zhao et al. 2023, ACT).

"Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", sections IV-A and IV-B, without its transformer
and its variational encoder: any observation, any head.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ilx import ranges
from ilx.agents import checks, policies
from ilx.agents.policies import Params, State
from ilx.data.windows import Chunks
from ilx.networks import chunks, scaling
from ilx.networks.chunks import Plan, Votes
from ilx.networks.distributions import Distribution
from ilx.parallel import replicas
from ilx.types import Agent, Chunk, Spec, Step, Tree

# Of the logarithm of a prediction's weight, so that sums and quotients of weights are float32.
_MOST = 80


def chunked_bc(
  spec: Spec,
  *,
  length: int = 8,
  ensemble: float = 0.01,
  execute: int = 0,
  head: str | None = None,
  head_options: Mapping[str, Any] | None = None,
  hidden: Sequence[int] = (256, 256),
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """Behaviour cloning of chunks: an observation to the next ``length`` actions.

  Minimises ``-E log pi_t(action_t | observation)`` over the actions that there are before the episode ends (the
  default head's is the squared error; the paper has the absolute one). The actions
  of a chunk are independent, given the observation.

  At play a chunk is predicted at every step, and what is done is the average of all predictions for that step, oldest
  first, with weights ``w_i = exp(-ensemble * i)`` ("temporal ensembling", section IV-B): of continuous actions in
  the network's units, of discrete ones and of bins the probabilities, of which the likeliest is taken. Given a key,
  samples instead of modes are averaged, and choices are drawn from the averaged probabilities. Or, with ``execute``,
  so many actions of a chunk are played before the next is predicted.

  Args:
    spec: see `ilx.agents.bc`.
    length: T, actions in a chunk.
    ensemble: m; larger ones trust older predictions more, 0 all alike, negative ones newer.
    execute: 0 for temporal ensembling, else how many actions of a chunk are played, at most ``length``.
    head: see `ilx.agents.bc`; every step of a chunk has its own.
    head_options: see `ilx.agents.bc`.
    hidden: widths of the MLP torso.
    encoder: as of ``bc``.
    encoder_options: as of ``bc``.
    optimizer: default ``optax.adam(3e-4)``.
    frame_stack: as in `Chunks`; the spec is then of stacked frames.

  Returns:
    An agent that learns from `Chunks`; its carry is a `Votes` or a `Plan`.

  Raises:
    ValueError: as `ilx.agents.bc`, and for lengths that do not fit.
  """
  checks.check_spec(spec)
  ranges.at_least_1(length=length)
  ranges.whole_at_least_0(execute=execute)
  ranges.finite(ensemble=ensemble)
  if execute > length:
    raise ValueError(f"execute={execute} is more than a chunk has, length={length}")
  if not isinstance(ensemble, jax.core.Tracer) and abs(ensemble) * (length - 1) > _MOST:
    raise ValueError(
      f"chunked_bc: ensemble={ensemble} with length={length}: weights would reach exp({_MOST}) or its inverse; choose "
      "one nearer to 0, or execute=1, which plays the newest alone"
    )
  policy = policies.make(
    spec, head=head, head_options=head_options, hidden=hidden, encoder=encoder, encoder_options=encoder_options
  )
  network = chunks.ChunkPolicy(policy.torso, policy.head, policy.encoder, length)
  optimizer = optax.adam(3e-4) if optimizer is None else optimizer

  def init(key: jax.Array, batch: Chunk) -> State:
    key, network_key = jax.random.split(key)
    params = policies.init(network, spec, network_key, batch)
    return State(params, optimizer.init(params.network), jnp.zeros((), jnp.int32), key)

  def predict(variables: Any, params: Params, observation: Tree) -> Distribution:
    return network.apply(variables, scaling.standardise(params.observation, observation))

  def loss(variables: Any, params: Params, batch: Chunk) -> jax.Array:
    dist = predict(variables, params, batch.observation)
    return chunk_loss(dist, scaling.to_unit(params.action, batch.action), batch.mask)

  def update(state: State, batch: Chunk) -> tuple[State, dict[str, jax.Array]]:
    params = state.params
    value, gradient = jax.value_and_grad(loss)(params.network, params, batch)
    return policies.descend(state, optimizer, value, gradient)

  def act(params: Params, carry: Votes | Plan, step: Step, key: jax.Array | None) -> tuple[Tree, Votes | Plan]:
    dist = predict(params.network, params, step.observation)
    if execute:
      action, carry = chunks.follow(carry, chunks.played(dist, key), step.is_first)
    else:
      sample_key, choice_key = (None, None) if key is None else jax.random.split(key)
      mean, carry = chunks.vote(carry, chunks.votes(dist, sample_key), step.is_first, ensemble)
      action = chunks.decide(jax.tree.map(lambda x: x[0], dist), mean, choice_key)
    return scaling.from_unit(params.action, action), carry

  def carry(batch_size: int) -> Votes | Plan:
    leaves = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape), jnp.float32), spec.observation)
    what = chunks.played if execute else chunks.votes

    def zeros(steps: int) -> Tree:
      shapes = jax.eval_shape(lambda x: what(network.init_with_output(jax.random.key(0), x)[0], None), leaves)
      return jax.tree.map(lambda x: jnp.zeros((batch_size, steps, *x.shape[2:]), x.dtype), shapes)

    if execute:
      return Plan(zeros(execute), jnp.full(batch_size, execute, jnp.int32))
    return Votes(zeros(length), jnp.zeros(batch_size, jnp.int32))

  agent = Agent(init=init, update=update, act=act, carry=carry, view=Chunks(length, frame_stack))
  return checks.checked(spec, agent, action_axes=2)


def chunk_loss(dist: Distribution, action: Tree, mask: jax.Array) -> jax.Array:
  """Minus the mean log-likelihood of the actions that are real.

  Args:
    dist: leaves ``[T, B, ...]``.
    action: in the network's units, ``[B, T, A]``.
    mask: bool ``[B, T]``.
  """
  action = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), action)
  log_prob = jax.vmap(lambda d, a: d.log_prob(a))(dist, action)
  return -jnp.sum(jnp.where(mask.T, log_prob, 0.0)) / replicas.mean(jnp.sum(mask))
