//! libFuzzer chooses the bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| laurel::fuzzing::mlflow_bodies(input));
