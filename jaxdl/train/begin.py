"""The beginning of a run: opens its parts, and restores the newest checkpoint if there is one."""

import functools
from contextlib import ExitStack

import jax

from jaxdl import saved_config, signals
from jaxdl.config import RunConfig
from jaxdl.console import Training
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import UserError
from jaxdl.run import environment, logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.environment import SOURCE
from jaxdl.run.workdir import DATA, INIT, Claim
from jaxdl.train import extend, flops, initial, resume, rewind, step_spec
from jaxdl.train.events import EventSchedule, Profiler
from jaxdl.train.feed import open_feed
from jaxdl.train.hooks import Best, Figures
from jaxdl.train.initial import Source
from jaxdl.train.run_parts import Parts
from jaxdl.train.step_spec import StepSpec, build_task, device_operands
from jaxdl.train.stopwatch import Stopwatch
from jaxdl.train.train_step import LoopState, compile_step
from jaxdl.train.trainer import Trainer


# Long: it creates each part of a run once, in the order in which the parts must be opened.
def begin_run(
    config: RunConfig,
    spec: StepSpec,
    data: Dataset,
    source: Source | None,
    hooks: tuple[Best, Figures],
    claim: Claim,
    request: signals.Request,
    resources: ExitStack,
) -> "Trainer":
    """Compiles the step, restores the newest checkpoint if there is one, and opens the run folder.

    Args:
      config: the run's config.
      spec: the constants of the compiled step.
      data: the dataset.
      source: weights that a new run starts with; None: random ones.
      hooks: `best` and `figures` as for `loop.train`.
      claim: the run folder, locked for this run.
      request: pending signal, if any.
      resources: stack that receives everything to be closed at the end of the run.

    Returns:
      A trainer at the restored checkpoint, or at the initial state.

    Raises:
      UserError: the checkpoint belongs to another config, other data or a longer run.
    """
    clock, mesh, examples = Stopwatch(), spec.mesh, data.spec.num_train
    per_epoch, total = config.steps_per_epoch(examples), config.total_steps(examples)
    schedule = EventSchedule(
        total=total,
        per_epoch=per_epoch,
        log_every=config.log_every,
        eval_every=config.eval_every or per_epoch,
        checkpoint_every=config.checkpoint_every or per_epoch,
    )
    program = compile_step(spec)
    program = config.seat.join(program) if config.seat else program
    state_key, data_key = jax.random.split(jax.random.key(config.seed))
    put = config.seat.shared.put if config.seat else sharding.put
    feed = open_feed(program, spec, data.train, data_key, put)
    resources.callback(feed.close)
    identity = resume.Identity(
        saved_config.identity(config) | {DATA: data.spec.fingerprint} | _weights(source),
        environment.versions(mesh.size, program.native)
        | {SOURCE: environment.source_digest(config)},
        data.spec.to_json(),
    )
    checkpoints = Checkpoints(claim.folder / "checkpoints", claim.check)
    resources.callback(checkpoints.close)
    checkpoints.clear_leftovers()
    detours: rewind.Detours = collectives.host0_value(lambda: rewind.read(claim.folder))
    saved, detours = resume.restore(
        checkpoints, program.state_shapes, detours, force=config.resume == "force"
    )
    if saved:
        identity = resume.own_weights(identity, saved, force=config.resume == "force")
        resume.check_fits(saved, config, identity, claim.run_folder, total)
        if config.resume == "extend":
            saved = extend.extend(saved, config, examples)
    progress = resume.progress(saved, detours)
    if saved:
        clock.resume(saved.record["seconds"], progress.timed)
    library = {n: v for n, v in identity.versions.items() if n in environment.NATIVE}
    kept, seconds = resume.kept_lines(saved), clock.elapsed()
    log = logger.RunLog(claim.folder, config, data.spec, kept, library, seconds)
    resources.callback(log.close)
    resume.announce(program, data, mesh.size, total, progress.step, claim.folder)
    per_step, device = program.flops.total(), mesh.devices.flat[0]
    examples_per_step = config.batch_size * data.spec.per_row
    speed = functools.partial(flops.speed, examples_per_step, per_step, device, mesh.size)
    bar = resources.enter_context(Training(total, progress.step, speed))
    profiler = Profiler(config.profiled_steps(), claim.folder)
    resources.callback(profiler.end)
    operands = device_operands(config, data.spec, mesh)

    def start() -> LoopState:
        if identity.config.get(INIT) != _weights(source).get(INIT):  # no checkpoint is left
            raise UserError(
                f"{claim.run_folder} goes back to its first step, which needs the weights that it "
                "began with: give their --init_from"
            )
        return initial.start(program, spec, operands, state_key, source)

    parts = Parts(
        config=config,
        spec=spec,
        program=program,
        operands=operands,
        task=build_task(spec, step_spec.operands(config, data.spec)),
        start=start,
        feed=feed,
        data=data,
        best=hooks[0],
        figures=hooks[1],
        schedule=schedule,
        identity=identity,
        claim=claim,
        request=request,
        clock=clock,
        profiler=profiler,
        checkpoints=checkpoints,
        log=log,
        bar=bar,
        speed=speed,
    )
    trainer = Trainer(parts, saved, detours)
    trainer.sync_folder(saved)
    return trainer


def _weights(source: Source | None) -> dict[str, str]:
    """Returns the entry of a run's identity for the weights that it starts with."""
    return {INIT: source.digest} if source else {}
