"""Generation batches put together by whole groups."""

import torch

from medvlt_lib.training.batches import joined, with_groups_replaced


def batch(ids, prompt, completion, pictures=None):
    """Rows named by `ids`, with prompts and completions of these widths; `pictures`: patches of each row's picture."""
    rows = len(ids)
    own = {
        "prompt_ids": torch.tensor(ids)[:, None].repeat(1, prompt),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": torch.tensor(ids)[:, None].repeat(1, completion) + 100,
        "completion_mask": torch.ones(rows, completion, dtype=torch.long),
        "sampling_per_token_logps": -torch.ones(rows, completion),
        "advantages": torch.tensor(ids, dtype=torch.float),
        "num_items_in_batch": torch.tensor(rows * completion),
    }
    if pictures is not None:
        own |= {
            "pixel_values": [torch.full((n, 3), float(i)) for i, n in zip(ids, pictures, strict=True)],
            "image_grid_thw": [torch.tensor([[1, 1, n]] if n else []).view(-1, 3).long() for n in pictures],
            "num_images": [int(n > 0) for n in pictures],
            "mm_token_type_ids": torch.ones(rows, prompt + completion, dtype=torch.long),
        }
    return own


def test_groups_are_replaced_and_padded_on_the_right_sides():
    old, fresh = batch([1, 1, 2, 2], 3, 2), batch([7, 7, 8, 8], 2, 4)
    mixed = with_groups_replaced(old, fresh, [(0, 1)], 2, pad_id=0)
    assert mixed["advantages"].tolist() == [8, 8, 2, 2]
    assert mixed["prompt_ids"].tolist() == [[0, 8, 8], [0, 8, 8], [2, 2, 2], [2, 2, 2]]
    assert mixed["prompt_mask"].tolist() == [[0, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert mixed["completion_ids"].tolist() == [[108] * 4, [108] * 4, [102, 102, 0, 0], [102, 102, 0, 0]]
    assert mixed["completion_mask"][2].tolist() == [1, 1, 0, 0]
    assert mixed["sampling_per_token_logps"].shape == (4, 4)


def test_a_picture_stays_with_its_row():
    old, fresh = batch([1, 1, 2, 2], 3, 2, pictures=[4, 4, 0, 0]), batch([7, 7, 8, 8], 3, 2, pictures=[0, 0, 6, 6])
    mixed = with_groups_replaced(old, fresh, [(1, 1)], 2, pad_id=0)
    assert [len(p) for p in mixed["pixel_values"]] == [4, 4, 6, 6] and mixed["num_images"] == [1, 1, 1, 1]
    assert [p[0, 0].item() for p in mixed["pixel_values"]] == [1, 1, 8, 8]
    assert mixed["image_grid_thw"][2].tolist() == [[1, 1, 6]]


def test_text_and_pictures_in_either_order():
    text, pictures = batch([1, 1], 3, 2), batch([7, 7], 2, 2, pictures=[4, 4])
    for first, second, expected in ((text, pictures, [0, 0, 4, 4]), (pictures, text, [4, 4, 0, 0])):
        both = joined(first, second, pad_id=0)
        assert [len(p) for p in both["pixel_values"]] == expected
        assert both["mm_token_type_ids"].shape == (4, 5) and both["prompt_ids"].shape == (4, 3)
        assert both["mm_token_type_ids"][expected.index(4)].sum() == 4  # its own 2 + 2 tokens; the padding is none
