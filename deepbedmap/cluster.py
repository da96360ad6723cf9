"""Map a function over items, in this process or on a dask cluster."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


def mapped(
    function: Callable[..., Any], items: Iterable[Any], client: Any, *shared: Any
) -> Iterator[Any]:
    """Call a function with each item, here or on a cluster, and give the results in their order.

    Parameters
    ----------
    function
        Takes an item, and what is shared.
    items
        What each call is for; drawn as they are needed.
    client
        A ``dask.distributed.Client``, whose workers are sent two items a thread of theirs at once;
        None: this process.
    shared
        What every call needs; each worker is sent it once.

    Examples
    --------
    >>> list(mapped(lambda part, factor: factor * part, [1, 2, 3], None, 10))
    [10, 20, 30]
    """
    if client is None:
        for item in items:
            yield function(item, *shared)
        return
    given = [client.scatter([value], broadcast=True, hash=False)[0] for value in shared]
    waiting: deque[Any] = deque()
    for item in items:
        if len(waiting) >= 2 * max(1, sum(client.nthreads().values())):
            yield waiting.popleft().result()
        [sent] = client.scatter([item], hash=False)
        waiting.append(client.submit(function, sent, *given, pure=False))
    while waiting:
        yield waiting.popleft().result()
