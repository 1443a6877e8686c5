"""What the tests of the layouts share."""


def bytes_of(root):
    """Path below the root -> content, of all files."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def stop_after(count):
    """A `progress` that interrupts the rendering after `count` sequences."""

    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress
