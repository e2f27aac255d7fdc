"""Trainer: builds the networks, updates D and G, and runs the training loop."""

import contextlib
import copy
import dataclasses
import math
import time
from functools import cached_property

import paddle

import checkpoint
import losses
import operations
import runtime
import sampler
from dataset import batches, batches_per_epoch
from layers import batch_statistics, running_statistics, singular_vectors, training_on_block
from networks import models_of
from pictures import ROWS
from pipeline import Timed
from processes import collectives
from processes.blocks import Block, parts
from processes.groups import Alone, Member, Processes, Team
from training.precision import SCALER_STATE, Precision
from training.run_folder import RunFolder, diverged
from training.run_start import Start, check_steps_left, find_start
from training.step_batches import blocks_of, cut_batch, d_batch, g_batch
from training.twins import Twins

# A thread that computes a part of a block gets at least this number of images, and of pixels. With less, Python's own
# work for the operations takes longer than the threads save.
ROWS_PER_THREAD, PIXELS_PER_THREAD = 2, 1 << 14


def resolve(parameters, image_set):
    """`parameters` completed with facts from the data: the number of classes, and steps instead of epochs."""
    p = parameters
    steps_per_epoch = batches_per_epoch(image_set, p, collectives.world_size()) / p.d_steps_per_iter
    changes = {"num_classes": p.num_classes or image_set.num_classes}
    if p.niter:
        changes |= {"niter": None, "total_step": math.ceil(p.niter * steps_per_epoch)}
    if p.save_freq:
        changes |= {"save_freq": None, "model_save_step": math.ceil(p.save_freq * steps_per_epoch)}
    return dataclasses.replace(p, **changes)


