//! Steps of shares for officers above; the property is in `src/checks.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::checks::share_step(bytes);
});
