"""Whether summing gradients during the backward pass pays: the sum after it against buckets under way, two processes.

    torchrun --standalone --nproc-per-node 2 benchmarks/gradient_overlap.py --width 64 --batch-size 16

The work is the training pass of CIFAR ResNet-18 alone, without the attack that takes 20 of the 23 passes of a PGD-10
step: where the overlap does not pay here, it pays nowhere. On CUDA the processes talk by NCCL.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.distributed as dist
from timing import alternate, arguments, keep, problem, ratio, timing
from torch import Tensor, nn

from counterpart import devices, distributed
from counterpart.models import create
from counterpart.seeding import seeded

BUCKET = 2**22  # values in a message, 16 MiB of float32


def main() -> None:
    """Time, compare, keep."""
    given = arguments(__doc__).parse_args()
    distributed.start()
    device = devices.resolve(given.device, 1)
    images, labels = problem(given.batch_size, device)
    with seeded(0):
        model = create("resnet18", 10, width=given.width).to(device, memory_format=torch.channels_last)
    plain = partial(backward, model, images, labels)
    works: dict[str, Callable[[], object]] = {
        "backward alone": plain,
        "sum after backward": lambda: (plain(), add_up(model)),
        "sum during backward": partial(overlapped, model, plain),
    }
    taken = alternate(works, device, given.repeats)
    if distributed.is_main():
        setting = {
            "model": "resnet18", "width": given.width, "batch_size": given.batch_size, "device": device.type,
            "processes": distributed.world_size(), "backend": dist.get_backend(), "bucket": BUCKET,
        }  # fmt: skip
        rows = [
            timing(f"gradient sums/{name}", spent, given.batch_size, **setting)
            for name, spent in taken.items()
        ]
        middle = {name: median(spent) for name, spent in taken.items()}
        gained = middle["sum after backward"] / middle["sum during backward"]
        rows.append(
            ratio("gradient sums/during over after", gained, n=given.repeats, target="> 1", **setting)
        )
        keep("gradient_overlap.jsonl", rows)
    distributed.stop()


def backward(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """A clean training pass."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), labels).backward()


def add_up(model: nn.Module) -> None:
    """Add the gradients up in one message, as training does."""
    distributed.sum_([p.grad for p in model.parameters() if p.grad is not None])


def overlapped(model: nn.Module, work: Callable[[], object]) -> None:
    """Send gradients in buckets as soon as they are there."""
    waiting: list[Tensor] = []
    sent: list[tuple[list[Tensor], Tensor, dist.Work]] = []

    def send() -> None:
        gradients = [p.grad for p in waiting if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        handle = dist.all_reduce(flat, async_op=True)
        assert handle is not None
        sent.append((gradients, flat, handle))
        waiting.clear()

    def collect(parameter: Tensor) -> None:
        waiting.append(parameter)
        if sum(p.numel() for p in waiting) >= BUCKET:
            send()

    hooks = [p.register_post_accumulate_grad_hook(collect) for p in model.parameters()]
    work()
    if waiting:
        send()
    for gradients, flat, handle in sent:
        handle.wait()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
    for hook in hooks:
        hook.remove()


if __name__ == "__main__":
    main()
