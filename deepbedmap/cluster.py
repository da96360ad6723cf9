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
    """Call a function with each item, here or on a cluster, and yield the results in order.

    Parameters
    ----------
    function
        Takes an item, followed by the shared arguments.
    items
        One item per call, drawn as needed.
    client
        A ``dask.distributed.Client``, which holds at most two pending items per worker thread;
        None to run in this process.
    shared
        Further arguments of every call, sent to each worker once.

    Yields
    ------
    Any
        The result for each item, in the order of the items.

    Examples
    --------
    >>> list(mapped(lambda part, factor: factor * part, [1, 2, 3], None, 10))
    [10, 20, 30]
    """
    if client is None:
        for item in items:
            yield function(item, *shared)
        return
    shared_futures = [client.scatter([value], broadcast=True, hash=False)[0] for value in shared]
    pending: deque[Any] = deque()
    for item in items:
        if len(pending) >= 2 * max(1, sum(client.nthreads().values())):
            yield pending.popleft().result()
        [item_future] = client.scatter([item], hash=False)
        pending.append(client.submit(function, item_future, *shared_futures, pure=False))
    while pending:
        yield pending.popleft().result()
