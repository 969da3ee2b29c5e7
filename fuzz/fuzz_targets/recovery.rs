//! What a lost station is rebuilt from, opened with the key that shares give; the property is in
//! `src/checks.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::checks::recovery(bytes);
});
