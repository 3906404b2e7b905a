"""Sessions of ONNX Runtime in which our execution provider runs the operators of ``ai.qcompiler`` natively."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qcompiler.errors import ModelError, UsageError, first_line
from qcompiler.runtime.library import library_path

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["CLAIMS", "PROVIDER", "attach", "checked_threads", "session"]

PROVIDER: Final = "QCompilerExecutionProvider"
"""The name under which ONNX Runtime knows the execution provider."""

CLAIMS: Final = ("qdq", "matmulnbits")
"""What the execution provider can take of models that other compilers made."""

_LOWEST: Final = (1, 24)
_MOST_THREADS: Final = 1024
"""ONNX Runtime makes the threads at once, and they wait busily: a wrong number can stop a machine."""
_CPU: Final = "CPUExecutionProvider"
_ATTACHED: Final = "qcompiler.attached"
"""Entry of a session's configuration that says with which settings the provider was added."""


def session(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    threads: int | None = None,
    isa: str | None = None,
    claim: Collection[str] = (),
    options: onnxruntime.SessionOptions | None = None,
) -> onnxruntime.InferenceSession:
    """A session that runs a compiled model with native kernels.

    Nodes that have no native kernel run in ONNX Runtime's CPU provider. Where the installation has no native library,
    a warning says so and the whole model runs there, by its function bodies: the same results, slower.

    Args:
        model: A model file, its bytes, or a model in memory.
        threads: Threads of one run; ``None`` leaves the choice to ONNX Runtime.
        isa: Instruction set of the kernels, as ``qcompiler.runtime.native_operator.instruction_sets`` lists them;
            ``None`` takes the best that the processor has.
        claim: What the native kernels take of models that other compilers made: ``qdq``, groups of QuantizeLinear and
            DequantizeLinear around Conv, Gemm and MatMul; ``matmulnbits``, the operator of that name. Results may then
            differ from ONNX Runtime's own in the last place.
        options: Further options of the session. They are changed: the provider is added, and ``threads`` where given.
            They may serve several sessions of equal settings.

    Raises:
        ModelError: ONNX Runtime cannot load the model; the text names the node and the reason.
        UsageError: The instruction set is not available here, ``claim`` names something else, the number of threads
            makes no sense, ``options`` carry the provider with other settings, or ONNX Runtime is older than 1.24.
    """
    import onnxruntime

    chosen = options if options is not None else _quiet_options()
    if threads is not None:
        chosen.intra_op_num_threads = checked_threads(threads)
    path = library_path()
    if path is None:
        text = "qcompiler was installed without its native library: the model runs by its function bodies, slowly"
        warnings.warn(f"{text}; install it again where a C++ compiler is available", RuntimeWarning, stacklevel=2)
    else:
        attach(chosen, threads=threads, isa=isa, claim=claim)
    source = model if isinstance(model, bytes) else str(model) if isinstance(model, str | Path) else _bytes(model)
    try:
        providers: dict[str, Any] = {} if path is not None else {"providers": [_CPU]}
        # Otherwise some releases print a refusal of the provider and go on without it.
        return onnxruntime.InferenceSession(source, chosen, enable_fallback=0, **providers)
    except Exception as error:  # ONNX Runtime raises many unrelated types
        where = str(model) if isinstance(model, str | Path) else None
        raise ModelError(f"ONNX Runtime cannot load the model: {_reason(error)}", where=where) from error


def attach(
    options: onnxruntime.SessionOptions,
    *,
    threads: int | None = None,
    isa: str | None = None,
    claim: Collection[str] = (),
) -> None:
    """Add the execution provider to the options of a session; once, however often it is asked for.

    Raises:
        ModelError: The installation has no native library.
        UsageError: ONNX Runtime is too old to take an execution provider from outside, a setting makes no sense, or the
            options carry the provider with other settings.
    """
    settings = {} if threads is None else {"threads": str(checked_threads(threads))}
    settings |= {} if isa is None else {"isa": _checked_isa(isa)}
    settings |= {"claim": ",".join(_checked_claim(claim))} if claim else {}
    devices = _devices()
    text = ", ".join(f"{name}={value}" for name, value in settings.items()) or "defaults"
    attached = _attached(options)
    if attached not in (None, text):
        hint = "make new session options for other settings"
        raise UsageError(f"the session options carry the provider already, with {attached}, not {text}", hint=hint)
    if attached is None:
        options.add_provider_for_devices(devices[:1], settings)
        options.add_session_config_entry(_ATTACHED, text)


def _attached(options: onnxruntime.SessionOptions) -> str | None:
    """The settings with which the provider was added to these options; ``None`` where it was not."""
    try:
        return str(options.get_session_config_entry(_ATTACHED))
    except RuntimeError:  # there is no such entry
        return None


def _checked_isa(isa: str) -> str:
    """An instruction set whose kernels run here."""
    from qcompiler.runtime.native_operator import instruction_sets

    if library_path() is None:
        return isa  # the missing library is refused in words of its own
    known = ("auto", *instruction_sets())
    if isa not in known:
        raise UsageError(f"instruction set '{isa}' is not available here", hint=f"choose {', '.join(known)}")
    return isa


def _checked_claim(claim: Collection[str]) -> list[str]:
    """Kinds of foreign nodes that can be taken."""
    for kind in [claim] if isinstance(claim, str) else claim:
        if kind not in CLAIMS:
            raise UsageError(f"'{kind}' is nothing that can be claimed", hint=f"choose {' or '.join(CLAIMS)}")
    return [claim] if isinstance(claim, str) else list(claim)


def checked_threads(threads: int) -> int:
    """A number of threads, checked.

    Raises:
        UsageError: It is not between 1 and 1024.
    """
    if not 1 <= threads <= _MOST_THREADS:
        hint = "give a number from 1 on, or none to leave the choice to ONNX Runtime"
        raise UsageError(f"{threads} threads make no sense", hint=hint)
    return threads


def _quiet_options() -> onnxruntime.SessionOptions:
    """Without the runtime's warning that some nodes are left to its CPU provider: that is how it is meant."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _devices() -> list[Any]:
    """The devices of the provider; its library is registered when they are asked for first."""
    import onnxruntime

    release = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if release < _LOWEST:
        hint = "pip install 'onnxruntime>=1.24'"
        text = f"the execution provider needs ONNX Runtime 1.24; this is {onnxruntime.__version__}"
        raise UsageError(text, hint=hint)
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    if not found:
        path = library_path()
        if path is None:
            hint = "install the project where a C++ compiler is available"
            raise ModelError("the installation has no native library", hint=hint)
        onnxruntime.register_execution_provider_library("qcompiler", str(path))
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    return found


def _reason(error: Exception) -> str:
    """What the provider said, without the runtime's account of how the words reached us."""
    return first_line(error).rpartition(f"{PROVIDER}: ")[2]


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())
