import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ddrep.files import fingerprint, save_tensors, sha256, state_path, written_whole


def test_nothing_is_there_before_the_end_and_only_the_output_after(tmp_path):
    out = tmp_path / "new" / "a.txt"
    with written_whole(out) as (draft,):
        draft.write_text("half")
        assert not out.exists() and draft.suffix == out.suffix and draft.parent == out.parent
    assert out.read_text() == "half" and [p.name for p in out.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_several_outputs_as_they_were(tmp_path):
    old, new = tmp_path / "old.tar", tmp_path / "new.parquet"
    old.write_text("before")
    with pytest.raises(RuntimeError), written_whole(old, new) as drafts:
        for draft in drafts:
            draft.write_text("half")
        raise RuntimeError
    assert old.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["old.tar"]


def test_several_outputs_appear_together(tmp_path):
    paths = tmp_path / "a.tar", tmp_path / "a.parquet"
    with written_whole(*paths) as drafts:
        for i, draft in enumerate(drafts):
            draft.write_text(str(i))
    assert [p.read_text() for p in paths] == ["0", "1"] and len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_drafts_goes_too(tmp_path):
    with pytest.raises(RuntimeError), written_whole(tmp_path / "folder") as (draft,):
        draft.mkdir()
        (draft / "part").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_hashlibs(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_equal_tensors_and_metadata_give_equal_bytes(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor([1, 2])}
    metadata = {str(k): json.dumps({"name": 'Jäckchen \u2603 "a/b"\n', "k": k}) for k in range(6)}
    for i in range(8):
        save_tensors(tensors, tmp_path / f"{i}.safetensors", metadata)
    assert len({sha256(path) for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as f:
        assert f.metadata() == metadata
    for name, value in load_file(tmp_path / "0.safetensors").items():
        assert torch.equal(value, tensors[name])


def test_fingerprints_tell_the_parts_apart():
    names = {fingerprint(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", ""))}
    assert len(names) == 5 and all(len(name) == 16 for name in names)


def test_unfinished_work_of_other_settings_or_inputs_lies_elsewhere():
    ours = state_path("finetune", '{"lr":1e-3}', "d1")
    others = {state_path("finetune", '{"lr":1e-3}', "d2"), state_path("finetune", '{"lr":1e-4}', "d1")}
    assert ours not in others | {state_path("pretrain", '{"lr":1e-3}', "d1")} and len(others) == 2
    assert ours == state_path("finetune", '{"lr":1e-3}', "d1") and not ours.is_absolute()
