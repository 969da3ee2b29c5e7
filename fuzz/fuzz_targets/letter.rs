//! Letters between two nodes, opened with the reader's key; the property is in `src/checks.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::checks::letter(bytes);
});
