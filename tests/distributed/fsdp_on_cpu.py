"""The command line of medvlt with accelerate's FSDP2 on CPU processes: `accelerate launch ... fsdp_on_cpu.py sft`.

accelerate takes up the FSDP of a launch file only where it finds GPUs. Here its state is told that these CPU processes
are some; what follows is its own code and torch's, on gloo. Every process but the first has no number in its weights
when they are sharded, so whatever it trains with came from the first one. What each process saw goes to the folder that
the variable SEEN names.
"""

import json
import os
from pathlib import Path

import accelerate.accelerator
import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from medvlt_lib.__main__ import main


def take_cpus_for_gpus() -> None:
    """From now on accelerate on CPU processes takes up the FSDP that it was launched with."""
    start = state.AcceleratorState.__init__

    def with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        first_time = not state.AcceleratorState._shared_state
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if first_time and fsdp_plugin is not None:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = with_fsdp


def own_tensors(model) -> list[torch.Tensor]:
    """This process's part of every weight, and its buffers."""
    return [t.to_local() if hasattr(t, "to_local") else t for t in (*model.parameters(), *model.buffers())]


def watch_sharding(seen: Path) -> None:
    """Take the weights of every process but the first away before accelerate shards them, and note what came of it."""
    shard, rank = accelerate.accelerator.fsdp2_prepare_model, int(os.environ["RANK"])

    def watched(accelerator, model):
        if rank:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(float("nan"))
        model = shard(accelerator, model)
        finite = all(tensor.isfinite().all().item() for tensor in own_tensors(model) if tensor.is_floating_point())
        whole = sum(parameter.numel() for parameter in model.parameters())
        part = sum(parameter.to_local().numel() for parameter in model.parameters())
        wrapped = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
        note = {"finite": finite, "share": part / whole, "wrapped": wrapped}
        (seen / f"{rank}.json").write_text(json.dumps(note))
        return model

    accelerate.accelerator.fsdp2_prepare_model = watched


if __name__ == "__main__":
    take_cpus_for_gpus()
    watch_sharding(Path(os.environ["SEEN"]))
    main()
