#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infratrack_fuzz::targets::backup_cache(bytes));
