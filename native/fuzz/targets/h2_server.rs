#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_codec::fuzzing::h2_server(data));
