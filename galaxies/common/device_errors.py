"""What went wrong with memory or with a GPU, in one sentence that says what to try."""

from __future__ import annotations

_CUDA_MEMORY = ("out of memory", "ALLOC_FAILED")  # MPS and the libraries of CUDA have no error class of their own
_PROCESSOR_MEMORY = "DefaultCPUAllocator: "
_FAILURES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "CUSOLVER_STATUS", "cuFFT error")
_OURS = "device-side assert"  # a mistake of the program, whose traceback says where


def device_failure(error: BaseException) -> str | None:
    """Return a sentence about an error of memory or of a GPU, and None about any other.

    It goes by names and words, so that nobody has to load torch to ask.
    """
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _PROCESSOR_MEMORY in text):
        return "there is not enough memory: try a smaller batch or image size"
    if not isinstance(error, RuntimeError):
        return None
    if kind == "OutOfMemoryError" or any(words in text for words in _CUDA_MEMORY):
        return (
            "the GPU has not enough memory: close other programs that use it, try a smaller batch or image size where "
            "there is one to choose, or --device cpu"
        )
    if _OURS in text or not (kind == "AcceleratorError" or any(words in text for words in _FAILURES)):
        return None
    said = first_sentence(text)
    if "no kernel image" in text:
        return f"this PyTorch was not built for this GPU ({said}): install one that was, or use --device cpu"
    return f"the GPU failed ({said}): start again, and if that does not help, update its driver or use --device cpu"


def first_sentence(text: str) -> str:
    """Return the first sentence of an error's text, without its full stop."""
    line = text.strip().partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")
