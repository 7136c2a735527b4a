//! What clients ask the DNS server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| causeway_dns::fuzz::query(bytes));