class Trainer:
    """Trains the generator and discriminator that `parameters` describe; `resolve` must have completed them.

    `train` does a whole run. `update_discriminator` and `update_generator` do one update on a given batch.
    `networks`: a (generator, discriminator) to train instead of those that the parameters describe.
    """

    def __init__(self, parameters, networks=None):
        p = self.parameters = parameters
        self.precision = Precision(p.amp)
        models = models_of(p)
        self.G, self.D = networks or (models.build_generator(p), models.build_discriminator(p))
        self.G_ema = copy.deepcopy(self.G) if p.ema_decay else None
        self.g_optimizer = self._adam(p.g_lr, self.G)
        self.d_optimizer = self._adam(p.d_lr, self.D)
        self.step = 0  # number of completed steps

    def _adam(self, learning_rate, network):
        p = self.parameters
        return paddle.optimizer.Adam(learning_rate, p.beta1, p.beta2, parameters=network.parameters())

    def train(self, image_set, loaded=None):
        """Train on `image_set` until `total_step`, or until a stop signal. Write the run's folder.

        `loaded`: the checkpoint of --pretrained_model, if the command line has read it already. Returns the folder's
        path and the signal's number (None if the run is complete). Raises UserError if a loss or a gradient is not
        finite.
        """
        p = self.parameters
        # Before a folder is made, refuse a run that cannot start, and prepare the measurements.
        if loaded and not p.resume:
            check_steps_left(p, Start(loaded))
        evaluation = self._evaluation(image_set)
        # The run's folder closes before the signal handlers do, so a signal waits for the last write.
        with runtime.stop_signals() as stop, RunFolder(p) as run:
            # Start: find the checkpoint to start from, load it, open the records.
            start = find_start(p, run.weights, loaded, image_set)
            if start.checkpoint:
                self.load(start.step, start.checkpoint.parts, start.checkpoint.path)
                missing = _missing_parts(start.checkpoint.parts)
                collectives.say(f"goes on from {start.checkpoint.path}, step {start.step}{missing}")
            run.begin(start, image_set)
            done = self.step >= p.total_step

            # Run an interrupted measurement again.
            if evaluation and self._is_unmeasured(start):
                self._measure_again(evaluation, run, stop, start.checkpoint)
                done = stop.requested() or done

            # Train step by step.
            data = batches(image_set, p, self.step * p.d_steps_per_iter, collectives.rank(), collectives.world_size())
            data = Timed(collectives.synchronized(data))
            while not done:
                metrics = self.train_step(data)

                # Measure before saving, so that the checkpoint covers the lines of the figures in the log.
                if evaluation and self.step % p.eval_step == 0:
                    self._read_metrics(metrics)
                    self._evaluate(evaluation, run, stop, self.state)

                # Log, draw samples and save, each at its own interval. The last step is always saved.
                done = stop.requested() or self.step >= p.total_step
                logs, saves = self.step % p.log_step == 0, self.step % p.model_save_step == 0 or done
                if logs or saves:
                    values = self._read_metrics(metrics)
                if logs:
                    run.log(self.step, values, data.waited())
                if self.step % p.sample_step == 0 or self.step >= p.total_step:
                    run.write_samples(self.step, self.sample_grid)
                if saves:
                    run.save(self.step, self.state)

                # Show the progress. If the reader of the output has gone, save this step and end.
                try:
                    run.advance(self.step)
                except BrokenPipeError:
                    run.save(self.step, self.state)
                    raise

            if not stop.signal:
                run.write_animation()
            run.finish()
            return run.path, stop.signal

    def _read_metrics(self, metrics):
        """The metrics, summed over all processes, as floats by name. Here the host waits for the device.

        Raises UserError on every process if a metric or a gradient of the last updates is not finite. The weights after
        such an update are useless.
        """
        values = paddle.stack(list(metrics.values()))
        collectives.add_up([values])
        values = dict(zip(metrics, values.tolist(), strict=True))
        # Check in the order of the updates, so that the first error is the cause.
        for part, network in (("D", self.D), ("G", self.G)):
            for name, value in values.items():
                if name.startswith("g_") == (part == "G") and not math.isfinite(value):
                    raise diverged(name, value, self.step)
            if self.precision.scaler:  # the scaler skips updates whose gradients are not finite
                continue
            gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
            finite = paddle.stack([paddle.isfinite(gradient).all() for gradient in gradients.values()]).numpy()
            if not finite.all():
                raise diverged(f"the gradient of {part}/{list(gradients)[finite.argmin()]}", "not finite", self.step)
        return values

    def train_step(self, data):
        """Do one step on the next batches of `data`: D updates, then G updates. Returns {name: metric as a tensor}."""
        p, metrics = self.parameters, {}
        self.G.train()
        self.D.train()
        for update in range(p.d_steps_per_iter):
            images, labels, whole = next(data)
            batch = d_batch(p, self.step, update, runtime.to_device(images), runtime.to_device(labels), whole)
            metrics |= self.update_discriminator(batch)
        for update in range(p.g_steps_per_iter):
            metrics |= self.update_generator(g_batch(p, self.step, update))
        if self.G_ema:
            self._update_ema()
        self.step += 1
        return metrics

    def sample_grid(self):
        """Samples of the first classes for a picture, as `sampler.grid_samples` returns. Every step has the same noise.

        Batch norm uses the batch's own statistics, because SAGAN's running statistics need thousands of steps to
        become accurate.
        """
        generator = self.G_ema or self.G
        generator.eval()
        with batch_statistics(generator):
            classes = range(min(self.parameters.num_classes, ROWS))
            return sampler.grid_samples(generator, self.parameters, classes, sampler.generate_batch)

    def _evaluation(self, image_set):
        if not self.parameters.eval_step:
            return None
        from evaluation.evaluation import Evaluation  # slow to import

        evaluation = Evaluation(self.parameters, image_set.class_names)
        evaluation.check(evaluation.drawn(self.G, self.parameters.eval_samples))
        evaluation.check_names(image_set.class_names, self.parameters.data_source)
        evaluation.prepare()
        return evaluation

    def _is_unmeasured(self, start):
        """Whether the run's own checkpoint still needs its measurement, for example because a signal interrupted it."""
        return (
            start.is_own
            and self.step % self.parameters.eval_step == 0
            and start.checkpoint.notes.get("measured") != self.step
        )

    def _measure_again(self, evaluation, run, stop, own):
        """Measure the run's `own` checkpoint. Save it again, so that it covers the line of the figures in the log."""
        # Save the checkpoint's own arrays, because Paddle's optimizers have no state before their first step.
        self._evaluate(evaluation, run, stop, lambda: own.parts)
        run.save(self.step, lambda: own.parts)
        run.advance(self.step)

    def _evaluate(self, evaluation, run, stop, state):
        """Measure `eval_samples` samples as `test.py` does. Log the figures. Save `state()` if it is the best."""
        p, start = self.parameters, time.monotonic()
        generator = (p.use_ema and self.G_ema) or self.G
        if p.standing_batches:  # use a copy: they replace the running statistics, which training still needs
            generator = copy.deepcopy(generator)
        generator.eval()
        sampler.use_standing_statistics(generator, p)
        figures = evaluation.figures(evaluation.drawn(generator, p.eval_samples), stop)
        if figures:
            run.log_figures(self.step, figures, time.monotonic() - start)
            run.save_best(self.step, evaluation.score(figures), evaluation.key, state)

    def update_discriminator(self, batch):
        """Do one Adam step of D on a `DBatch`; the gradients stay readable. Returns {name: metric as a tensor}."""
        return self._update(self.D, self.d_optimizer, batch, self._d_losses)

    def update_generator(self, batch):
        """Do one Adam step of G on a `GBatch`; the gradients stay readable. Returns {name: metric as a tensor}."""
        with _frozen(self.D):
            return self._update(self.G, self.g_optimizer, batch, self._g_losses)

    def _d_losses(self, G, D, batch, counts=True):
        """Yield the parts of D's loss on the rows of `batch`: (part, its terms and metrics by name), scalar means.

        Each part has a graph of its own. The caller frees it before it asks for the next part. That nearly halves the
        memory of a D update. `G`, `D`: the networks, or a thread's twins of them. `counts`: False for padding rows, as
        in `losses.gradient_penalty`.
        """
        p = self.parameters
        yield self._d_part(D, batch.images, batch.labels, batch.real_noise, real=True)
        with paddle.no_grad():
            fake = self.precision.generate(G, batch.z, batch.fake_labels)
        yield self._d_part(D, fake, batch.fake_labels, batch.fake_noise, real=False)
        if p.adv_loss == "wgan_gp":
            penalty = losses.gradient_penalty(D, batch.images, fake, batch.labels, batch.alpha, counts)
            yield p.lambda_gp * penalty, {"d_penalty": penalty}

    def _d_part(self, D, images, labels, noise, real):
        """D's loss on `images`, which are all real or all generated, and its terms and metrics by name."""
        kind = "real" if real else "fake"
        logits, classes = self.precision.judge(D, _noisy(images, noise), labels)
        loss = losses.discriminator_loss(self.parameters.adv_loss, logits, real)
        terms = {f"d_{kind}": loss, "D_x" if real else "D_G_z": logits.mean()}
        if classes is not None:
            terms[f"d_class_{kind}"] = losses.class_loss(classes, labels)
            terms[f"accuracy_{kind}"] = _accuracy(classes, labels)
            loss = loss + self.parameters.class_loss_weight * terms[f"d_class_{kind}"]
        return loss, terms

    def _g_losses(self, G, D, batch, counts=True):
        """Yield G's loss on the rows of `batch`, and its terms by name. Arguments and result are as in `_d_losses`."""
        p = self.parameters
        fake = _noisy(self.precision.generate(G, batch.z, batch.labels), batch.fake_noise)
        logits, classes = self.precision.judge(D, fake, batch.labels)
        terms = {"g_adv": losses.generator_loss(p.adv_loss, logits)}
        loss = terms["g_adv"]
        if classes is not None:
            terms["g_class"] = losses.class_loss(classes, batch.labels)
            loss = loss + p.class_loss_weight * terms["g_class"]
        yield loss, terms

    def _update(self, network, optimizer, batch, losses_of):
        """One step of `optimizer` on the mean loss over the whole batch. Returns this process's share of the terms."""
        optimizer.clear_grad(set_to_zero=False)  # remove them, so that backward need not add to zeros
        metrics = self._backward(network, batch, losses_of)
        self.precision.step(optimizer)
        return metrics

    def _backward(self, network, batch, losses_of):
        """Leave the gradients of the mean loss over the whole batch in `network`. Returns as `_update` does.

        The batch is cut into accumulation rounds, and each round into one block for each process. All rounds start from
        the same buffers and the same dropout stream, as a single round would. The new running statistics are the mean
        over the blocks, weighted by their shares of the batch. So the result does not depend on how a batch is cut.
        Batch norm is the exception: it sees one block at a time, or one round with `sync_bn`. The update needs only one
        all-reduce.
        """
        whole = batch.whole or len(batch.z)
        if self.parameters.rounds == collectives.world_size() == 1:
            return self._backward_block(batch, Block(range(whole), 1.0, whole, whole), losses_of)
        statistics, buffers = self._running_statistics, self._buffers
        first_buffers, dropout = [buffer.clone() for buffer in buffers], paddle.get_rng_state()
        sums = [paddle.zeros_like(buffer) for buffer in statistics]
        metrics, first = {}, 0
        for block in blocks_of(self.parameters, whole):
            # Restore the buffers and the dropout stream that the first round started from.
            if first:
                _assign(buffers, first_buffers)
                paddle.set_rng_state(dropout)
            # Add the gradients of this block, and its share of the metrics and the running statistics.
            rows = cut_batch(batch, first, len(block.rows))
            first += len(block.rows)
            _add_terms(metrics, self._backward_block(rows, block, losses_of))
            sums = [total + block.share * buffer for total, buffer in zip(sums, statistics, strict=True)]
        # Sum the gradients and the statistics over all processes.
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        collectives.add_up(gradients + sums)
        _assign(statistics, sums)
        return metrics

    def _backward_block(self, batch, block, losses_of):
        """Add the gradients of the rows of one block, `batch`. Returns the block's share of the terms.

        On a CPU several threads compute a part of the rows each, on one thread of the maths library. Then all
        operations run side by side, not only matrix products. Threads wait for each other only in batch norms, so other
        work on the machine slows them down less than the threads of one matrix product.
        """
        synchronized = self.parameters.sync_bn and collectives.world_size() > 1

        def backward(networks, part, group):
            rows = cut_batch(batch, part.rows.start - block.rows.start, len(part.rows))
            sources = batch.sources and batch.sources(part.rows)
            metrics = {}
            with training_on_block(networks, part, group, sources):
                for loss, terms in losses_of(*networks, rows, counts=part.share > 0):
                    self.precision.backward(part.share * loss)
                    metrics |= {name: part.share * value.detach() for name, value in terms.items()}
                    del loss, terms  # frees the graph
            return metrics

        # One thread at a time can compute the gradient of the penalty (`paddle.grad`), use synchronised batch norm, or
        # compute a block again (`recompute`).
        p = self.parameters
        alone = synchronized or p.adv_loss == "wgan_gp" or p.recompute or not operations.is_fast(batch.z)
        rows = max(ROWS_PER_THREAD, -(-PIXELS_PER_THREAD // p.imsize**2))
        size = 1 if alone else max(1, min(runtime.threads(), len(batch.z) // rows))
        if size == 1:
            return backward((self.G, self.D), block, Processes(block) if synchronized else Alone())
        team, twins, taken = Team(size, len(batch.z)), self._twins.take(size), parts(block, size)
        with runtime.math_threads(runtime.threads() // size):
            terms = team.run(lambda member: backward(twins[member], taken[member], Member(team, member)))
        self._twins.add_gradients(size)
        metrics = {}
        for part in terms:
            _add_terms(metrics, part)
        return metrics

    @cached_property
    def _twins(self):
        return Twins((self.G, self.D))

    @cached_property
    def _running_statistics(self):
        return running_statistics(self.G, self.D)

    @cached_property
    def _buffers(self):
        """The buffers that a forward pass in training changes."""
        return [*self._running_statistics, *singular_vectors(self.G, self.D)]

    def state(self):
        """All tensors that a resumed run needs: {part: {name: NumPy array}}.

        The parts are G, D, G_ema, the two optimizers and, with float16, the gradient scaler.
        """
        parts = {"G": _arrays(self.G.state_dict()), "D": _arrays(self.D.state_dict())}
        if self.G_ema:
            parts["G_ema"] = _arrays(self.G_ema.state_dict())
        if scaler := self.precision.state():
            parts["grad_scaler"] = scaler
        return parts | {
            "g_optimizer": _optimizer_state(self.g_optimizer, self.G),
            "d_optimizer": _optimizer_state(self.d_optimizer, self.D),
        }

    def load(self, step, parts, source):
        """Load `parts`, as `state` returns them, and continue after `step` steps. Missing parts stay unchanged.

        Raises UserError for parts of another network; the message names the file `source`.
        """
        for part, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema)):
            if network and (arrays := parts.get(part) or (part == "G_ema" and parts.get("G"))):
                checkpoint.load_network(network, arrays, source)
        for part, optimizer, network in (
            ("g_optimizer", self.g_optimizer, self.G),
            ("d_optimizer", self.d_optimizer, self.D),
        ):
            if not parts.get(part):
                continue
            weights = dict(network.named_parameters())
            checkpoint.check_shapes(_slot_shapes(weights), parts[part], source)
            slots = {}
            for name, array in parts[part].items():
                weight, _, slot = name.rpartition("/")
                slots[f"{weights[weight].name}_{slot}"] = array
            optimizer.set_state_dict(slots)
        if scaler := parts.get("grad_scaler"):
            checkpoint.check_shapes({name: [1] for name in SCALER_STATE}, scaler, source)
            self.precision.load(scaler)
        self.step = step

    def _update_ema(self):
        # The decay is lower at first, so that the average soon forgets the initial weights, even in a short run.
        decay = min(self.parameters.ema_decay, (1 + self.step) / (10 + self.step))
        with paddle.no_grad():
            for average, value in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                paddle.assign(decay * average + (1 - decay) * value, average)
            for average, value in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
                paddle.assign(value, average)


def _missing_parts(parts):
    """The end of a message about a checkpoint with these `parts`: the parts that it lacks for training, or ""."""
    needed = {
        "G": "generator", "D": "discriminator", "g_optimizer": "optimizer of G", "d_optimizer": "optimizer of D"
    }  # fmt: skip
    missing = [f"no {name}" for part, name in needed.items() if not parts.get(part)]
    if not missing:
        return ""
    return f"; it holds {', '.join(missing)}: {'these start' if len(missing) > 1 else 'this starts'} anew"


def _arrays(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def _optimizer_state(optimizer, network):
    """{WEIGHT/SLOT: array} of an optimizer's state. Paddle's own names contain a running number, unfit for a file."""
    state = optimizer.state_dict()
    return {
        f"{name}/{key.removeprefix(weight.name + '_')}": state[key].numpy()
        for name, weight in network.named_parameters()
        for key in state
        if key.startswith(weight.name + "_")
    }


def _slot_shapes(weights):
    """{WEIGHT/SLOT: shape} of Adam's state: two moments of each weight, and the powers of the two betas."""
    shapes = {}
    for name, weight in weights.items():
        shapes |= {f"{name}/{moment}_0": list(weight.shape) for moment in ("moment1", "moment2")}
        shapes |= {f"{name}/{power}_pow_acc_0": [1] for power in ("beta1", "beta2")}
    return shapes


def _add_terms(metrics, terms):
    for name, value in terms.items():
        metrics[name] = metrics[name] + value if name in metrics else value


def _assign(tensors, values):
    with paddle.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            paddle.assign(value, tensor)


@contextlib.contextmanager
def _frozen(network):
    """A context in which gradients pass through `network` but are not computed for its weights."""
    for weight in network.parameters():
        weight.stop_gradient = True
    try:
        yield
    finally:
        for weight in network.parameters():
            weight.stop_gradient = False


def _noisy(images, noise):
    return images if noise is None else images + noise


def _accuracy(class_logits, labels):
    return (class_logits.argmax(1) == labels).astype(class_logits.dtype).mean()
