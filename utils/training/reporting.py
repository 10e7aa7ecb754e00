"""What a person sees of a run: progress, recorded numbers, samples, the summary and its page."""

import logging
import math
import statistics
from collections.abc import Iterator
from typing import Any

from utils.data.tokens.shards import read_dataset
from utils.log import progress
from utils.machine.energy import EnergyMeter, memory_bytes, peak_memory_bytes
from utils.machine.matmul_speed import Peak, device_peak
from utils.model.sizing import count_parameters, flops_per_token
from utils.run_folder import read_metrics
from utils.training.devices.fsdp import is_sharded
from utils.training.records.data_usage import account_sources, source_metrics
from utils.training.records.page import write_page
from utils.training.run import Run, global_rows
from utils.training.samples import is_sample_step, sample_texts
from utils.training.trainer import Trainer
from utils.words import duration

log = logging.getLogger(__name__)


class Report:
    """Watches a trainer; only the main process measures and writes."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._flops_per_token = flops_per_token(trainer.run.cfg, trainer.run.length)
        self._bytes_per_token = bytes_per_token(trainer.run)
        self._peak: Peak | None = None
        self._meter: EnergyMeter | None = None
        self._sampled_step = -1
        if trainer.processes.is_main:
            device, count = trainer.processes.device, trainer.processes.count
            self._peak = peak = device_peak(device.type)
            self._meter = EnergyMeter(device, count)
            trainer.run.record.values["environment"] |= peak.facts()
            log.info("peak of a device: %.3g TFLOP/s (%s)", peak.flops / 1e12, peak.source)

    def steps(self) -> Iterator[int]:
        """Train with a progress line; yield each finished step until the plan is done.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the step was finished and saved.
            LumiError: the loss is not a number again and again, or memory does not suffice.
        """
        trainer = self.trainer
        with progress("pre-training", trainer.total, "steps", done=trainer.state.step) as task:
            for step in trainer.steps():
                task.total = trainer.total
                is_mark = step % trainer.run.cfg.logging_steps == 0
                task.advance(step - task.done, self._note, is_mark=is_mark)
                yield step

    def record_step(self) -> None:
        """Record the numbers of the last step, and samples, where they are due."""
        if self.trainer.is_log_due():
            self._log_step()
        if is_sample_step(self.trainer.state.step):
            self.sample()

    def sample(self) -> None:
        """Record what the model says after the fixed prompts."""
        trainer, run = self.trainer, self.trainer.run
        is_done = self._sampled_step == trainer.state.step
        if is_done or not (trainer.processes.is_main or is_sharded(trainer.model)):
            return
        self._sampled_step = trainer.state.step
        with trainer.autocast():
            texts = sample_texts(trainer.model, run.data_dirs[0], run.tokenizer_dir, run.cfg.seed)
        trainer.metrics.samples(trainer.state.step, trainer.clock.elapsed_s(), texts)

    def finish(self) -> None:
        """Write the summary into run.json, the log, the trackers and the page of the run."""
        trainer = self.trainer
        if not trainer.processes.is_main:
            return
        numbers = self.summary()
        if self._peak is not None:  # it may have been measured again
            trainer.run.record.values["environment"] |= self._peak.facts()
        trainer.run.record.end("finished", **numbers)
        trainer.metrics.close(**numbers)
        log.info("%s", summary_line(numbers))
        log.info("curves, samples and events: %s", write_page(trainer.run.folder))

    # --- numbers --------------------------------------------------------------------------------

    def mfu(self, tokens_per_s: float) -> float | None:
        """Return the share of the peak that training reaches (model FLOPs utilization)."""
        if self._peak is None:
            return None
        return self._peak.share(tokens_per_s * self._flops_per_token / self.trainer.processes.count)

    def train_bpb(self) -> float:
        """Return the last loss in bits per byte, by the average bytes of a training token."""
        return self.trainer.loss / math.log(2) / self._bytes_per_token

    def energy_wh(self) -> float | None:
        """Return the energy of the run so far, earlier processes included; None: not measured."""
        used_wh = self._meter.watt_hours() if self._meter else None
        return None if used_wh is None else self.trainer.metrics.used_wh + used_wh

    def _note(self) -> str:
        """Return the rest of the progress line."""
        trainer = self.trainer
        step = max(0, trainer.state.step - 1)
        mfu = self.mfu(trainer.tokens_per_s)
        parts = [
            "calibrating" if trainer.total is None else trainer.plan.schedule(step).phase(step),
            f"loss {trainer.loss:.3f}",
            f"{self.train_bpb():.3f} bits per byte",
            self._held_out(),
            f"{trainer.tokens_per_s:,.0f} tokens/s",
            "" if mfu is None else f"MFU {mfu:.0%}",
            f"{memory_bytes(trainer.processes.device) / 1e9:.2f} GB",
        ]
        if trainer.box is not None:
            left_s = max(0.0, trainer.box.budget_s - trainer.clock.elapsed_s())
            parts.append(f"time box: {duration(left_s)} left")
        return ", ".join(part for part in parts if part)

    def _held_out(self) -> str:
        """Return the last validation and its step: at step 0 first weights may look bad."""
        bpb = self.trainer.val_bpb
        return "" if bpb is None else f"held out {bpb:.3f} at step {self.trainer.last_validation}"

    def _log_step(self) -> None:
        trainer = self.trainer
        if not trainer.processes.is_main:
            return
        rates = {"learning_rate": trainer.learning_rate}
        if trainer.run.cfg.optimizer != "adamw":
            factor = trainer.learning_rate / trainer.run.cfg.learning_rate
            rates["muon_learning_rate"] = factor * trainer.run.cfg.muon_learning_rate
        energy_wh, mfu = self.energy_wh(), self.mfu(trainer.tokens_per_s)
        trainer.metrics.log(
            trainer.state.step,
            trainer.clock.elapsed_s(),
            loss=round(trainer.loss, 6),
            train_bpb=round(self.train_bpb(), 6),
            **rates,
            grad_norm=round(trainer.grad_norm, 6),
            tokens=trainer.state.tokens,
            tokens_per_s=round(trainer.tokens_per_s, 1),
            **({} if mfu is None else {"mfu": round(mfu, 4)}),
            memory_mb=round(memory_bytes(trainer.processes.device) / 1e6, 1),
            **({} if energy_wh is None else {"energy_wh": round(energy_wh, 3)}),
            **source_metrics(trainer.data, trainer.run.data_dirs, *self._drawn()),
        )

    def _drawn(self) -> tuple[int, list[tuple[int, int]]]:
        """Return the seed and the global rows trained on so far."""
        cfg, step = self.trainer.run.cfg, self.trainer.state.step
        return cfg.seed, self.trainer.plan.windows(step, global_rows(cfg))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of a finished run; None stands for what nothing here measures."""
        trainer, cfg = self.trainer, self.trainer.run.cfg
        seconds, state = trainer.clock.elapsed_s(), trainer.state
        rate = self._median_rate()
        mfu, energy_wh = self.mfu(rate), self.energy_wh()
        cost = None if cfg.cost_per_hour is None else round(seconds / 3600 * cfg.cost_per_hour, 4)
        return {
            "parameters": count_parameters(cfg).total,
            "tokens": state.tokens,
            "steps": state.step,
            "val_bpb": trainer.val_bpb,
            "best_step": state.best_step,
            "best_bpb": state.best_bpb,
            "seconds": round(seconds, 1),
            "tokens_per_s": round(rate, 1),
            "mfu": None if mfu is None else round(mfu, 4),
            "peak_memory_mb": round(peak_memory_bytes(trainer.processes.device) / 1e6, 1),
            "energy_wh": None if energy_wh is None else round(energy_wh, 3),
            "energy_source": self._meter.source if self._meter else None,
            "cost": cost,
            "sources": account_sources(trainer.data, trainer.run.data_dirs, *self._drawn()),
        }

    def _median_rate(self) -> float:
        """Return the median of the recorded tokens per second, before a resume included."""
        records = read_metrics(self.trainer.run.folder)
        rates = [record["tokens_per_s"] for record in records if record.get("tokens_per_s")]
        return statistics.median(rates) if rates else self.trainer.tokens_per_s


