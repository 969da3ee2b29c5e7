//! A frame of a ferry's payload; the property is in `src/checks.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::checks::ferry_frame(bytes);
});
