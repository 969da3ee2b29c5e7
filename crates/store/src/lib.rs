//! Keeping bytes: append-only segment files as the truth, sled as the index over them.
