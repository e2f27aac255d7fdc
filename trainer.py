"""Trainer: builds the networks, updates D and G, and runs the training loop."""

import contextlib
import copy
import dataclasses
import math
import time

import paddle

import checkpoint
import losses
import runtime
import sampler
from augment import augment
from dataset import batches, batches_per_epoch
from layers import batch_statistics
from loading.pipeline import Timed
from networks import models_of
from pictures import ROWS
from processes import collectives
from training.collapse import Collapse
from training.gradients import Gradients
from training.health import gradient_norm, layer_figures
from training.new_classes import parts_to_load
from training.precision import SCALER_STATE, Precision
from training.run_folder import RunFolder, diverged
from training.run_start import NEW_WEIGHTS, check_steps_left, find_start
from training.step_batches import d_batch, g_batch
from utils import plural


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
        self._gradients = Gradients(p, self.precision, (self.G, self.D))
        self.g_optimizer = self._adam(p.g_lr, self.G)
        self.d_optimizer = self._adam(p.d_lr, self.D)
        self.step = 0  # number of completed steps
        self.seconds = {"D": 0.0, "G": 0.0}  # of the updates in the last step; on a GPU, in a step that is logged

    def _adam(self, learning_rate, network):
        p = self.parameters
        return paddle.optimizer.Adam(learning_rate, p.beta1, p.beta2, parameters=network.parameters())

    def train(self, image_set, given=NEW_WEIGHTS):
        """Train on `image_set` until `total_step`, or until a stop signal. Write the run's folder.

        `given`: the `Start` of a new run. It has the checkpoint of --pretrained_model if the command line has read it
        already. Returns the folder's path and the signal's number (None if the run is complete). Raises UserError if a
        loss or a gradient is not finite.
        """
        p = self.parameters
        # Before a folder is made, refuse a run that cannot start, and prepare the measurements.
        if not p.resume:
            check_steps_left(p, given)
        evaluation = self._evaluation(image_set)
        # The run's folder closes before the signal handlers do, so a signal waits for the last write.
        with runtime.stop_signals() as stop, RunFolder(p) as run:
            # Start: find the checkpoint to start from, load it, open the records.
            start = find_start(p, run.weights, given, image_set)
            if start.checkpoint:
                self.load(start.step, parts_to_load(start, self.G, self.D, p), start.checkpoint.path)
                missing = _missing_parts(start.checkpoint.parts)
                collectives.say(f"goes on from {start.checkpoint.path}, step {start.step}{missing}")
            run.begin(start, image_set)
            collapse = Collapse(p, run.real_distance, start.notes.get("collapse"))
            run.notes["collapse"] = collapse.notes()
            done = self.step >= p.total_step
            if done:
                collectives.say(f"nothing is left to train: the run has its {plural(self.step, 'step')}")

            # Run an interrupted measurement again.
            if evaluation and self._is_unmeasured(start):
                self._measure_again(evaluation, run, stop, start.checkpoint)
                done = stop.requested() or done

            # Train step by step.
            data = self.data(image_set)
            while not done:
                metrics = self.train_step(data)

                # Measure before saving, so that the checkpoint covers the lines of the figures in the log.
                if evaluation and self.step % p.eval_step == 0:
                    self._read_metrics(metrics)
                    self._evaluate(evaluation, run, stop, self.state)

                # Log, draw samples, look for a collapse and save, each at its own interval. The last step is saved.
                done = stop.requested() or self.step >= p.total_step
                logs, checks = self.step % p.log_step == 0, self.step % p.sample_step == 0
                draws, saves = checks or self.step >= p.total_step, self.step % p.model_save_step == 0 or done
                if logs or checks or saves:
                    values = self._read_metrics(metrics)
                if logs or checks:
                    collapse.add(values)
                if logs:
                    run.log(self.step, values | self._gradient_norms(), data.waited())
                    run.chart(self.step, self._charts())
                if draws and run.writes:
                    samples = self.sample_grid(self.G_ema or self.G)
                    run.write_samples(self.step, samples)
                if checks and run.writes:
                    self._check(collapse, run, self.sample_grid(self.G) if self.G_ema else samples)
                if logs or checks:
                    run.notes["collapse"] = collapse.notes()
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

    def data(self, image_set):
        """Endless batches of `image_set` for this process, from the next step on, as `train_step` reads them."""
        first = self.step * self.parameters.d_steps_per_iter
        data = batches(image_set, self.parameters, first, collectives.rank(), collectives.world_size())
        return Timed(collectives.synchronized(data))

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

    def _check(self, collapse, run, samples):
        """Tell new signs of a collapse. `samples` come from G, not from its average, which collapses later."""
        for line in collapse.check(self.step, samples):
            run.tell(line)
        figures = {"health/class_distance": collapse.distance} | layer_figures({"G": self.G, "D": self.D})
        run.chart(self.step, figures)
        run.log_health(self.step, self._charts() | figures)

    def _gradient_norms(self):
        return {"d_gradient": gradient_norm(self.D).item(), "g_gradient": gradient_norm(self.G).item()}

    def _charts(self):
        """{VisualDL's tag: float} of figures that are not metrics of the updates."""
        charts = {"health/d_lr": self.d_optimizer.get_lr(), "health/g_lr": self.g_optimizer.get_lr()}
        charts |= {"speed/d_seconds": self.seconds["D"], "speed/g_seconds": self.seconds["G"]}
        if memory := runtime.peak_memory():
            charts["speed/peak_memory_MiB"] = memory / 2**20
        return charts

    def train_step(self, data):
        """Do one step on the next batches of `data`: D updates, then G updates. Returns {name: metric as a tensor}."""
        p, metrics = self.parameters, {}
        self.G.train()
        self.D.train()
        self.seconds = {"D": 0.0, "G": 0.0}
        for update in range(p.d_steps_per_iter):
            images, labels, whole = next(data)
            with self._timed("D"):
                batch = d_batch(p, self.step, update, runtime.to_device(images), runtime.to_device(labels), whole)
                metrics |= self.update_discriminator(batch)
        with self._timed("G"):
            for update in range(p.g_steps_per_iter):
                metrics |= self.update_generator(g_batch(p, self.step, update))
        if self.G_ema:
            self._update_ema()
        self.step += 1
        return metrics

    @contextlib.contextmanager
    def _timed(self, network):
        """A context whose time counts in `seconds`. The host waits for the device around it if this step is recorded.

        In other steps the host does not wait for a GPU, so that it can work ahead.
        """
        p, done = self.parameters, self.step + 1
        waits = (done % p.log_step == 0 or done % p.sample_step == 0) and paddle.get_device() != "cpu"
        if waits:
            paddle.device.synchronize()
        begun = time.monotonic()
        yield
        if waits:
            paddle.device.synchronize()
        self.seconds[network] += time.monotonic() - begun

    def sample_grid(self, generator):
        """Samples of the first classes for a picture, as `sampler.grid_samples` returns. Every step has the same noise.

        Batch norm uses the batch's own statistics, because SAGAN's running statistics need thousands of steps to
        become accurate.
        """
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
        return start.is_own and self.step % self.parameters.eval_step == 0 and start.notes.get("measured") != self.step

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

    def _d_losses(self, G, D, batch, group, counts=True):
        """Yield D's losses on the rows of `batch`: (loss, its terms and metrics by name), scalar means.

        Their sum is the loss of a D update. Each has a graph of its own, which the caller frees before it asks for the
        next one. That nearly halves the memory of a D update. `G`, `D`: the networks, or a thread's twins of them.
        `group`: as in `losses.d2d_ce`. `counts`: False for padding rows, as in `losses.gradient_penalty`.
        """
        p = self.parameters
        real = self._shown(batch.images, batch.real_changes, batch.real_noise)
        yield self._d_loss(D, real, batch.labels, group, real=True)
        with paddle.no_grad():
            fake = self.precision.generate(G, batch.z, batch.fake_labels)
        shown = self._shown(fake, batch.fake_changes, batch.fake_noise)
        yield self._d_loss(D, shown, batch.fake_labels, group, real=False)
        if p.adv_loss == "wgan_gp":

            def judge(images, labels):
                return D(augment(images, batch.real_changes, p.diffaug), labels)

            penalty = losses.gradient_penalty(judge, batch.images, fake, batch.labels, batch.alpha, counts)
            yield p.lambda_gp * penalty, {"d_penalty": penalty}

    def _shown(self, images, changes, noise):
        """The images that D sees in place of `images`: changed by --diffaug, then with instance noise."""
        images = augment(images, changes, self.parameters.diffaug)
        return images if noise is None else images + noise

    def _d_loss(self, D, images, labels, group, real):
        """D's loss on `images`, which are all real or all generated, and its terms and metrics by name."""
        kind = "real" if real else "fake"
        logits, classes = self.precision.judge(D, images, labels)
        loss = losses.discriminator_loss(self.parameters.adv_loss, logits, real)
        terms = {f"d_{kind}": loss, "D_x" if real else "D_G_z": logits.mean()}
        if self.parameters.adv_loss != "wgan_gp":  # its logits have no right side
            terms[f"right_{kind}"] = ((logits > 0) if real else (logits < 0)).astype(logits.dtype).mean()
        if classes is not None and (real or self.parameters.class_loss != "d2d_ce"):  # D2D-CE is of real images only
            terms[f"d_class_{kind}"] = self._class_loss(classes, labels, group)
            loss = loss + self.parameters.class_loss_weight * terms[f"d_class_{kind}"]
        if classes is not None:
            terms[f"accuracy_{kind}"] = _accuracy(classes, labels)
        return loss, terms

    def _g_losses(self, G, D, batch, group, counts=True):
        """Yield G's loss on the rows of `batch`, and its terms by name. Arguments and result are as in `_d_losses`."""
        p = self.parameters
        fake = self.precision.generate(G, batch.z, batch.labels)
        shown = self._shown(fake, batch.fake_changes, batch.fake_noise)
        logits, classes = self.precision.judge(D, shown, batch.labels)
        terms = {"g_adv": losses.generator_loss(p.adv_loss, logits)}
        loss = terms["g_adv"]
        if classes is not None:
            terms["g_class"] = self._class_loss(classes, batch.labels, group)
            loss = loss + p.class_loss_weight * terms["g_class"]
        yield loss, terms

    def _class_loss(self, classes, labels, group):
        """The class loss of the rows of a call. `classes`: what D returns for it. `group`: as in `losses.d2d_ce`."""
        p = self.parameters
        if p.class_loss == "d2d_ce":
            return losses.d2d_ce(*classes, labels, p.d2d_temperature, p.d2d_margin, group)
        return losses.class_loss(classes, labels)

    def _update(self, network, optimizer, batch, losses_of):
        """One step of `optimizer` on the mean loss over the whole batch. Returns this process's share of the terms."""
        optimizer.clear_grad(set_to_zero=False)  # remove them, so that backward need not add to zeros
        metrics = self._gradients.compute(network, batch, losses_of)
        self.precision.step(optimizer)
        return metrics

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
        p = self.parameters
        if p.ema_start:
            decay = p.ema_decay if self.step >= p.ema_start else 0.0
        else:
            # The decay is lower at first, so that the average soon forgets the initial weights, even in a short run.
            decay = min(p.ema_decay, (1 + self.step) / (10 + self.step))
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


def _accuracy(classes, labels):
    """The share of images that D reads as their class. `classes`: what D returns for the class loss."""
    scores = losses.similarities(*classes) if isinstance(classes, tuple) else classes
    return (scores.argmax(1) == labels).astype(scores.dtype).mean()
