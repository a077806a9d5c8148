//! libFuzzer chooses the bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| laurel::fuzzing::spec_to_decision(input));
