"""What this machine is and what it does well."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """What a figure was measured on."""
    return {
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


# Multiply-adds of a sample below which a second thread gains little when the machine is quiet, and costs much when it
# is not: threads meet after every product, and the one that shares its core is waited for each time.
WORTH_THREADS = 20e6


def choose_threads(macs: float) -> tuple[int, str]:
    """Threads for products of this size beside the load that is there now, and why."""
    most = torch.get_num_threads()
    if most == 1:
        return 1, "chosen: one thread is allowed"
    if macs < WORTH_THREADS:
        return 1, f"chosen: {macs / 1e6:.1f}M multiply-adds a sample are too few to share"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    free = max(1, min(most, round((os.cpu_count() or most) - load)))
    return free, f"chosen: {free} of {most} threads, as the load of this machine is {load:.1f}"


def capabilities() -> dict[str, Any]:
    """What the processor says it can do; empty where this torch cannot ask it."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def processor() -> str:
    """What code compiled for this processor depends on; virtual machines give one name to processors that differ."""
    return cpu_name() + str(sorted(capabilities().items()))


def native_bf16(device: torch.device | str) -> bool:
    """Does the device multiply bfloat16 matrices in hardware?"""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))