def bytes_per_token(run: Run) -> float:
    """Return the UTF-8 bytes of text behind a training token, on average over the mixture."""
    splits = [read_dataset(folder)["splits"]["train"] for folder in run.data_dirs]
    weights = run.cfg.data_weights or (1.0,) * len(splits)
    sizes = [split["text_bytes"] / split["tokens"] for split in splits]
    return sum(w * size for w, size in zip(weights, sizes, strict=True)) / sum(weights)


def summary_line(numbers: dict[str, Any]) -> str:
    """Return the summary in a line of words."""
    energy = numbers["energy_wh"]
    cost = numbers["cost"]
    parts = [
        f"{numbers['tokens']:,} tokens in {duration(numbers['seconds'])}",
        f"{numbers['tokens_per_s']:,.0f} tokens/s",
        "MFU not known" if numbers["mfu"] is None else f"MFU {numbers['mfu']:.0%}",
        f"memory at most {numbers['peak_memory_mb'] / 1e3:.2f} GB",
        "energy not measured" if energy is None else f"{energy:,.1f} Wh",
        "" if cost is None else f"cost {cost:,.2f}",
        f"best at step {numbers['best_step']:,} ({numbers['best_bpb']:.4f} bits per byte)",
    ]
    return ", ".join(part for part in parts if part)
