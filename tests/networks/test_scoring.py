"""What all networks share."""

from __future__ import annotations

import pytest
import torch

from napari_sparseseg.networks.scoring import as_batch


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_one_keeps_channels_together_in_memory(channels: int) -> None:
    image = torch.rand(channels, 5, 7)
    batch = as_batch(image)
    assert batch.shape == (1, channels, 5, 7)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch[0], image, rtol=0, atol=0)
