//! The `fangzhi` binary.
fn main() {}
