import numpy as np
import pytest

from jaxdl.data import chunks

OPTIONS = (
    "group_size:1",
    "group_size:1,uncompressed",
    "group_size:1,zstd",
    "group_size:7",
    "group_size:3,pad_to_block_boundary:true",
    "group_size:100,transpose:true",
)
SIZES = (0, 0, 1, 50, 1000, 65_000, 65_536, 70_000, 200_000)


def write(path, records, options):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(8))
def test_the_largest_chunk_holds_the_largest_record(options, seed, tmp_path):
    random = np.random.RandomState(seed)
    sizes = random.choice(SIZES, random.randint(1, 40))
    if seed == 0:
        sizes = np.zeros(3000, int)  # chunks that are padded
    records = [random.bytes(int(size)) for size in sizes]
    write(tmp_path / "x", records, options)
    found = chunks.largest(tmp_path / "x")
    assert found >= sizes.max()
    if options.startswith("group_size:1,") and sizes.max() > 60_000:
        assert found == sizes.max()


@pytest.mark.parametrize("cut", [1, 30, 63, 70, 65_536, 70_000, 131_000])
def test_a_file_that_is_cut_or_is_another(cut, tmp_path):
    write(tmp_path / "x", [bytes(range(256)) * 300] * 2, "group_size:1,uncompressed")
    data = (tmp_path / "x").read_bytes()
    assert len(data) > 140_000
    (tmp_path / "x").write_bytes(data[:cut])
    with pytest.raises(ValueError, match="ends in"):
        chunks.largest(tmp_path / "x")
    (tmp_path / "x").write_bytes(bytes(cut + 64))
    with pytest.raises(ValueError, match="no chunk"):
        chunks.largest(tmp_path / "x")
