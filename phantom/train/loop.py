"""What the training scripts share: the learning rate, the data in steps, the resumable fit."""

import os
from pathlib import Path

import keras
import numpy as np
from keras import ops

from stable_diffusion_tf.errors import UsageError

# Where the trained parts go: of the phantom, and of that whose padding carries the prompt.
PHANTOM, REGISTERS = Path("weights/phantom"), Path("weights/phantom-registers")
STATES = Path("checkpoints")  # weights, their average and the optimiser, to go on from


class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):
    """Up in `warmup` steps, level, and down to zero over the last `fall` steps of `steps`."""

    def __init__(self, peak: float, steps: int, warmup: int, fall: int):
        self.peak, self.steps, self.warmup, self.fall = peak, steps, warmup, fall

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rise, descent = (step + 1) / self.warmup, (self.steps - step) / self.fall
        return self.peak * ops.clip(ops.minimum(rise, descent), 0.0, 1.0)

    def get_config(self):
        return vars(self)


class Steps(keras.utils.PyDataset):
    """One batch a step, each drawn from its own seed: `draw(rng)` gives what fit wants."""

    def __init__(self, draw, seed: int, first: int, last: int):
        super().__init__()
        self.draw, self.seed, self.first, self.last = draw, seed, first, last

    def __len__(self):
        return max(0, self.last - self.first)

    def __getitem__(self, index):
        return self.draw(np.random.default_rng([self.seed, self.first + index]))


class SaveState(keras.callbacks.Callback):
    """Saves weights and optimiser every `every` steps and after the last; a kill leaves the state
    before whole."""

    def __init__(self, path: Path, every: int):
        super().__init__()
        self.path, self.every = path, every

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.every == 0 or batch + 1 == self.params["steps"]:
            save_state(self.model, self.path)


def save_state(model: keras.Model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name("new.weights.h5")
    model.save_weights(fresh, overwrite=True)
    os.replace(fresh, path)


def train(
    model: keras.Model, draw, name: str, steps: int, seed: int, every: int, peak: float, **losses
) -> None:
    """Fit for `steps` steps in all, going on from the saved state if there is one; afterwards
    the model holds the exponential moving average of its weights.

    Once the state has reached `steps`, this only loads it and takes the average.
    """
    optimizer = resume(model, name, Trapezoid(peak, steps, 100, max(1, steps // 2)), **losses)
    data = Steps(draw, seed, int(optimizer.iterations), steps)
    if len(data):
        print(f"{name}: step {data.first} of {steps}")
        saver = SaveState(STATES / f"{name}.weights.h5", every)
        model.fit(data, shuffle=False, callbacks=[saver])
    optimizer.finalize_variable_values(model.trainable_variables)


def take_average(model: keras.Model, name: str) -> int:
    """Give a model the average of its weights from the saved state, of a run that may still go
    on; how many steps that took. Raises UsageError where there is no state."""
    if not (STATES / f"{name}.weights.h5").exists():
        raise UsageError(f"there is no {STATES / name}.weights.h5: train first")
    still = Trapezoid(0.0, 1, warmup=1, fall=1)  # a schedule as in `train`: the state has its shape
    optimizer = resume(model, name, still, loss="mse")
    optimizer.finalize_variable_values(model.trainable_variables)
    return int(optimizer.iterations)


def resume(model: keras.Model, name: str, rate, **losses) -> keras.optimizers.Optimizer:
    """The model made ready to fit, from the saved state if there is one."""
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=1e-3,
        beta_2=0.99,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.995,
    )
    model.compile(optimizer=optimizer, jit_compile=False, **losses)
    optimizer.build(model.trainable_variables)
    state = STATES / f"{name}.weights.h5"
    if state.exists():
        model.load_weights(state)
    return optimizer
