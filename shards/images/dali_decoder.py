"""What DALI, the reader of the sets, says of an image."""

from __future__ import annotations

import numpy as np

from amdim.shards.sources.base import Rejected


class Decoder:
    """DALI on the CPU, one image at a time.

    One image it refuses costs it the whole batch, and among others that image can end the process with a segmentation fault
    (seen with damaged PNGs in DALI 2.4.0). Alone, it is a RuntimeError and no more.
    """

    def __init__(self) -> None:
        from nvidia.dali import fn, pipeline_def  # half a second, which the other commands need not spend

        @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        def graph() -> object:
            return fn.decoders.image(fn.external_source(name="encoded"), adjust_orientation=False)

        self._pipeline = graph()

    def check(self, data: bytes) -> None:
        """Raises Rejected for an encoded image that DALI does not decode."""
        try:
            self._pipeline.run(encoded=[np.frombuffer(data, np.uint8)])
        except RuntimeError:
            raise Rejected("DALI cannot decode it") from None
