"""Errors of the disk, in one line."""

import errno

import pytest
from safetensors import SafetensorError

from utils.disk import disk_errors, free_bytes
from utils.errors import LumiError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"disk full while writing .*MB free"),
        (SafetensorError("Error: I/O error: No space left on device (os error 28)"), "disk full"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only .* another --output_dir"),
        (OSError(errno.ENOTDIR, "Not a directory"), "Not a directory: choose another"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error: look for a failing disk"),
        (OSError(errno.EMFILE, "Too many open files"), r"Too many open files: .*`ulimit -n 4096`"),
    ],
)
def test_what_a_user_can_mend_is_one_line(tmp_path, error, message):
    with pytest.raises(LumiError, match=message) as caught, disk_errors(tmp_path):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "bad"), SafetensorError("bad header")])
def test_other_errors_stay_bugs(tmp_path, error):
    with pytest.raises(type(error), match="bad"), disk_errors(tmp_path):
        raise error


def test_the_free_space_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0
