"""Opens an ONNX file and asks for one answer. Run as a script, it tries a file that anybody may have made.

onnxruntime reads files and computes in C++: what a file asks for there ends the process, takes all memory or never
ends, and no exception says so. So each file is tried in a process of its own first. That imports nothing of the
package, because torch would take longer to import than all the rest.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

QUIET = 4  # of its levels of logging, the one that says nothing: names in messages come from the file
FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
UNKNOWN = (1, 3, 32, 32)  # the shape of an image, where the file leaves a side open


def open_session(content: bytes, threads: int = 0) -> Any:
    """A session of onnxruntime, which reads no other file.

    Args:
        content: the file.
        threads: how many compute; 0 leaves it to onnxruntime.

    Raises:
        ValueError: the file cannot be read as a network of one input, or keeps its weights in other files.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = QUIET, threads
    with tempfile.TemporaryDirectory() as empty:  # or a file could name any other as its weights
        options.add_session_config_entry(FOLDER_OF_WEIGHTS, empty)
        try:
            # Its fallback prints the error, which may quote the file, and tries the same again.
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            (_,) = session.get_inputs()
        except Exception as error:  # onnxruntime raises errors of any kind for a damaged file
            raise ValueError(_first_line(error)) from error
    return session


def ask(session: Any, images: Any) -> Any:
    """The first output of a session.

    Raises:
        ValueError: it has no answer to these images.
    """
    try:
        return session.run(None, {session.get_inputs()[0].name: images})[0]
    except Exception as error:  # as above
        raise ValueError(_first_line(error)) from error


def number_type(session: Any) -> str:
    """The type of numbers that a session wants, as numpy calls it."""
    return "float16" if session.get_inputs()[0].type == "tensor(float16)" else "float32"


def _first_line(error: Exception) -> str:
    reason: str = (str(error).splitlines() or [type(error).__name__])[0]
    if "xternal data" in reason or "external_data" in reason:
        return "it keeps its weights in other files, which are not read: save it as one file"
    return reason


def _limit(more_bytes: int, seconds: int) -> None:
    """Let this process have so much more memory, and so many seconds of the processor, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _try(content: bytes, more_bytes: int, seconds: int) -> str:
    """What is wrong with a file; "" if nothing is. An image of another shape than it wants is no fault of it."""
    import numpy as np
    import onnxruntime  # noqa: F401 - what it takes for itself does not count

    _limit(more_bytes, seconds)
    try:
        session = open_session(content, threads=1)
    except ValueError as error:
        _end_without_memory(error)
        return str(error)
    sides = session.get_inputs()[0].shape[: len(UNKNOWN)]
    shape = list(UNKNOWN[: len(sides)])
    for axis, side in enumerate(sides):
        if isinstance(side, int):
            shape[axis] = side
    try:
        ask(session, np.full(shape, 0.5, number_type(session)))
    except ValueError as error:
        _end_without_memory(error)
    return ""


def _end_without_memory(error: ValueError) -> None:
    """End this process where an error says that there was not enough memory."""
    if "allocate memory" in str(error) or "bad_alloc" in str(error):
        raise MemoryError from error


if __name__ == "__main__":
    fault = _try(sys.stdin.buffer.read(), int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.buffer.write(b"\n" + fault.encode())  # after what onnxruntime itself may say
    sys.stdout.buffer.flush()
    os._exit(0)  # what follows is the end of onnxruntime's threads, which says nothing of the file
