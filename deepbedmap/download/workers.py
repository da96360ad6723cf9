"""A pool of threads that finishes all its work before it raises its errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from deepbedmap.errors import DeepBedMapError, DownloadError, MissingDataError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_all(
    work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int, stop: threading.Event
) -> list[_Result]:
    """Do the work for every item, and only then raise the errors, each message once."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            errors = [future.exception() for future in futures]
        except BaseException:  # Ctrl-C: end the running items, and do not begin the others
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    raise_faults([error for error in errors if error is not None])
    return [future.result() for future in futures]


def raise_faults(faults: Sequence[BaseException]) -> None:
    """Raise all faults as one error, each message once; do nothing if there are none."""
    for fault in faults:
        if not isinstance(fault, DeepBedMapError):
            raise fault
    if faults:
        missing = all(isinstance(fault, MissingDataError) for fault in faults)
        kind = MissingDataError if missing else DownloadError
        raise kind("\n".join(dict.fromkeys(map(str, faults)))) from faults[0]
